//! The shape of a file system: sizes, features, the superblock, the descriptors of its groups.

use crate::bytes::{put, put8, put16, put32};
use crate::checksum::crc;

/// Bytes in a block.
pub const BLOCK: usize = 4096;
/// Blocks in a group: what one bitmap block can describe.
pub(crate) const GROUP_BLOCKS: u32 = 8 * BLOCK as u32;
/// Bytes in an inode.
pub(crate) const INODE: usize = 256;
/// Inodes in a block.
pub(crate) const INODES_A_BLOCK: u32 = (BLOCK / INODE) as u32;
/// Bytes in a group's descriptor.
pub(crate) const DESCRIPTOR: usize = 32;
/// Descriptors in a block.
pub(crate) const DESCRIPTORS_A_BLOCK: u32 = (BLOCK / DESCRIPTOR) as u32;
/// The root directory's inode.
pub(crate) const ROOT: u32 = 2;
/// The journal's inode.
pub(crate) const JOURNAL: u32 = 8;
/// The first inode that is not reserved.
pub(crate) const FIRST: u32 = 11;
/// Where the superblock begins in block 0.
pub(crate) const SUPERBLOCK: usize = 1024;
/// More names than this for one inode, and the link count would wrap.
pub const MAX_LINKS: u32 = 65_000;

pub(crate) const COMPAT_JOURNAL: u32 = 0x4;
pub(crate) const COMPAT_XATTR: u32 = 0x8;
pub(crate) const COMPAT_DIR_INDEX: u32 = 0x20;
pub(crate) const COMPAT_SPARSE_SUPER2: u32 = 0x200;
pub(crate) const INCOMPAT_FILETYPE: u32 = 0x2;
pub(crate) const INCOMPAT_EXTENTS: u32 = 0x40;
pub(crate) const INCOMPAT_FLEX_BG: u32 = 0x200;
pub(crate) const INCOMPAT_CSUM_SEED: u32 = 0x2000;
pub(crate) const RO_SPARSE_SUPER: u32 = 0x1;
/// Large and huge files, directories with many subdirectories, large inodes, checksums.
pub(crate) const RO_COMMON: u32 = 0x2 | 0x8 | 0x20 | 0x40 | 0x400;

/// No inode of the group is in use, and its bitmap was never written.
pub(crate) const INODE_UNINIT: u16 = 0x1;
/// No block of the group is in use, and its bitmap was never written.
pub(crate) const BLOCK_UNINIT: u16 = 0x2;
/// The unused part of the inode table is zero.
pub(crate) const INODE_ZEROED: u16 = 0x4;

/// What a superblock says.
#[derive(Clone, Default)]
pub(crate) struct Superblock {
    pub(crate) blocks: u32,
    pub(crate) free_blocks: u32,
    pub(crate) reserved_blocks: u32,
    pub(crate) inodes: u32,
    pub(crate) free_inodes: u32,
    pub(crate) inodes_per_group: u32,
    pub(crate) compat: u32,
    pub(crate) incompat: u32,
    pub(crate) ro_compat: u32,
    pub(crate) uuid: [u8; 16],
    pub(crate) hash_seed: [u8; 16],
    pub(crate) label: [u8; 16],
    pub(crate) time: u32,
    /// The journal's block map and size, repeated where repair looks for it.
    pub(crate) journal: Option<([u8; 60], u32)>,
    pub(crate) checksum_seed: u32,
    /// The number of the group this copy lies in.
    pub(crate) group: u16,
}

