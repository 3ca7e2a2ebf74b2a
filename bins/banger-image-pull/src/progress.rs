//! Bars for people who watch: one a layer that is on its way, one for the disk.

use banger_cli::Out;
use banger_layer::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How often the bars are drawn.
const TICK: Duration = Duration::from_millis(100);
/// The most layers shown at once.
const ROWS: usize = 8;

/// Runs `work` and shows meanwhile how far layers and disk have come.
pub(crate) fn layers<T>(
    out: &Out,
    watched: &[(String, u64, Arc<banger_oci::Progress>)],
    disk: &Progress,
    work: impl FnOnce() -> T,
) -> T {
    if !out.is_live() {
        return work();
    }
    let bars = MultiProgress::new();
    let row = ProgressStyle::with_template(
        "  {prefix:12} [{bar:20}] {bytes:>10} of {total_bytes:10} {bytes_per_sec:>12}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .progress_chars("=> ");
    let total = bars.add(disk_bar());
    let mut rows: Vec<Option<ProgressBar>> = vec![None; watched.len()];
    let sum: u64 = watched.iter().map(|(_, size, _)| *size).sum();
    with_ticks(work, || {
        let mut received = 0;
        let mut shown = rows.iter().flatten().count();
        for ((name, size, progress), slot) in watched.iter().zip(&mut rows) {
            let now = progress.received();
            received += now;
            if slot.is_none() && progress.has_begun() && !progress.is_whole() && shown < ROWS {
                let digest = name.strip_prefix("sha256:").unwrap_or(name);
                let bar = ProgressBar::new(*size).with_style(row.clone());
                let bar = bars.insert_before(&total, bar);
                bar.set_prefix(digest.chars().take(12).collect::<String>());
                *slot = Some(bar);
                shown += 1;
            }
            if let Some(bar) = slot {
                bar.set_position(now);
                if progress.is_whole() {
                    bar.finish_and_clear();
                    *slot = None;
                    shown -= 1;
                }
            }
        }
        let percent = (received * 100).checked_div(sum).unwrap_or(100).min(100);
        total.set_message(format!("{percent} % of the layers, {}", written(disk)));
        total.tick();
    })
    .inspect_end(&bars)
}

/// Runs `work` and shows meanwhile how much came out of a stream of unknown length. `words` says
/// what its maker is at.
pub(crate) fn stream<T>(
    out: &Out,
    disk: &Progress,
    words: impl Fn() -> String + Sync,
    work: impl FnOnce() -> T,
) -> T {
    if !out.is_live() {
        return work();
    }
    let bars = MultiProgress::new();
    let bar = bars.add(disk_bar());
    with_ticks(work, || {
        bar.set_message(format!("{}; {}", words(), written(disk)));
        bar.tick();
    })
    .inspect_end(&bars)
}

fn disk_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

fn written(disk: &Progress) -> String {
    format!(
        "{} files, {} unpacked",
        disk.entries.load(Ordering::Relaxed),
        banger_cli::human_bytes(disk.bytes_out.load(Ordering::Relaxed))
    )
}

struct Done<T>(T);

impl<T> Done<T> {
    fn inspect_end(self, bars: &MultiProgress) -> T {
        let _ = bars.clear();
        self.0
    }
}

/// Runs `work`, calling `tick` from another thread until it ends.
fn with_ticks<T>(work: impl FnOnce() -> T, mut tick: impl FnMut() + Send) -> Done<T> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let ticker = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                tick();
                thread::park_timeout(TICK);
            }
        });
        // Also when `work` panics: the scope waits for the ticker.
        let end = End { ended: &ended, ticker: ticker.thread().clone() };
        let value = work();
        drop(end);
        Done(value)
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
