//! What people see who watch: a bar for each download, a line for the disk.

use banger_cli::{Out, human_bytes, one_line};
use banger_layer::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How often the bars are drawn.
const TICK: Duration = Duration::from_millis(100);
/// The columns of what stands before the words of a line: that it goes on, and for how long.
const BESIDE: usize = 12;
/// The most downloads shown at once.
const ROWS: usize = 8;

/// What is on the screen now.
static SHOWN: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// Says something to the person on stderr, as a line above whatever is drawn there.
pub fn note(text: &str) {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    aside(shown.as_ref(), || banger_cli::note(text));
}

/// Takes the bars off the screen while something else is written to it.
fn aside(bars: Option<&MultiProgress>, write: impl FnOnce()) {
    match bars {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

/// Bars that notes go around, until it is dropped.
struct Screen(MultiProgress);

impl Screen {
    fn new() -> Self {
        let bars = MultiProgress::new();
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bars.clone());
        Self(bars)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _ = self.0.clear();
    }
}

/// A download to show.
pub trait Download: Sync {
    /// Returns what to call it, in a few letters.
    fn name(&self) -> String;
    /// Returns its size, in bytes.
    fn size(&self) -> u64;
    /// Returns the bytes that have come.
    fn received(&self) -> u64;
    /// Says whether it is on its way: begun and not at its end.
    fn is_under_way(&self) -> bool;
}

/// Runs `work` and shows meanwhile how far downloads and disk have come.
pub fn downloads<T, D: Download>(
    out: &Out,
    downloads: &[D],
    disk: &Progress,
    work: impl FnOnce() -> T,
) -> T {
    if !out.is_live() {
        return work();
    }
    let screen = Screen::new();
    let bars = &screen.0;
    let style = ProgressStyle::with_template(
        "  {prefix:12} [{bar:20}] {bytes:>10} of {total_bytes:10} {bytes_per_sec:>12}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .progress_chars("=> ");
    let last = bars.add(line());
    let mut rows: Vec<Option<ProgressBar>> = vec![None; downloads.len()];
    let sum: u64 = downloads.iter().map(Download::size).sum();
    let draw = || {
        let mut received = 0;
        let mut shown = rows.iter().flatten().count();
        for (download, row) in downloads.iter().zip(&mut rows) {
            let now = download.received();
            received += now;
            match (&row, download.is_under_way()) {
                (None, true) if shown < ROWS => {
                    let bar = ProgressBar::new(download.size()).with_style(style.clone());
                    let bar = bars.insert_before(&last, bar);
                    bar.set_prefix(download.name());
                    bar.set_position(now);
                    *row = Some(bar);
                    shown += 1;
                }
                (Some(bar), true) => bar.set_position(now),
                (Some(bar), false) => {
                    bar.finish_and_clear();
                    bars.remove(bar);
                    *row = None;
                    shown -= 1;
                }
                (None, _) => {}
            }
        }
        let percent = (received * 100).checked_div(sum).unwrap_or(100).min(100);
        last.set_message(fitted(&format!("{percent} % of the layers, {}", written(disk))));
        last.tick();
    };
    let value = with_ticks(work, draw);
    // A bar that is only dropped leaves its last line on the screen.
    rows.iter().flatten().for_each(ProgressBar::finish_and_clear);
    last.finish_and_clear();
    value
}

/// Runs `work` and shows meanwhile how much of a stream of unknown length was written. `words` says
/// what its maker is at.
pub fn stream<T>(
    out: &Out,
    disk: &Progress,
    words: impl Fn() -> String + Sync,
    work: impl FnOnce() -> T,
) -> T {
    if !out.is_live() {
        return work();
    }
    let screen = Screen::new();
    let bar = screen.0.add(line());
    let value = with_ticks(work, || {
        let begun = disk.bytes_out.load(Ordering::Relaxed) > 0;
        let disk = if begun { format!("; {}", written(disk)) } else { String::new() };
        bar.set_message(fitted(&format!("{}{disk}", words())));
        bar.tick();
    });
    bar.finish_and_clear();
    value
}

/// Runs `work` and shows meanwhile how much of an archive it has unpacked, if it has to be.
pub fn unpacking<T>(out: &Out, archive: &str, done: &Progress, work: impl FnOnce() -> T) -> T {
    if !out.is_live() {
        return work();
    }
    let screen = Screen::new();
    let bar = screen.0.add(line());
    let value = with_ticks(work, || {
        let bytes = human_bytes(done.bytes_out.load(Ordering::Relaxed));
        bar.set_message(fitted(&format!("reading {archive}: {bytes} unpacked")));
        bar.tick();
    });
    bar.finish_and_clear();
    value
}

/// Returns words as there is room for them in a line.
fn fitted(words: &str) -> String {
    one_line(words, BESIDE)
}

fn line() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

fn written(disk: &Progress) -> String {
    format!(
        "{} files, {} unpacked",
        disk.entries.load(Ordering::Relaxed),
        human_bytes(disk.bytes_out.load(Ordering::Relaxed))
    )
}

/// Runs `work`, calling `tick` from another thread until it ends.
fn with_ticks<T>(work: impl FnOnce() -> T, mut tick: impl FnMut() + Send) -> T {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let ticker = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                tick();
                thread::park_timeout(TICK);
            }
        });
        // Also when `work` panics: the scope waits for the ticker.
        let _end = End { ended: &ended, ticker: ticker.thread().clone() };
        work()
    })
}

struct End<'a> {
    ended: &'a AtomicBool,
    ticker: thread::Thread,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.ticker.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::{ProgressDrawTarget, TermLike};
    use std::{io, sync::Arc};

    /// A screen that keeps what is on it: nothing once a line is cleared.
    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl Kept {
        fn push(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }

    impl TermLike for Kept {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.push(text);
            Ok(())
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.push(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.push("<cleared>");
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_note_is_written_where_no_bar_is() {
        let kept = Kept::default();
        let target = ProgressDrawTarget::term_like(Box::new(kept.clone()));
        let bars = MultiProgress::with_draw_target(target);
        let bar = bars.add(line());
        bar.set_message("10 % of the layers");
        bar.tick();
        aside(Some(&bars), || kept.push("a note"));
        let lines = kept.0.lock().unwrap().clone();
        let at = |text: &str| lines.iter().rposition(|line| line.contains(text));
        let note = at("a note").expect("a note");
        assert!(lines[..note].iter().any(|line| line.contains("10 %")), "{lines:?}");
        let before: Vec<_> = lines[..note].iter().filter(|line| !line.trim().is_empty()).collect();
        assert_eq!(before.last().map(|line| line.as_str()), Some("<cleared>"), "{lines:?}");
        assert!(at("10 %").expect("a bar") > note, "{lines:?}");
    }

    #[test]
    fn notes_go_around_the_bars_that_are_shown() {
        let shown = || SHOWN.lock().unwrap().is_some();
        let screen = Screen::new();
        assert!(shown());
        drop(screen);
        assert!(!shown());
    }
}
