//! One inode, as it lies in the table.

use crate::bytes::{put, put16, put32};
use crate::checksum::{crc, inode_seed};
use crate::layout::{BLOCK, INODE};

/// Blocks are found through extents.
pub(crate) const EXTENTS: u32 = 0x8_0000;
/// The directory has an index.
pub(crate) const INDEXED: u32 = 0x1000;

/// Where an inode's own extended attributes begin.
pub(crate) const XATTRS_AT: usize = 160;

/// A moment: seconds since 1970 and the nanoseconds after them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Time {
    /// Seconds since the beginning of 1970; negative before.
    pub seconds: i64,
    /// Nanoseconds after that second, below 1,000,000,000.
    pub nanos: u32,
}

impl Time {
    /// The earliest moment ext4 can keep: in December 1901.
    pub const MIN: Self = Self { seconds: i32::MIN as i64, nanos: 0 };
    /// The latest moment ext4 can keep: in May 2446.
    pub const MAX: Self = Self { seconds: i32::MAX as i64 + (3 << 32), nanos: 999_999_999 };

    /// Returns the nearest moment that can be kept.
    #[must_use]
    pub fn clamped(self) -> Self {
        if self.seconds < Self::MIN.seconds {
            Self::MIN
        } else if self.seconds > Self::MAX.seconds {
            Self::MAX
        } else {
            self
        }
    }

    /// Returns the two words: the low seconds, then the nanoseconds with two more bits of seconds.
    fn words(self) -> (u32, u32) {
        let time = self.clamped();
        let low = time.seconds as i32;
        let epoch = ((time.seconds - i64::from(low)) >> 32) as u32;
        (low as u32, time.nanos << 2 | epoch)
    }
}

/// Everything an inode says.
pub(crate) struct Inode<'a> {
    /// Type and permissions.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) links: u16,
    /// Blocks it owns, its attributes' and its extent tree's among them.
    pub(crate) blocks: u64,
    pub(crate) flags: u32,
    pub(crate) map: [u8; 60],
    pub(crate) time: Time,
    /// The block with further extended attributes, or zero.
    pub(crate) xattr_block: u32,
    /// The attributes that lie in the inode, magic included.
    pub(crate) xattrs: &'a [u8],
}

impl Inode<'_> {
    pub(crate) fn encode(&self, seed: u32, number: u32, b: &mut [u8]) {
        b.fill(0);
        put16(b, 0, self.mode);
        put16(b, 2, self.uid as u16);
        put32(b, 4, self.size as u32);
        let (low, extra) = self.time.words();
        for at in [8, 12, 16, 144] {
            put32(b, at, low);
        }
        put16(b, 24, self.gid as u16);
        put16(b, 26, self.links);
        let sectors = self.blocks * (BLOCK as u64 / 512);
        put32(b, 28, sectors as u32);
        put32(b, 32, self.flags);
        put(b, 40, &self.map);
        put32(b, 104, self.xattr_block);
        put32(b, 108, (self.size >> 32) as u32);
        put16(b, 116, (sectors >> 32) as u16);
        put16(b, 120, (self.uid >> 16) as u16);
        put16(b, 122, (self.gid >> 16) as u16);
        put16(b, 128, 32);
        for at in [132, 136, 140, 148] {
            put32(b, at, extra);
        }
        put(b, XATTRS_AT, self.xattrs);
        let sum = crc(inode_seed(seed, number), &b[..INODE]);
        put16(b, 124, sum as u16);
        put16(b, 130, (sum >> 16) as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not for a disk's own test: e2fsck(8) takes times from 2310 to 2378 for older ones.
    #[test]
    fn each_age_has_its_two_bits() {
        for (seconds, low, epoch) in [
            (-1 << 31, 1 << 31, 0),
            (-1, u32::MAX, 0),
            (0, 0, 0),
            (1 << 31, 1 << 31, 1),
            ((1 << 32) - 1, u32::MAX, 1),
            (1 << 32, 0, 1),
            (5 << 31, 1 << 31, 3),
            ((6 << 31) - 1, u32::MAX, 3),
            (6 << 31, 0, 3),
            ((7 << 31) - 1, u32::MAX >> 1, 3),
        ] {
            assert_eq!(Time { seconds, nanos: 7 }.words(), (low, 7 << 2 | epoch), "{seconds}");
        }
    }
}
