//! What users have: real KVM, where banger boots Firecracker. Here it is a guest's: QEMU's emulated
//! processor has AMD's virtualization with nested paging, so an emulated VM of banger's own, once
//! `kvm_amd` is loaded, is a host on which unmodified kernels run under `/dev/kvm`.
//!
//! One such host is booted and asked everything, as root (Firecracker's jailer) and as an ordinary user
//! of the group `kvm` (banger's own jail). `cargo xtask nested` runs the core by itself; `cargo xtask
//! soak nested` runs all there is, on two such hosts at once, and `cargo xtask soak nested-flows` the
//! flows that it leaves out.

mod core;
mod figures;
mod host;
mod soak;

use host::{Extent, Host, Who};
use std::{path::Path, thread};

/// The core on every run; with `BANGER_SOAK` everything, or the flows that takes no part of.
#[test]
fn firecracker_on_real_kvm() {
    if let Some(bench) = std::env::var_os("BANGER_BENCH") {
        return figures::take(Path::new(&bench));
    }
    let Some(soak) = std::env::var_os("BANGER_SOAK") else {
        let Some(host) = Host::boot(Extent::Core) else { return };
        return core(&host);
    };
    let flows = |flows| {
        let Some(host) = Host::boot(Extent::All) else { return };
        soak::flows(&host, flows);
    };
    // A host has one processor: two of them take half the time.
    thread::scope(|scope| {
        if soak == "nested-flows" {
            scope.spawn(|| flows(soak::NETWORK));
            scope.spawn(|| flows(soak::OTHERS));
            return;
        }
        scope.spawn(|| flows(soak::MACHINE));
        scope.spawn(|| {
            let Some(host) = Host::boot(Extent::All) else { return };
            core(&host);
            soak::everything(&host);
            soak::flows(&host, soak::GUESTS);
        });
    });
}

fn core(host: &Host) {
    for who in [Who::Root, Who::Dev] {
        core::a_vms_life(host, who);
    }
    core::qemu_with_kvm(host);
}
