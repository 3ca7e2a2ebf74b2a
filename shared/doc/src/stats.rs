//! `banger.stats/1`: what a VM uses now.

use crate::{Document, Name, Status};
use serde::{Deserialize, Serialize};

/// `banger.stats/1`: what a VM uses now.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Stats {
    /// The VM.
    pub vm: Name,
    /// How it stands.
    pub status: Status,
    /// When this was measured, in milliseconds since 1970.
    pub taken_unix_ms: u64,
    /// What its processes on the host use, while it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostUse>,
    /// What is used in the guest, as its agent says; absent while that does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestUse>,
    /// What went over the guest's network, as its agent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkUse>,
    /// What its files take on disk.
    pub disk: DiskUse,
}

impl Document for Stats {
    const SCHEMA: &'static str = "banger.stats/1";
}

/// What a VM's processes on the host use.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct HostUse {
    /// Processor time that VMM and supervisor have taken so far, in milliseconds.
    pub cpu_ms: u64,
    /// The share of it since the last measurement; 100 is one processor, fully used.
    pub cpu_percent: f64,
    /// Resident memory of the VMM, in bytes: what the guest uses of its memory, or used and has not given
    /// back.
    pub vmm_memory_bytes: u64,
    /// Memory that the guest was given, in bytes: the VMM may come to use as much.
    #[serde(default)]
    pub given_memory_bytes: u64,
    /// Resident memory of the supervisor, in bytes.
    pub supervisor_memory_bytes: u64,
}

/// What is used in a guest.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct GuestUse {
    /// How busy its processors were since the last measurement; 100 is one of them, fully used.
    pub cpu_percent: f64,
    /// Memory it has, in bytes.
    pub memory_total_bytes: u64,
    /// Memory that nothing could be given any more, in bytes.
    pub memory_used_bytes: u64,
    /// Processes that were runnable on average over the last minute.
    pub load1: f64,
    /// Number of processes.
    pub processes: u64,
    /// How full its file systems are.
    pub disks: Vec<GuestDisk>,
}

/// How full a file system in a guest is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct GuestDisk {
    /// Where it is mounted.
    pub path: String,
    /// Its size, in bytes.
    pub total_bytes: u64,
    /// What is used of it, in bytes.
    pub used_bytes: u64,
}

/// What went over a guest's network since it booted.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct NetworkUse {
    /// Bytes the guest received.
    pub received_bytes: u64,
    /// Bytes the guest sent.
    pub sent_bytes: u64,
}

/// What a VM's files take on the host's disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DiskUse {
    /// Bytes that go when the VM goes.
    pub exclusive_bytes: u64,
    /// Bytes that it uses and its image and kernel own.
    pub shared_bytes: u64,
    /// Bytes its files claim to have; disks are sparse.
    pub apparent_bytes: u64,
}