impl Superblock {
    pub(crate) fn encode(&self) -> [u8; 1024] {
        let mut b = [0; 1024];
        put32(&mut b, 0x00, self.inodes);
        put32(&mut b, 0x04, self.blocks);
        put32(&mut b, 0x08, self.reserved_blocks);
        put32(&mut b, 0x0c, self.free_blocks);
        put32(&mut b, 0x10, self.free_inodes);
        // Block and cluster size: 1024 << 2.
        put32(&mut b, 0x18, 2);
        put32(&mut b, 0x1c, 2);
        put32(&mut b, 0x20, GROUP_BLOCKS);
        put32(&mut b, 0x24, GROUP_BLOCKS);
        put32(&mut b, 0x28, self.inodes_per_group);
        put32(&mut b, 0x30, self.time);
        // Never checked for being mounted often.
        put16(&mut b, 0x36, 0xffff);
        put16(&mut b, 0x38, 0xef53);
        // Clean; errors are carried on from.
        put16(&mut b, 0x3a, 1);
        put16(&mut b, 0x3c, 1);
        put32(&mut b, 0x40, self.time);
        put32(&mut b, 0x4c, 1);
        put32(&mut b, 0x54, FIRST);
        put16(&mut b, 0x58, INODE as u16);
        put16(&mut b, 0x5a, self.group);
        put32(&mut b, 0x5c, self.compat);
        put32(&mut b, 0x60, self.incompat);
        put32(&mut b, 0x64, self.ro_compat);
        put(&mut b, 0x68, &self.uuid);
        put(&mut b, 0x78, &self.label);
        put(&mut b, 0xec, &self.hash_seed);
        // Half MD4.
        put8(&mut b, 0xfc, 1);
        // Extended attributes and ACLs are on without a mount option.
        put32(&mut b, 0x100, 0x4 | 0x8);
        put32(&mut b, 0x108, self.time);
        if let Some((map, size)) = &self.journal {
            put32(&mut b, 0xe0, JOURNAL);
            put8(&mut b, 0xfd, 1);
            put(&mut b, 0x10c, map);
            put32(&mut b, 0x10c + 64, *size);
        }
        put16(&mut b, 0x15c, 32);
        put16(&mut b, 0x15e, 32);
        // Names are hashed as signed bytes: every reader knows how.
        put32(&mut b, 0x160, 1);
        // Sixteen groups share a place for their metadata; CRC-32C.
        put8(&mut b, 0x174, 4);
        put8(&mut b, 0x175, 1);
        if self.incompat & INCOMPAT_CSUM_SEED != 0 {
            put32(&mut b, 0x270, self.checksum_seed);
        }
        let sum = crc(!0, &b[..1020]);
        put32(&mut b, 1020, sum);
        b
    }
}

/// What a group's descriptor says.
#[derive(Clone, Default)]
pub(crate) struct Descriptor {
    pub(crate) block_bitmap: u32,
    pub(crate) inode_bitmap: u32,
    pub(crate) inode_table: u32,
    pub(crate) free_blocks: u32,
    pub(crate) free_inodes: u32,
    pub(crate) directories: u32,
    pub(crate) flags: u16,
    pub(crate) block_bitmap_sum: u32,
    pub(crate) inode_bitmap_sum: u32,
    pub(crate) unused_inodes: u32,
}

impl Descriptor {
    pub(crate) fn encode(&self, seed: u32, group: u32) -> [u8; DESCRIPTOR] {
        let mut b = [0; DESCRIPTOR];
        put32(&mut b, 0, self.block_bitmap);
        put32(&mut b, 4, self.inode_bitmap);
        put32(&mut b, 8, self.inode_table);
        put16(&mut b, 12, self.free_blocks as u16);
        put16(&mut b, 14, self.free_inodes as u16);
        put16(&mut b, 16, self.directories as u16);
        put16(&mut b, 18, self.flags);
        put16(&mut b, 24, self.block_bitmap_sum as u16);
        put16(&mut b, 26, self.inode_bitmap_sum as u16);
        put16(&mut b, 28, self.unused_inodes as u16);
        let sum = crc(crc(seed, &group.to_le_bytes()), &b);
        put16(&mut b, 30, sum as u16);
        b
    }
}

/// Returns a volume name as the superblock keeps it: at most 16 bytes.
pub(crate) fn label_bytes(label: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = label.len().min(16);
    bytes[..length].copy_from_slice(&label.as_bytes()[..length]);
    bytes
}

/// Sets the bits `from..to` of a bitmap.
pub(crate) fn set_bits(map: &mut [u8], from: u32, to: u32) {
    let mut bit = from;
    while bit < to {
        if bit.is_multiple_of(8) && to - bit >= 8 {
            map[bit as usize / 8] = 0xff;
            bit += 8;
        } else {
            map[bit as usize / 8] |= 1 << (bit % 8);
            bit += 1;
        }
    }
}
