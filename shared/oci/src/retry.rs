//! When a registry wants to be asked again (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};
use ureq::{Body, http::Response};

/// The longest wait that a registry may ask for, and the longest for one answer in all.
const LONGEST: Duration = Duration::from_secs(30);
const ALTOGETHER: Duration = Duration::from_mins(1);

/// Returns how long will have been waited for one answer once the wait that is asked for is over;
/// `None` if that is not waited for.
pub(crate) fn wait(asked: Duration, waited: Duration) -> Option<Duration> {
    let sum = waited.checked_add(asked)?;
    (asked <= LONGEST && sum <= ALTOGETHER).then_some(sum)
}

/// Returns how long the sender of an answer asks to wait, as seconds or as a date by its own clock.
pub(crate) fn after(response: &Response<Body>) -> Option<Duration> {
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    read(header("retry-after")?, header("date"))
}

fn read(text: &str, now: Option<&str>) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let clock = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        since.as_secs() as i64
    };
    let now = now.and_then(date).unwrap_or_else(clock);
    date(text).map(|then| Duration::from_secs(then.saturating_sub(now).max(0) as u64))
}

/// Reads a date, in each of the three forms that HTTP knows (section 5.6.7), as seconds since 1970.
fn date(text: &str) -> Option<i64> {
    const MONTHS: &str = "janfebmaraprmayjunjulaugsepoctnovdec";
    let lower = text.to_ascii_lowercase().replace([',', '-'], " ");
    let words: Vec<&str> = lower.split_whitespace().collect();
    // `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT`, and
    // `Sun Nov  6 08:49:37 1994`.
    let ([_, day, month, year, time, "gmt" | "utc"] | [_, month, day, time, year]) =
        words.as_slice()
    else {
        return None;
    };
    let month = MONTHS.find(*month).filter(|at| month.len() == 3 && at % 3 == 0)? as i64 / 3 + 1;
    let number = |text: &str, most: i64| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() <= 4;
        text.parse::<i64>().ok().filter(|number| digits && *number <= most)
    };
    let day = number(day, 31)?;
    let year = match (year.len(), number(year, 9999)?) {
        (2, year) => year + if year < 70 { 2000 } else { 1900 },
        (_, year) => year,
    };
    let parts: Vec<&str> = time.split(':').collect();
    let [hours, minutes, seconds] = parts.as_slice() else { return None };
    let seconds = number(hours, 23)? * 3600 + number(minutes, 59)? * 60 + number(seconds, 60)?;
    // Years that begin in March end with the day that not all of them have.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    Some((days - 719_468) * 86400 + seconds)
}

/// Says a time in words: `30 s`, `5 min`, `24 h`, `3 days`.
pub(crate) fn spelled(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds.div_ceil(60)),
        seconds @ 7200..172_800 => format!("{} h", seconds.div_ceil(3600)),
        seconds @ 172_800..31_536_000 => format!("{} days", seconds.div_ceil(86400)),
        _ => "more than a year".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let now = "Sun, 06 Nov 1994 08:49:07 GMT";
        for (text, seconds) in [
            ("0", Some(0)),
            (" 30 ", Some(30)),
            ("86400", Some(86400)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(30)),
            ("Sun Nov  6 08:49:37 1994", Some(30)),
            ("Mon, 06 Nov 1995 08:49:07 GMT", Some(365 * 86400)),
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(0)),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 06 Nov 1994 99:49:37 GMT", None),
            ("Sun, 06 anf 1994 08:49:37 GMT", None),
        ] {
            assert_eq!(read(text, Some(now)), seconds.map(Duration::from_secs), "{text}");
        }
        assert_eq!(date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(date("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        // By this machine's clock where the sender has none.
        assert_eq!(read("Thu, 01 Jan 1970 00:00:00 GMT", None), Some(Duration::ZERO));
    }

    #[test]
    fn each_wait_has_a_bound_and_all_together_have_one() {
        for (asked, waited, sum) in [
            (0, 0, Some(0)),
            (1, 0, Some(1)),
            (30, 0, Some(30)),
            (31, 0, None),
            (30, 30, Some(60)),
            (30, 31, None),
            (1, 60, None),
            (0, 60, Some(60)),
            (20, 40, Some(60)),
            (21, 40, None),
            (u64::MAX, 0, None),
            (u64::MAX, u64::MAX, None),
        ] {
            let [asked, waited] = [asked, waited].map(Duration::from_secs);
            let found = wait(asked, waited).map(|sum| sum.as_secs());
            assert_eq!(found, sum, "{asked:?} after {waited:?}");
        }
    }

    #[test]
    fn times_are_spelled() {
        for (seconds, words) in [
            (5, "5 s"),
            (601, "11 min"),
            (86400, "24 h"),
            (604_800, "7 days"),
            (u64::MAX, "more than a year"),
        ] {
            assert_eq!(spelled(Duration::from_secs(seconds)), words);
        }
    }
}
