//! What `cargo xtask bench kvm` measures, where there is KVM: it runs there itself.

use super::host::{Extent, Host};
use banger_tests::program;
use std::{io::Write, path::Path, time::Duration};

/// Boots a host with the programs that were built for speed, and has them measured there.
pub(crate) fn take(dir: &Path) {
    let Some(host) = Host::boot(Extent::Figures(dir)) else { return };
    let words = ["web", "--", "/usr/local/bin/banger-xtask", "bench-there"];
    host.outer.sandbox.set_limit(Duration::from_mins(12));
    let answer = host.outer.sandbox.raw(program("banger-vm-exec"), &words);
    let _ = writeln!(std::io::stderr(), "{}", answer.all());
    answer.ok();
}
