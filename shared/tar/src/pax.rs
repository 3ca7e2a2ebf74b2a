//! The records of an extended header: `length key=value`, one a line.

use banger_doc::{Error, Result};

/// Calls `record` with each key and value, in order.
pub(crate) fn records(
    mut bytes: &[u8],
    mut record: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let wrong = |what: &str| Error::failed(format!("an extended header has {what}"));
    while !bytes.is_empty() {
        let space = bytes
            .iter()
            .take(20)
            .position(|byte| *byte == b' ')
            .ok_or_else(|| wrong("a record without a length"))?;
        let length = decimal(&bytes[..space])
            .filter(|_| bytes[0] != b'0')
            .ok_or_else(|| wrong("a record whose length is no number"))?;
        if length > bytes.len() as u64 || length <= space as u64 + 1 {
            return Err(wrong("a record whose length is wrong"));
        }
        let (line, rest) = bytes.split_at(length as usize);
        bytes = rest;
        let line = line[space + 1..]
            .strip_suffix(b"\n")
            .ok_or_else(|| wrong("a record without a line end"))?;
        let equals = line
            .iter()
            .position(|byte| *byte == b'=')
            .filter(|at| *at > 0)
            .ok_or_else(|| wrong("a record without a key"))?;
        // Spaces before a key are none of it to some, and a NUL is its end.
        if line[..equals].iter().any(|byte| *byte <= b' ') {
            return Err(wrong("a record with a space in its key"));
        }
        record(&line[..equals], &line[equals + 1..])?;
    }
    Ok(())
}

/// Reads decimal digits and nothing else.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Reads a moment: seconds, perhaps negative, perhaps with a fraction. Digits beyond nanoseconds
/// are dropped, towards the past.
pub(crate) fn moment(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&digits[..dot], &digits[dot + 1..]),
        None => (digits, &[][..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| fraction.get(at).map_or(0, |digit| u32::from(digit - b'0'));
    let nanos = (0..9).fold(0, |value, at| value * 10 + digit(at));
    let beyond = fraction.iter().skip(9).any(|digit| *digit != b'0');
    if !negative {
        return Some((seconds, nanos));
    }
    let nanos = nanos + u32::from(beyond);
    if nanos == 0 { Some((-seconds, 0)) } else { Some((-seconds - 1, 1_000_000_000 - nanos)) }
}

/// Decodes base64, with or without padding.
pub(crate) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    // One letter more than whole bytes need cannot be.
    (count < 6).then_some(out)
}

/// Decodes `%3D` and the like.
pub(crate) fn percent(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte == b'%' {
            let mut digit = || char::from(*rest.next()?).to_digit(16);
            out.push((digit()? * 16 + digit()?) as u8);
        } else {
            out.push(*byte);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        records(bytes, |key, value| {
            found.push((key.escape_ascii().to_string(), value.escape_ascii().to_string()));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn records_are_read_to_the_letter() {
        assert_eq!(all(b"").unwrap(), []);
        assert_eq!(all(b"8 a=b=c\n").unwrap(), [("a".into(), "b=c".into())]);
        assert_eq!(all(b"6 a=b\n10 cd=\n\n=\n").unwrap()[1], ("cd".into(), "\\n\\n=".into()));
        for bad in [
            &b"0 a=b\n"[..],
            b"7 a=b\n",
            b"5 a=b\n",
            b"06 a=b\n",
            b" 6 a=b\n",
            b"x a=b\n",
            b"6 a=bc",
            b"6 abc\n",
            b"5 =b\n",
            b"6\ta=b\n",
            b"7  a=b\n",
            b"7 a\0=b\n",
            b"99999999999999999999 a=b\n",
            b"-6 a=b\n",
            b"6 a=b\nx",
            b"2 ",
            b"3 \n",
        ] {
            assert!(all(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn moments_go_before_1970() {
        for (text, value) in [
            ("0", Some((0, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.123456789999", Some((1, 123_456_789))),
            ("-1", Some((-1, 0))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.000000001", Some((-1, 999_999_999))),
            ("-0.0000000001", Some((-1, 999_999_999))),
            ("1.", Some((1, 0))),
            ("", None),
            (".5", None),
            ("nan", None),
            ("1e3", None),
            ("--1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(moment(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn base64_and_percent() {
        assert_eq!(base64(b"AQAAAg==").unwrap(), [1, 0, 0, 2]);
        assert_eq!(base64(b"AQAAAg").unwrap(), [1, 0, 0, 2]);
        assert_eq!(base64(b"A"), None);
        assert_eq!(base64(b"A\n=="), None);
        assert_eq!(percent(b"a%3Db").unwrap(), b"a=b");
        assert_eq!(percent(b"a%3"), None);
    }
}
