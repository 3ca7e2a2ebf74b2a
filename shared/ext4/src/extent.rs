//! Where a file's blocks lie: extents, and the trees that hold many of them.

use crate::bytes::{put, put16, put32};
use crate::checksum::crc;
use crate::layout::BLOCK;

/// A stretch of a file in one piece on the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Extent {
    /// The first block within the file.
    pub(crate) logical: u32,
    /// The first block on the disk.
    pub(crate) physical: u32,
    /// How many blocks.
    pub(crate) length: u16,
}

/// An extent of this many blocks is full; one more would mean "not yet written".
pub(crate) const MAX_LENGTH: u16 = 32_768;
/// How many extents, or pointers to nodes, an inode itself holds.
pub(crate) const IN_INODE: usize = 4;
const IN_BLOCK: usize = (BLOCK - 12) / 12;

fn header(bytes: &mut [u8], entries: usize, max: usize, depth: u16) {
    put16(bytes, 0, 0xf30a);
    put16(bytes, 2, entries as u16);
    put16(bytes, 4, max as u16);
    put16(bytes, 6, depth);
}

fn leaf(bytes: &mut [u8], slot: usize, extent: &Extent) {
    let at = 12 + 12 * slot;
    put32(bytes, at, extent.logical);
    put16(bytes, at + 4, extent.length);
    put32(bytes, at + 8, extent.physical);
}

fn index(bytes: &mut [u8], slot: usize, logical: u32, block: u32) {
    let at = 12 + 12 * slot;
    put32(bytes, at, logical);
    put32(bytes, at + 4, block);
}

/// Returns an inode's block map that holds the extents itself.
pub(crate) fn flat(extents: &[Extent]) -> [u8; 60] {
    let mut root = [0; 60];
    header(&mut root, extents.len(), IN_INODE, 0);
    for (slot, extent) in extents.iter().enumerate() {
        leaf(&mut root, slot, extent);
    }
    root
}

/// Writes the nodes that the extents need beyond the inode and returns the inode's block map.
/// `seed` is the inode's, `write` puts a block on the disk and says where.
pub(crate) fn tree<E>(
    extents: &[Extent],
    seed: u32,
    mut write: impl FnMut(&[u8]) -> Result<u32, E>,
) -> Result<([u8; 60], u32), E> {
    if extents.len() <= IN_INODE {
        return Ok((flat(extents), 0));
    }
    let mut blocks = 0;
    let mut seal = |mut node: Vec<u8>| {
        let sum = crc(seed, &node[..BLOCK - 4]);
        put(&mut node, BLOCK - 4, &sum.to_le_bytes());
        blocks += 1;
        write(&node)
    };
    let mut level = Vec::new();
    for part in extents.chunks(IN_BLOCK) {
        let mut node = vec![0; BLOCK];
        header(&mut node, part.len(), IN_BLOCK, 0);
        for (slot, extent) in part.iter().enumerate() {
            leaf(&mut node, slot, extent);
        }
        level.push((part[0].logical, seal(node)?));
    }
    let mut depth = 1;
    while level.len() > IN_INODE {
        let mut above = Vec::new();
        for part in level.chunks(IN_BLOCK) {
            let mut node = vec![0; BLOCK];
            header(&mut node, part.len(), IN_BLOCK, depth);
            for (slot, (logical, block)) in part.iter().enumerate() {
                index(&mut node, slot, *logical, *block);
            }
            above.push((part[0].0, seal(node)?));
        }
        level = above;
        depth += 1;
    }
    let mut root = [0; 60];
    header(&mut root, level.len(), IN_INODE, depth);
    for (slot, (logical, block)) in level.iter().enumerate() {
        index(&mut root, slot, *logical, *block);
    }
    Ok((root, blocks))
}
