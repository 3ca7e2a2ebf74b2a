//! The blocks of a directory: one plain block, or an index over many.

use crate::bytes::{put, put8, put16, put32};
use crate::checksum::crc;
use crate::hash::hash;
use crate::layout::BLOCK;
use banger_doc::{Error, Result};

/// What the checksum at the end of a plain block takes.
const TAIL: usize = 12;
/// Where the index begins in the first block, and in the others.
const ROOT_AT: usize = 32;
const NODE_AT: usize = 8;
/// What the index holds in the first block, and in the others.
const ROOT_LIMIT: usize = (BLOCK - ROOT_AT - 8) / 8;
const NODE_LIMIT: usize = (BLOCK - NODE_AT - 8) / 8;

/// What a directory entry calls a directory.
pub(crate) const DIRECTORY: u8 = 2;

/// A name, the inode it stands for, and that one's type.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) inode: u32,
    pub(crate) kind: u8,
}

impl Name<'_> {
    fn room(&self) -> usize {
        (8 + self.bytes.len()).next_multiple_of(4)
    }

    fn encode(&self, block: &mut [u8], at: usize, length: usize) {
        put32(block, at, self.inode);
        put16(block, at + 4, length as u16);
        put8(block, at + 6, self.bytes.len() as u8);
        put8(block, at + 7, self.kind);
        put(block, at + 8, self.bytes);
    }
}

/// Writes the blocks of directory `number`, in order, and returns how many. `seeds` are that of
/// its checksums and that of the hash.
pub(crate) fn write(
    number: u32,
    parent: u32,
    names: &[Name<'_>],
    seeds: (u32, &[u8; 16]),
    mut block: impl FnMut(&[u8]) -> Result<()>,
) -> Result<u32> {
    let (seed, hash_seed) = seeds;
    let own = [
        Name { bytes: b".", inode: number, kind: DIRECTORY },
        Name { bytes: b"..", inode: parent, kind: DIRECTORY },
    ];
    let total: usize = own.iter().chain(names).map(Name::room).sum();
    if total <= BLOCK - TAIL {
        block(&plain(own.iter().chain(names), seed))?;
        return Ok(1);
    }

    let mut hashed: Vec<(u32, u32)> = names
        .iter()
        .enumerate()
        .map(|(slot, name)| (hash(hash_seed, name.bytes), slot as u32))
        .collect();
    hashed.sort_unstable();
    let leaves = leaves(&hashed, names);
    // A name whose hash the block before ends with is found by the lowest bit.
    let keys: Vec<u32> = leaves
        .iter()
        .map(|(from, _)| {
            let key = hashed[*from].0;
            if *from > 0 && hashed[*from - 1].0 == key { key | 1 } else { key }
        })
        .collect();

    let nodes = if leaves.len() <= ROOT_LIMIT { 0 } else { leaves.len().div_ceil(NODE_LIMIT) };
    if nodes > ROOT_LIMIT {
        return Err(Error::failed("a directory has too many names for its index"));
    }
    let first_leaf = 1 + nodes as u32;
    let below = |index: usize| (keys[index], first_leaf + index as u32);
    let top: Vec<(u32, u32)> = if nodes == 0 {
        (0..leaves.len()).map(below).collect()
    } else {
        (0..nodes).map(|node| (keys[node * NODE_LIMIT], 1 + node as u32)).collect()
    };

    let mut root = vec![0; BLOCK];
    own[0].encode(&mut root, 0, 12);
    own[1].encode(&mut root, 12, BLOCK - 12);
    // Half MD4; eight bytes of this; levels between here and the leaves.
    put8(&mut root, 28, 1);
    put8(&mut root, 29, 8);
    put8(&mut root, 30, u8::from(nodes > 0));
    index(&mut root, ROOT_AT, ROOT_LIMIT, &top, seed);
    block(&root)?;
    for node in 0..nodes {
        let range = node * NODE_LIMIT..leaves.len().min((node + 1) * NODE_LIMIT);
        let pointers: Vec<_> = range.map(below).collect();
        let mut bytes = vec![0; BLOCK];
        put16(&mut bytes, 4, BLOCK as u16);
        index(&mut bytes, NODE_AT, NODE_LIMIT, &pointers, seed);
        block(&bytes)?;
    }
    for (from, to) in &leaves {
        block(&plain(hashed[*from..*to].iter().map(|(_, slot)| &names[*slot as usize]), seed))?;
    }
    Ok(first_leaf + leaves.len() as u32)
}

/// Divides names, sorted by hash, into blocks: from where to where.
fn leaves(hashed: &[(u32, u32)], names: &[Name<'_>]) -> Vec<(usize, usize)> {
    let mut leaves = Vec::new();
    let (mut from, mut room) = (0, 0);
    for (at, (_, slot)) in hashed.iter().enumerate() {
        let needed = names[*slot as usize].room();
        if room + needed > BLOCK - TAIL {
            leaves.push((from, at));
            (from, room) = (at, 0);
        }
        room += needed;
    }
    leaves.push((from, hashed.len()));
    leaves
}

/// Returns a block of names; the last one's length reaches to the checksum.
fn plain<'a>(names: impl Iterator<Item = &'a Name<'a>>, seed: u32) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let (mut at, mut last) = (0, 0);
    for name in names {
        last = at;
        name.encode(&mut block, at, name.room());
        at += name.room();
    }
    put16(&mut block, last + 4, (BLOCK - TAIL - last) as u16);
    put16(&mut block, BLOCK - 8, TAIL as u16);
    put8(&mut block, BLOCK - 5, 0xde);
    let sum = crc(seed, &block[..BLOCK - TAIL]);
    put32(&mut block, BLOCK - 4, sum);
    block
}

/// Fills the index of a block: hashes and the blocks where they begin. The first has no hash; its
/// place says how many there are.
fn index(block: &mut [u8], at: usize, limit: usize, pointers: &[(u32, u32)], seed: u32) {
    for (slot, (key, to)) in pointers.iter().enumerate() {
        put32(block, at + 8 * slot, *key);
        put32(block, at + 8 * slot + 4, *to);
    }
    put16(block, at, limit as u16);
    put16(block, at + 2, pointers.len() as u16);
    let sum = crc(crc(seed, &block[..at + 8 * pointers.len()]), &[0; 8]);
    put32(block, at + 8 * limit + 4, sum);
}
