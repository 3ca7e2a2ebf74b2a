//! What users have: real KVM, where banger boots Firecracker. Here it is a guest's: QEMU's emulated
//! processor has AMD's virtualization with nested paging, so an emulated VM of banger's own, once
//! `kvm_amd` is loaded, is a host on which unmodified kernels run under `/dev/kvm`.
//!
//! One such host is booted and asked everything, as root (Firecracker's jailer) and as an ordinary user
//! of the group `kvm` (banger's own jail). `cargo xtask nested` runs the core by itself; `cargo xtask
//! soak nested` runs all there is, on two such hosts at once.

mod core;
mod figures;
mod host;
mod soak;

use host::{Extent, Host, Who};
use std::{path::Path, thread};

/// The core on every run; with `BANGER_SOAK` everything.
#[test]
fn firecracker_on_real_kvm() {
    if let Some(bench) = std::env::var_os("BANGER_BENCH") {
        return figures::take(Path::new(&bench));
    }
    if std::env::var_os("BANGER_SOAK").is_none() {
        let Some(host) = Host::boot(Extent::Core) else { return };
        return core(&host);
    }
    // A host has one processor: two of them take half the time.
    thread::scope(|scope| {
        scope.spawn(|| {
            let Some(host) = Host::boot(Extent::All) else { return };
            core(&host);
            soak::everything(&host);
            soak::flows(&host, soak::GUESTS);
        });
        scope.spawn(|| {
            let Some(host) = Host::boot(Extent::All) else { return };
            soak::flows(&host, soak::MACHINE);
        });
    });
}

fn core(host: &Host) {
    for who in [Who::Root, Who::Dev] {
        core::a_vms_life(host, who);
    }
    core::qemu_with_kvm(host);
}
