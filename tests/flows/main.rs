//! Several programs together, on real VMs, with images from a real registry. Where no KVM works the
//! VMs are emulated and each boot takes seconds, so a test boots few and asks each many things.

mod advanced;
mod busybox;
mod clock;
mod copy;
mod crash;
mod debian;
mod disks;
mod firecracker;
mod fixture;
mod guest;
mod killed;
mod many;
mod oci;
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
mod workspace;
mod wrong;
