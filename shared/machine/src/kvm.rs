//! Whether KVM really works here.

use nix::unistd::{Gid, Group};
use std::{
    fs::{self, OpenOptions},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
};

/// What was found of KVM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kvm {
    /// `/dev/kvm` opens, and the processor has the instructions for it.
    Works,
    /// There is no `/dev/kvm`.
    Absent,
    /// `/dev/kvm` is there, but this user may not open it.
    Denied,
    /// `/dev/kvm` opens, yet the processor shows neither `vmx` nor `svm`: an imitation that runs
    /// only kernels made for it.
    NotReal,
}

impl Kvm {
    /// Says whether an ordinary kernel runs on it.
    pub fn works(self) -> bool {
        self == Self::Works
    }
}

/// Looks for KVM. Opening the device alone proves little, so the processor is asked too.
pub fn kvm() -> Kvm {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Kvm::Denied,
        Err(_) => return Kvm::Absent,
    }
    if processor_serves() { Kvm::Works } else { Kvm::NotReal }
}

/// Says whether the processor could serve KVM at all; one that cannot gains nothing by a device that
/// opens.
pub(crate) fn processor_serves() -> bool {
    cfg!(target_arch = "aarch64")
        || fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| has_virtualization(&text))
}

/// Returns the group that `/dev/kvm` belongs to, `kvm` where that cannot be told.
pub fn group() -> String {
    let gid = fs::metadata("/dev/kvm").map(|meta| Gid::from_raw(meta.gid())).ok();
    let name = gid.filter(|gid| gid.as_raw() != 0).map(|gid| {
        let found = Group::from_gid(gid).ok().flatten();
        found.map_or_else(|| gid.to_string(), |group| group.name)
    });
    name.unwrap_or_else(|| "kvm".to_owned())
}

/// Returns what to type to be let in.
pub fn join_hint() -> String {
    let join = format!("sudo usermod -aG {} $USER, then log in again", group());
    if fs::metadata("/dev/kvm").is_ok_and(|meta| meta.gid() == 0) {
        return format!("sudo chgrp kvm /dev/kvm; sudo chmod 660 /dev/kvm; {join}");
    }
    join
}

/// Reads the flags of proc_cpuinfo(5).
fn has_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::has_virtualization;

    #[test]
    fn only_whole_flags_count() {
        assert!(has_virtualization("processor : 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualization("flags : svm"));
        assert!(!has_virtualization("flags : fpu svm_lock avmx\nbugs : vmx"));
        assert!(!has_virtualization(""));
    }
}
