//! What people see who watch: how much has gone.

use banger_cli::Out;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{Read, Result, Write},
    time::Duration,
};

/// How often it is drawn.
const TICK: Duration = Duration::from_millis(120);

/// A bar if it is known how much there is, else a count.
pub(crate) fn bar(out: &Out, total: Option<u64>) -> ProgressBar {
    if !out.is_live() {
        return ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
    }
    let template = match total {
        Some(_) => "  [{bar:30}] {bytes:>10} of {total_bytes:10} {bytes_per_sec:>12}  {eta}",
        None => "  {spinner} {bytes:>10} {bytes_per_sec:>12}",
    };
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    let bar = bar.with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}

/// Moves the bar by what passes.
#[derive(Debug)]
pub(crate) struct Counted<'a, T> {
    pub(crate) inner: T,
    pub(crate) bar: &'a ProgressBar,
}

impl<T: Read> Read for Counted<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bar.inc(count as u64);
        Ok(count)
    }
}

impl<T: Write> Write for Counted<'_, T> {
    fn write(&mut self, buffer: &[u8]) -> Result<usize> {
        let count = self.inner.write(buffer)?;
        self.bar.inc(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> Result<()> {
        self.inner.flush()
    }
}
