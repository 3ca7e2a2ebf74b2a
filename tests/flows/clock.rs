//! A guest's clock that went wrong is put right.

use crate::{fixture, guest::Guest};
use nix::{
    fcntl::{Flock, FlockArg},
    time::{ClockId, clock_gettime, clock_settime},
};
use std::{
    fs::File,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Some date long ago.
const LONG_AGO: i64 = 1_000_000_000;
/// An order to set a clock takes a moment to arrive.
const NEAR: i64 = 3;

/// Waits for the turn of a test in which a guest's clock is wrong: when the host's is set, every guest
/// on the machine is put right.
pub(crate) fn alone() -> Flock<File> {
    let file = File::create(fixture::dir().join(".clock")).expect("a lock");
    Flock::lock(file, FlockArg::LockExclusive).expect("a lock")
}

/// After a pause, and when the host's own clock jumps, the guest has the host's time.
pub(crate) fn a_clock_is_put_right(guest: &Guest) {
    let _alone = alone();
    guest.says(&format!("date -s @{LONG_AGO}"));
    assert!(behind(guest) > 1_000_000, "the guest's clock could not be moved");
    guest.run("vm-pause", &["web"]).ok();
    guest.run("vm-resume", &["web"]).ok();
    comes_right(guest, "after a pause");

    // The kernel tells of every clock that is set, also to the time it has.
    guest.says(&format!("date -s @{LONG_AGO}"));
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("the time");
    match clock_settime(ClockId::CLOCK_REALTIME, now) {
        Ok(()) => comes_right(guest, "after the host's clock was set"),
        Err(error) => skipped(&format!("the host's clock cannot be set here: {error}")),
    }
}

pub(crate) fn comes_right(guest: &Guest, when: &str) {
    let began = Instant::now();
    loop {
        let seconds = behind(guest);
        if seconds.abs() <= NEAR {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{when}: still {seconds} s behind");
    }
}

/// Returns how many seconds the guest is behind the host. An emulated guest on a busy machine takes a
/// while to say what time it is: any that the host had meanwhile is right.
fn behind(guest: &Guest) -> i64 {
    let host = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
        now.as_secs() as i64
    };
    let before = host();
    let said: i64 = guest.says("date +%s").trim().parse().expect("a number");
    said.max(before).min(host()) - said
}

#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("SKIPPED: {why}");
}
