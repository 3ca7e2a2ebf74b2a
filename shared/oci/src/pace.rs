//! Whether what is waited for gets on.

use std::time::Duration;

/// An answer is as good as stalled if it brings less than this in [`crate::Settings::crawl`].
pub(crate) const CRAWL_BYTES: u64 = 64 << 10;

/// How long an answer may be waited for in all, however steadily it comes.
const LONGEST: Duration = Duration::from_hours(24);

/// Notices an answer that crawls. Only time spent waiting counts: a slow disk is not the
/// registry's fault.
pub(crate) struct Pace {
    window: Duration,
    waited: Duration,
    /// Also before a restart.
    in_all: Duration,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, waited: Duration::ZERO, in_all: Duration::ZERO, bytes: 0 }
    }

    pub(crate) fn restart(&mut self) {
        self.waited = Duration::ZERO;
        self.bytes = 0;
    }

    /// Returns false if the window has passed with too little in it, or all of it took too long.
    pub(crate) fn step(&mut self, waited: Duration, n: usize) -> bool {
        self.waited += waited;
        self.in_all += waited;
        self.bytes += n as u64;
        if self.bytes >= CRAWL_BYTES {
            self.restart();
        }
        self.waited < self.window && self.in_all < LONGEST
    }

    /// Says what the matter is.
    pub(crate) fn words(&self) -> String {
        if self.in_all >= LONGEST {
            return format!("it did not come within {} hours", LONGEST.as_secs() / 3600);
        }
        format!("less than {} KiB came in {} s", CRAWL_BYTES >> 10, self.window.as_secs_f32())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_steadily_but_slowly_ends_too() {
        let mut pace = Pace::new(Duration::from_mins(1));
        let mut steps = 0;
        while pace.step(Duration::from_secs(59), CRAWL_BYTES as usize) {
            steps += 1;
            assert!(steps < 10_000, "it has no end");
            if steps % 100 == 0 {
                pace.restart();
            }
        }
        assert!(steps > 1000);
        assert_eq!(pace.words(), "it did not come within 24 hours");
        let mut crawls = Pace::new(Duration::from_mins(1));
        assert!(!crawls.step(Duration::from_mins(1), 1));
        assert!(crawls.words().starts_with("less than 64 KiB"));
    }
}
