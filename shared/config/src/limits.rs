//! How small and how large a VM may be on this host.

use crate::Size;
use banger_doc::{Error, Result};
use std::fs;

/// A guest with less does not get through its boot.
const LEAST_MEMORY_MIB: u64 = 64;
const LEAST_DISK: u64 = 16 << 20;
/// What ext4 with 32-bit block numbers holds.
const MOST_DISK: u64 = 8 << 40;

/// Checks a number of virtual processors: 1 to 32, what Firecracker takes.
pub fn vcpu(count: u32) -> Result<u32> {
    if (1..=32).contains(&count) {
        return Ok(count);
    }
    Err(Error::usage(format!("a VM cannot have {count} processors")).hint("'--vcpu' takes 1 to 32"))
}

/// Returns an amount of memory that somebody typed, in MiB. Others' tools take a number alone for
/// MiB, so one that can only be meant like that is answered.
pub fn memory(size: Size) -> Result<u64> {
    let bytes = size.bytes();
    if bytes >= 1 << 20 {
        return memory_mib(size.mib());
    }
    Err(Error::usage(format!("a VM cannot have {bytes} bytes of memory")).hint(format!(
        "a number alone is bytes; '--memory {bytes}M' is {bytes} MiB, and 2G are two GiB"
    )))
}

/// Checks an amount of memory against what the host has.
pub fn memory_mib(mib: u64) -> Result<u64> {
    let most = host_memory_mib().unwrap_or(u64::MAX);
    if (LEAST_MEMORY_MIB..=most).contains(&mib) {
        return Ok(mib);
    }
    Err(Error::usage(format!("a VM cannot have {mib} MiB of memory here"))
        .hint(format!("'--memory' takes {LEAST_MEMORY_MIB}M to {most}M, what this host has; a number alone is bytes")))
}

/// Checks the size of a disk, rounded up to whole blocks; `option` is how it was asked for.
pub fn disk_bytes(bytes: u64, option: &str) -> Result<u64> {
    let bytes = bytes.next_multiple_of(4096);
    if (LEAST_DISK..=MOST_DISK).contains(&bytes) {
        return Ok(bytes);
    }
    Err(Error::usage(format!("a disk cannot have {bytes} bytes")).hint(format!(
        "'{option}' takes {} to {}; a number alone is bytes",
        Size::of(LEAST_DISK),
        Size::of(MOST_DISK)
    )))
}

/// Reads the host's memory (proc_meminfo(5)).
pub(crate) fn host_memory_mib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn absurd_sizes_are_refused() {
        assert!(super::vcpu(0).is_err() && super::vcpu(33).is_err() && super::vcpu(32).is_ok());
        assert!(super::memory_mib(1).is_err() && super::memory_mib(1 << 40).is_err());
        assert!(super::memory_mib(128).is_ok());
        assert!(super::disk_bytes(1, "--disk-size").is_err());
        assert!(super::disk_bytes(9 << 40, "--disk-size").is_err());
        assert_eq!(super::disk_bytes((64 << 20) + 1, "--disk-size").unwrap(), (64 << 20) + 4096);
    }
}
