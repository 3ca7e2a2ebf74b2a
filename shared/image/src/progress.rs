//! What people see who watch: a bar for each download, a line for the disk.

use banger_cli::{Out, human_bytes, one_line};
use banger_layer::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// How often the bars are drawn.
const TICK: Duration = Duration::from_millis(100);
/// The columns of what stands before the words of a line: that it goes on, and for how long.
const BESIDE: usize = 12;
/// The most downloads shown at once.
const ROWS: usize = 8;

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
    let bars = MultiProgress::new();
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
    let _ = bars.clear();
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
    let bar = line();
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
    let bar = line();
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
