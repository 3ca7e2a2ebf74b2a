//! Whether what is waited for gets on.

use std::time::Duration;

/// An answer is as good as stalled if it brings less than this in [`crate::Settings::crawl`].
pub(crate) const CRAWL_BYTES: u64 = 64 << 10;

/// Notices an answer that crawls. Only time spent waiting counts: a slow disk is not the
/// registry's fault.
pub(crate) struct Pace {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, waited: Duration::ZERO, bytes: 0 }
    }

    pub(crate) fn restart(&mut self) {
        self.waited = Duration::ZERO;
        self.bytes = 0;
    }

    /// Returns false if the window has passed with too little in it.
    pub(crate) fn step(&mut self, waited: Duration, n: usize) -> bool {
        self.waited += waited;
        self.bytes += n as u64;
        if self.bytes >= CRAWL_BYTES {
            self.restart();
        }
        self.waited < self.window
    }

    /// Says what the matter is.
    pub(crate) fn words(&self) -> String {
        format!("less than {} KiB came in {} s", CRAWL_BYTES >> 10, self.window.as_secs_f32())
    }
}
