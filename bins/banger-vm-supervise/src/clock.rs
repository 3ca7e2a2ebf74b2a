//! The host's clock, when it jumps: after a sleep, or since somebody set it.

use banger_channel::control;
use banger_doc::{Context, Result};
use banger_state::{clock_ms, place};
use nix::{
    sys::{
        time::TimeSpec,
        timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    time::{ClockId, clock_gettime},
};
use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Time that counts as a sleep; the two clocks are not read at the same moment.
const SLEEP: Duration = Duration::from_millis(50);
/// How long the agent may take to set the guest's clock.
const LIMIT: Duration = Duration::from_secs(10);
/// An order that took longer brought a time that is not the time any more.
const PROMPT: Duration = Duration::from_millis(300);
/// How often it is tried.
const TRIES: u32 = 20;
/// A time that never comes, in seconds since 1970: what is waited for is that the wait is broken off.
const NEVER: i64 = 1 << 40;

/// Hears of every jump of the host's clock.
#[derive(Debug)]
pub(crate) struct HostClock {
    timer: TimerFd,
    /// How long the host has slept since it was started.
    slept: Duration,
}

impl HostClock {
    pub(crate) fn watch() -> Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(TimerClock::CLOCK_REALTIME, flags)
            .context("cannot watch the host's clock")?;
        let clock = Self { timer, slept: slept() };
        clock.arm()?;
        Ok(clock)
    }

    /// Returns what is readable when the clock jumped.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Says what happened, and listens for the next time.
    pub(crate) fn heard(&mut self) -> Result<String> {
        // Fails with ECANCELED: that is the news.
        let _ = self.timer.wait();
        let before = std::mem::replace(&mut self.slept, slept());
        self.arm()?;
        Ok(words(self.slept.saturating_sub(before)))
    }

    fn arm(&self) -> Result<()> {
        let flags =
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        self.timer
            .set(Expiration::OneShot(TimeSpec::new(NEVER, 0)), flags)
            .context("cannot watch the host's clock")
    }
}

fn words(slept: Duration) -> String {
    if slept > SLEEP {
        format!("the host slept for {:.1} s", slept.as_secs_f64())
    } else {
        "the host's clock was set".into()
    }
}

/// Returns how long the host has slept since it was started: only one of the clocks counts it.
fn slept() -> Duration {
    let read = |clock| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(read(ClockId::CLOCK_MONOTONIC))
}

/// Sets the guest's clock to the host's. Ends early when the run is `over`.
pub(crate) fn set_guest(over: &AtomicBool) -> Result<()> {
    let channel = Path::new(place::VM_CHANNEL);
    let mut tries = 0;
    loop {
        tries += 1;
        let began = Instant::now();
        let done = control::set_time(channel, clock_ms(), LIMIT);
        if (done.is_ok() && began.elapsed() < PROMPT)
            || tries >= TRIES
            || over.load(Ordering::Relaxed)
        {
            return done;
        }
        if done.is_err() {
            thread::sleep(Duration::from_millis(100) * tries);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[test]
    fn a_sleep_is_told_from_a_clock_that_was_set() {
        assert_eq!(words(Duration::from_millis(20)), "the host's clock was set");
        assert_eq!(words(Duration::from_millis(3_723_400)), "the host slept for 3723.4 s");
    }

    #[test]
    fn nothing_is_heard_of_a_clock_that_only_runs() {
        let clock = HostClock::watch().unwrap();
        let mut fds = [PollFd::new(clock.fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(50_u8)).unwrap(), 0);
    }
}
