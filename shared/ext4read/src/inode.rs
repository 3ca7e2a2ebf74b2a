//! One inode, as it lies in the table.

use crate::bytes::{u16_at, u32_at};

/// Blocks are found through extents.
pub(crate) const EXTENTS: u32 = 0x8_0000;
/// The content, or the beginning of it, lies in the inode.
pub(crate) const INLINE: u32 = 0x1000_0000;
/// Content and names are not to be read without a key.
const ENCRYPTED: u32 = 0x800;
/// The block map of an inode.
pub(crate) const MAP: usize = 60;

/// What sort of thing an inode is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sort {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A device of characters.
    Character,
    /// A device of blocks.
    Block,
    /// A pipe.
    Fifo,
    /// A socket.
    Socket,
    /// No such thing that Linux knows.
    Unknown,
}

/// A moment: seconds since 1970 and the nanoseconds after them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Time {
    /// Seconds since the beginning of 1970; negative before.
    pub seconds: i64,
    /// Nanoseconds after that second.
    pub nanos: u32,
}

/// An inode.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Its number.
    pub number: u32,
    /// What it is.
    pub sort: Sort,
    /// Permission bits, setuid, setgid and sticky.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Bytes of content.
    pub size: u64,
    /// How many names it has, by its own count.
    pub links: u16,
    /// When its content changed.
    pub mtime: Time,
    /// When anything of it changed.
    pub ctime: Time,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Tells it from others that had its number before.
    pub generation: u32,
    /// How much it takes on the disk, in units of 512 bytes.
    pub sectors: u64,
    pub(crate) flags: u32,
    pub(crate) map: [u8; MAP],
    pub(crate) xattr_block: u64,
    /// What lies between the fields that are known and the inode's end: attributes.
    pub(crate) rest: Vec<u8>,
}

impl Inode {
    pub(crate) fn parse(number: u32, b: &[u8]) -> Option<Self> {
        let word = |at: usize| u16_at(b, at).map(u32::from);
        let mode = word(0)?;
        let sort = match mode & 0o170_000 {
            0o100_000 => Sort::File,
            0o040_000 => Sort::Dir,
            0o120_000 => Sort::Link,
            0o020_000 => Sort::Character,
            0o060_000 => Sort::Block,
            0o010_000 => Sort::Fifo,
            0o140_000 => Sort::Socket,
            _ => Sort::Unknown,
        };
        let extra = if b.len() > 130 { usize::from(u16_at(b, 128)?) } else { 0 };
        let extra = if 128 + extra > b.len() { 0 } else { extra };
        let time = |low: usize, high: usize| {
            let seconds = i64::from(u32_at(b, low)? as i32);
            // Counted from the beginning of these fields, it says how many of them are there.
            if high + 4 > 128 + extra {
                return Some(Time { seconds, nanos: 0 });
            }
            let more = u32_at(b, high)?;
            Some(Time { seconds: seconds + (i64::from(more & 3) << 32), nanos: more >> 2 })
        };
        let mut map = [0; MAP];
        map.copy_from_slice(b.get(40..40 + MAP)?);
        Some(Self {
            number,
            sort,
            mode: mode & 0o7777,
            uid: word(2)? | word(120)? << 16,
            gid: word(24)? | word(122)? << 16,
            size: u64::from(u32_at(b, 108)?) << 32 | u64::from(u32_at(b, 4)?),
            links: u16_at(b, 26)?,
            mtime: time(16, 136)?,
            ctime: time(12, 132)?,
            device: device(&map),
            generation: u32_at(b, 100)?,
            sectors: u64::from(u32_at(b, 28)?) | u64::from(u16_at(b, 116)?) << 32,
            flags: u32_at(b, 32)?,
            map,
            xattr_block: u64::from(u32_at(b, 104)?) | u64::from(u16_at(b, 118)?) << 32,
            rest: if extra == 0 { Vec::new() } else { b.get(128 + extra..)?.to_vec() },
        })
    }

    /// Says whether the content, or the names of a directory, are there for who has a key alone.
    pub fn is_encrypted(&self) -> bool {
        self.flags & ENCRYPTED != 0
    }

    pub(crate) fn is_inline(&self) -> bool {
        self.flags & INLINE != 0
    }
}

/// Reads the number of a device, which has an old and a new form.
fn device(map: &[u8; MAP]) -> (u32, u32) {
    let old = u32_at(map, 0).unwrap_or(0);
    if old != 0 {
        return (old >> 8 & 0xff, old & 0xff);
    }
    let new = u32_at(map, 4).unwrap_or(0);
    ((new & 0xf_ff00) >> 8, new & 0xff | new >> 12 & 0xf_ff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_age_has_its_two_bits() {
        for (seconds, low, more) in [
            (-1_i64 << 31, 1_u32 << 31, 0_u32),
            (-1, u32::MAX, 0),
            (0, 0, 0),
            (1 << 31, 1 << 31, 1),
            (1 << 32, 0, 1),
            ((7 << 31) - 1, u32::MAX >> 1, 3),
        ] {
            let mut b = [0; 256];
            b[16..20].copy_from_slice(&low.to_le_bytes());
            b[128] = 32;
            b[136..140].copy_from_slice(&(7_u32 << 2 | more).to_le_bytes());
            let inode = Inode::parse(9, &b).unwrap();
            assert_eq!(inode.mtime, Time { seconds, nanos: 7 });
        }
    }

    #[test]
    fn devices_have_two_forms() {
        let of = |old: u32, new: u32| {
            let mut map = [0; MAP];
            map[..4].copy_from_slice(&old.to_le_bytes());
            map[4..8].copy_from_slice(&new.to_le_bytes());
            device(&map)
        };
        assert_eq!(of(0, 0), (0, 0));
        assert_eq!(of(0x0103, 0), (1, 3));
        assert_eq!(of(0, 0x1234_5607), (0x0456, 0x0001_2307));
    }
}
