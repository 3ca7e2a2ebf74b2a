//! What a machine is made of.

use std::{path::PathBuf, time::Instant};

/// What a machine is made of. Relative paths are relative to the VM's folder, in which the VMM
/// runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The VM's name, shown in the list of processes.
    pub name: String,
    /// The VM's identity, which no other VM of the host has.
    pub id: String,
    /// Processor, in the OCI image specification's words: `amd64`, `arm64`.
    pub architecture: String,
    /// Virtual processors.
    pub vcpu: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// Disks, in the order in which the guest sees them.
    pub disks: Vec<Disk>,
    /// Hardware address of the network interface; none, no interface.
    pub mac: Option<String>,
    /// Name of the tap device behind that interface, in the VMM's network namespace; none, and
    /// a socket or QEMU's own user network is behind it.
    pub tap: Option<String>,
    /// Whether a socket is behind it without a tap, whose other end is [`crate::Launch::carried`].
    pub carried: bool,
    /// What QEMU's own user network is told, in the words of its `-netdev user`.
    pub user_network: String,
    /// Whether the kernel is to tell all it does, from its first line on.
    pub verbose: bool,
    /// Why this host allows no user namespaces, if it does not.
    pub namespaces: Result<(), String>,
    /// When the start has taken as long as it may: what it waits for has to be there by then.
    pub until: Instant,
}

/// A disk of a machine.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What it is for, one word.
    pub role: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Whether the guest may only read it.
    pub read_only: bool,
}
