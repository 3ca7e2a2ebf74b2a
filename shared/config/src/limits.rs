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

/// Reads an amount of memory as it is typed. None at all is answered with what there may be.
pub fn typed_memory(text: &str) -> Result<Size> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if !number.is_empty() && number.bytes().all(|byte| byte == b'0') {
        return Err(Error::usage(format!("a VM cannot do without memory: {}", range())));
    }
    text.parse()
}

/// Checks an amount of memory that somebody chose, and returns it in MiB.
pub fn memory(size: Size) -> Result<u64> {
    if size.bytes() >= 1 << 20 {
        return memory_mib(size.mib());
    }
    // Rounded up to MiB it would not be what was typed.
    Err(Error::usage(format!("a VM cannot have {} bytes of memory", size.bytes())).hint(range()))
}

/// Checks an amount of memory against what the host has.
pub fn memory_mib(mib: u64) -> Result<u64> {
    if (LEAST_MEMORY_MIB..=most_memory_mib()).contains(&mib) {
        return Ok(mib);
    }
    Err(Error::usage(format!("a VM cannot have {mib} MiB of memory here")).hint(range()))
}

fn most_memory_mib() -> u64 {
    host_memory_mib().unwrap_or(u64::MAX)
}

fn range() -> String {
    format!(
        "'--memory' takes {LEAST_MEMORY_MIB}M to {}M, what this host has; a number alone is bytes",
        most_memory_mib()
    )
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
    use super::*;

    #[test]
    fn too_little_memory_is_answered_with_the_least_that_is_taken() {
        let said = |text: &str| {
            let error = typed_memory(text).and_then(memory).unwrap_err();
            format!("{error} {}", error.hint_text().unwrap_or_default())
        };
        for text in ["0", "0M", "00G", "1", "512", "2048", "512K", "1023K", "1M", "63M"] {
            let words = said(text);
            assert!(words.contains("'--memory' takes 64M to "), "{text}: {words}");
            assert_eq!(words.matches("--memory").count(), 1, "{words}");
        }
        assert!(said("0").starts_with("a VM cannot do without memory: "));
        assert!(said("512K").starts_with("a VM cannot have 524288 bytes of memory "));
        assert!(said("").contains("not a size") && said("G").contains("not a size"));
        assert_eq!(typed_memory("64M").and_then(memory).unwrap(), 64);
        assert_eq!(typed_memory("100m").and_then(memory).unwrap(), 100);
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert!(vcpu(0).is_err() && vcpu(33).is_err() && vcpu(32).is_ok());
        assert!(memory_mib(1).is_err() && memory_mib(1 << 40).is_err());
        assert!(memory_mib(128).is_ok());
        assert!(disk_bytes(1, "--disk-size").is_err());
        assert!(disk_bytes(9 << 40, "--disk-size").is_err());
        assert_eq!(disk_bytes((64 << 20) + 1, "--disk-size").unwrap(), (64 << 20) + 4096);
    }
}
