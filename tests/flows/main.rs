//! Several programs together, on real VMs, with images from a real registry. Where no KVM works the
//! VMs are emulated and each boot takes seconds, so a test boots few and asks each many things.

mod advanced;
mod busybox;
mod clock;
mod copy;
mod crash;
mod debian;
mod disks;
mod first_day;
mod fixture;
mod guest;
mod images;
mod killed;
mod machine;
mod many;
mod nested;
mod network;
mod oci;
mod offline;
mod pages;
mod parallel;
mod registry;
mod schema;
mod scratch;
mod set;
mod ssh;
mod stuck;
mod survive;
mod tape;
mod terminal;
mod user;
mod ways;
mod workspace;
mod wrong;

/// What the world of [`network`] is made with, and its servers.
#[path = "../../shared/net/tests/world/mod.rs"]
#[expect(dead_code, reason = "the tests of banger-net use the rest")]
mod world;

/// Not a test of its own: what this binary does when a world starts it.
#[test]
fn play() {
    network::play();
}
