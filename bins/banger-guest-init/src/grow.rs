//! A file system follows its disk, which `banger vm set` may have made larger.

use banger_doc::{Context, Error, Result};
use std::{
    fs,
    fs::File,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

/// The block size of banger's own disks.
const BLOCK: u64 = 4096;

// Linux, fs/ext4/ext4.h: EXT4_IOC_RESIZE_FS takes the wanted number of blocks.
nix::ioctl_write_ptr!(resize_fs, b'f', 16, u64);

/// Grows a mounted ext4 to the size of its device, unless it has that size already.
pub(crate) fn to_device(place: &str, device: &str) -> Result<()> {
    let name = device.strip_prefix("/dev/").unwrap_or(device);
    let path = format!("/sys/class/block/{name}/size");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read '{path}'"))?;
    let sectors: u64 =
        text.trim().parse().map_err(|_| Error::failed(format!("'{path}' is no number")))?;
    let blocks = sectors * 512 / BLOCK;
    if blocks_of(device).is_some_and(|own| own >= blocks) {
        return Ok(());
    }
    let dir = File::open(place).with_context(|| format!("cannot open '{place}'"))?;
    // SAFETY: the descriptor is open and the kernel reads one u64 through the pointer.
    unsafe { resize_fs(dir.as_raw_fd(), &raw const blocks) }
        .map(drop)
        .with_context(|| format!("cannot grow the file system at '{place}' to {blocks} blocks"))
}

/// Reads how many blocks a file system has out of its superblock (Linux,
/// `Documentation/filesystems/ext4/super.rst`).
fn blocks_of(device: &str) -> Option<u64> {
    let mut block = [0; 1024];
    File::open(device).ok()?.read_exact_at(&mut block, 1024).ok()?;
    let u32_at = |at: usize| Some(u32::from_le_bytes(block.get(at..at + 4)?.try_into().ok()?));
    let has_64_bits = u32_at(0x60)? & 0x80 != 0;
    let high = if has_64_bits { u32_at(0x150)? } else { 0 };
    Some(u64::from(high) << 32 | u64::from(u32_at(4)?))
}
