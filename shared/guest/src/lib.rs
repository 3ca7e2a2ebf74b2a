//! What init and agent of a guest both do: modules, power, the places they share.
//!
//! Everything in a guest is the image's or the user's to change, so nothing here trusts a file of the
//! root file system, and a failure is said rather than died of.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

pub mod mark;
pub mod modules;
pub mod place;
pub mod power;
pub mod process;
pub mod systemd;
pub mod user;

/// Waits until guest-init has done all it does before the image's init: the agent answers earlier, but a
/// command is to find a network. At most `limit`; a boot that hangs is no reason not to look into it.
pub fn wait_prepared(limit: Duration) {
    let end = Instant::now() + limit;
    while !Path::new(place::PREPARED).exists() && Instant::now() < end {
        thread::sleep(Duration::from_millis(2));
    }
}
