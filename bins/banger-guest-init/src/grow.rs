//! A file system follows its disk, which `banger vm set` may have made larger.

use banger_doc::{Context, Error, Result};
use std::{fs, fs::File, os::fd::AsRawFd};

/// The block size of banger's own disks.
const BLOCK: u64 = 4096;

// Linux, fs/ext4/ext4.h: EXT4_IOC_RESIZE_FS takes the wanted number of blocks.
nix::ioctl_write_ptr!(resize_fs, b'f', 16, u64);

/// Grows a mounted ext4 to the size of its device. One that has that size already is left alone by
/// the kernel.
pub(crate) fn to_device(place: &str, device: &str) -> Result<()> {
    let name = device.strip_prefix("/dev/").unwrap_or(device);
    let path = format!("/sys/class/block/{name}/size");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read '{path}'"))?;
    let sectors: u64 =
        text.trim().parse().map_err(|_| Error::failed(format!("'{path}' is no number")))?;
    let blocks = sectors * 512 / BLOCK;
    let dir = File::open(place).with_context(|| format!("cannot open '{place}'"))?;
    // SAFETY: the descriptor is open and the kernel reads one u64 through the pointer.
    unsafe { resize_fs(dir.as_raw_fd(), &raw const blocks) }
        .map(drop)
        .with_context(|| format!("cannot grow the file system at '{place}' to {blocks} blocks"))
}
