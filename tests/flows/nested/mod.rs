//! What users have: real KVM, where banger boots Firecracker. Here it is a guest's: QEMU's emulated
//! processor has AMD's virtualization with nested paging, so an emulated VM of banger's own, once
//! `kvm_amd` is loaded, is a host on which unmodified kernels run under `/dev/kvm`.
//!
//! One such host is booted and asked everything, as root (Firecracker's jailer) and as an ordinary user
//! of the group `kvm` (banger's own jail). `cargo xtask nested` runs the core by itself, `cargo xtask
//! soak nested` all there is.

mod core;
mod figures;
mod host;
mod soak;

use host::{Host, Who};
use std::path::Path;

/// The core on every run; with `BANGER_SOAK` everything.
#[test]
fn firecracker_on_real_kvm() {
    if let Some(bench) = std::env::var_os("BANGER_BENCH") {
        return figures::take(Path::new(&bench));
    }
    let all = std::env::var_os("BANGER_SOAK").is_some();
    let Some(host) = Host::boot(if all { host::Extent::All } else { host::Extent::Core }) else {
        return;
    };
    for who in [Who::Root, Who::Dev] {
        core::a_vms_life(&host, who);
    }
    core::qemu_with_kvm(&host);
    if all {
        soak::everything(&host);
    }
}
