//! An empty, writable file system with a journal.

use crate::bytes::{put, put16, put32};
use crate::checksum::{crc, inode_seed};
use crate::extent::{Extent, flat};
use crate::inode::{EXTENTS, Inode, Time};
use crate::layout::{
    BLOCK, BLOCK_UNINIT, COMPAT_DIR_INDEX, COMPAT_JOURNAL, COMPAT_XATTR, DESCRIPTOR,
    DESCRIPTORS_A_BLOCK, Descriptor, FIRST, GROUP_BLOCKS, INCOMPAT_EXTENTS, INCOMPAT_FILETYPE,
    INCOMPAT_FLEX_BG, INODE, INODE_UNINIT, INODE_ZEROED, INODES_A_BLOCK, JOURNAL, RO_COMMON,
    RO_SPARSE_SUPER, ROOT, SUPERBLOCK, Superblock, label_bytes, set_bits,
};
use banger_doc::{Context, Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

/// Groups whose bitmaps and inode tables lie together.
const FLEX: u32 = 16;
/// The smallest file system made: less would hardly hold the journal.
const MIN_BYTES: u64 = 16 << 20;

/// Where everything lies.
struct Plan {
    blocks: u32,
    groups: u32,
    descriptor_blocks: u32,
    inodes_per_group: u32,
    table_blocks: u32,
    journal_blocks: u32,
}

impl Plan {
    fn new(size_bytes: u64) -> Result<Self> {
        let whole = size_bytes / BLOCK as u64;
        if size_bytes < MIN_BYTES || whole > u64::from(u32::MAX) - u64::from(GROUP_BLOCKS) {
            return Err(Error::usage(format!(
                "a disk of {size_bytes} bytes cannot be made: it must be from 16 MiB up to 16 TiB"
            )));
        }
        let mut plan = Self {
            blocks: whole as u32,
            groups: 0,
            descriptor_blocks: 0,
            inodes_per_group: 0,
            table_blocks: 0,
            journal_blocks: if size_bytes >= 1 << 30 { 4096 } else { 1024 },
        };
        loop {
            plan.groups = plan.blocks.div_ceil(GROUP_BLOCKS);
            plan.descriptor_blocks = plan.groups.div_ceil(DESCRIPTORS_A_BLOCK);
            // One inode for 16 KiB, as the usual tools choose.
            plan.inodes_per_group = if plan.groups == 1 {
                (plan.blocks / 4).next_multiple_of(INODES_A_BLOCK)
            } else {
                GROUP_BLOCKS / 4
            };
            plan.table_blocks = plan.inodes_per_group / INODES_A_BLOCK;
            let last = plan.groups - 1;
            let tail = plan.blocks - last * GROUP_BLOCKS;
            // A last group too small for its own metadata is left out.
            if last == 0 || tail > plan.used_in(last) + 50 {
                return Ok(plan);
            }
            plan.blocks = last * GROUP_BLOCKS;
        }
    }

    /// Returns how many blocks a copy of the superblock and descriptors takes at a group's start.
    fn copy_blocks(&self, group: u32) -> u32 {
        if has_copy(group) { 1 + self.descriptor_blocks } else { 0 }
    }

    /// Returns how many groups keep their metadata with this one.
    fn flex_members(&self, group: u32) -> u32 {
        if group.is_multiple_of(FLEX) { FLEX.min(self.groups - group) } else { 0 }
    }

    /// Returns how many blocks at a group's start hold metadata.
    fn used_in(&self, group: u32) -> u32 {
        self.copy_blocks(group) + self.flex_members(group) * (2 + self.table_blocks)
    }

    fn blocks_in(&self, group: u32) -> u32 {
        (self.blocks - group * GROUP_BLOCKS).min(GROUP_BLOCKS)
    }

    /// Returns where a group's block bitmap, inode bitmap and inode table lie.
    fn places(&self, group: u32) -> (u32, u32, u32) {
        let first = group / FLEX * FLEX;
        let members = self.flex_members(first);
        let base = first * GROUP_BLOCKS + self.copy_blocks(first);
        let slot = group - first;
        (base + slot, base + members + slot, base + 2 * members + slot * self.table_blocks)
    }
}

/// Says whether a group holds a copy of the superblock: 0, 1 and the powers of 3, 5 and 7.
fn has_copy(group: u32) -> bool {
    let power_of = |base: u32| {
        let mut power = base;
        while power < group {
            power = power.saturating_mul(base);
        }
        power == group
    };
    group <= 1 || power_of(3) || power_of(5) || power_of(7)
}

/// Writes an empty, journaled, growable ext4 file system over the whole of `file`, which becomes
/// `size_bytes` long and stays sparse.
pub fn write_empty(file: &File, size_bytes: u64, uuid: [u8; 16], label: &str) -> Result<()> {
    let plan = Plan::new(size_bytes)?;
    file.set_len(0).and_then(|()| file.set_len(size_bytes)).context("cannot size the disk")?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().min(u64::from(u32::MAX)));
    let time = Time { seconds: now as i64, nanos: 0 };
    let seed = crc(!0, &uuid);
    let at = |block: u32| u64::from(block) * BLOCK as u64;
    let write = |bytes: &[u8], offset: u64| {
        file.write_all_at(bytes, offset).context("cannot write the disk")
    };

    // After the metadata of the first groups: the root, lost+found, the journal.
    let root = plan.used_in(0);
    let lost = root + 1;
    let mut journal = lost + 1;
    // A big table may fill the first group; then these come after it.
    let mut first_free = journal;
    if plan.used_in(0) + 2 + plan.journal_blocks > plan.blocks {
        return Err(Error::failed("the disk is too small for its journal"));
    }
    // The journal is kept in one piece, off a later group's copy of the superblock.
    let journal_group = journal / GROUP_BLOCKS;
    if (journal + plan.journal_blocks - 1) / GROUP_BLOCKS != journal_group {
        let next = journal_group + 1;
        journal = next * GROUP_BLOCKS + plan.used_in(next);
    }
    first_free = first_free.max(lost + 1);

    let mut used: Vec<(u32, u32)> = (0..plan.groups)
        .filter(|group| plan.used_in(*group) > 0)
        .map(|group| (group * GROUP_BLOCKS, group * GROUP_BLOCKS + plan.used_in(group)))
        .collect();
    used.push((root, first_free));
    used.push((journal, journal + plan.journal_blocks));

    let mut table = vec![0; BLOCK];
    let directory = |block| [Extent { logical: 0, physical: block, length: 1 }];
    let mut inode = |number: u32, inode: Inode<'_>| {
        let slot = (number - 1) as usize * INODE;
        inode.encode(seed, number, &mut table[slot..slot + INODE]);
    };
    let common = |mode, links, size, blocks, map| Inode {
        mode,
        uid: 0,
        gid: 0,
        size,
        links,
        blocks,
        flags: EXTENTS,
        map,
        time,
        xattr_block: 0,
        xattrs: &[],
    };
    inode(ROOT, common(0o040_755, 3, BLOCK as u64, 1, flat(&directory(root))));
    inode(FIRST, common(0o040_700, 2, BLOCK as u64, 1, flat(&directory(lost))));
    let journal_map =
        flat(&[Extent { logical: 0, physical: journal, length: plan.journal_blocks as u16 }]);
    let journal_size = u64::from(plan.journal_blocks) * BLOCK as u64;
    inode(JOURNAL, common(0o100_600, 1, journal_size, u64::from(plan.journal_blocks), journal_map));
    write(&table, at(plan.places(0).2))?;
    write(
        &directory_block(seed, ROOT, &[(ROOT, "."), (ROOT, ".."), (FIRST, "lost+found")]),
        at(root),
    )?;
    write(&directory_block(seed, FIRST, &[(FIRST, "."), (ROOT, "..")]), at(lost))?;
    write(&journal_block(plan.journal_blocks, uuid), at(journal))?;

    let mut descriptors = vec![0; plan.descriptor_blocks as usize * BLOCK];
    let mut free_blocks = 0;
    for group in 0..plan.groups {
        let (block_bitmap, inode_bitmap, inode_table) = plan.places(group);
        let (start, length) = (group * GROUP_BLOCKS, plan.blocks_in(group));
        let mut map = None;
        let mut taken = 0;
        for (from, to) in &used {
            let (from, to) =
                (from.max(&start) - start, to.min(&(start + length)).saturating_sub(start));
            if from < to {
                taken += to - from;
                set_bits(map.get_or_insert_with(|| vec![0; BLOCK]), from, to);
            }
        }
        let mut descriptor = Descriptor {
            block_bitmap,
            inode_bitmap,
            inode_table,
            free_blocks: length - taken,
            free_inodes: plan.inodes_per_group,
            directories: 0,
            flags: INODE_ZEROED | INODE_UNINIT,
            block_bitmap_sum: 0,
            inode_bitmap_sum: 0,
            unused_inodes: plan.inodes_per_group,
        };
        free_blocks += descriptor.free_blocks;
        // A group with nothing but a copy of the superblock needs no bitmap: everyone can tell.
        let plain = taken == plan.copy_blocks(group) && group + 1 < plan.groups;
        if plain {
            descriptor.flags |= BLOCK_UNINIT;
        } else {
            let mut map = map.unwrap_or_else(|| vec![0; BLOCK]);
            set_bits(&mut map, length, GROUP_BLOCKS);
            descriptor.block_bitmap_sum = crc(seed, &map);
            write(&map, at(block_bitmap))?;
        }
        if group == 0 {
            let mut map = vec![0; BLOCK];
            set_bits(&mut map, 0, FIRST);
            set_bits(&mut map, plan.inodes_per_group, GROUP_BLOCKS);
            descriptor.flags &= !INODE_UNINIT;
            descriptor.inode_bitmap_sum = crc(seed, &map[..plan.inodes_per_group as usize / 8]);
            descriptor.free_inodes -= FIRST;
            descriptor.unused_inodes -= FIRST;
            descriptor.directories = 2;
            write(&map, at(inode_bitmap))?;
        }
        let slot = group as usize * DESCRIPTOR;
        put(&mut descriptors, slot, &descriptor.encode(seed, group));
    }

    let inodes = plan.groups * plan.inodes_per_group;
    let mut superblock = Superblock {
        blocks: plan.blocks,
        free_blocks,
        reserved_blocks: 0,
        inodes,
        free_inodes: inodes - FIRST,
        inodes_per_group: plan.inodes_per_group,
        compat: COMPAT_JOURNAL | COMPAT_XATTR | COMPAT_DIR_INDEX,
        incompat: INCOMPAT_FILETYPE | INCOMPAT_EXTENTS | INCOMPAT_FLEX_BG,
        ro_compat: RO_SPARSE_SUPER | RO_COMMON,
        uuid,
        hash_seed: hash_seed(&uuid),
        label: label_bytes(label),
        time: time.seconds as u32,
        journal: Some((journal_map, journal_size as u32)),
        checksum_seed: 0,
        group: 0,
    };
    for group in (0..plan.groups).filter(|group| has_copy(*group)).rev() {
        superblock.group = group as u16;
        let start = at(group * GROUP_BLOCKS);
        write(&descriptors, start + BLOCK as u64)?;
        write(&superblock.encode(), start + if group == 0 { SUPERBLOCK as u64 } else { 0 })?;
    }
    Ok(())
}

/// Returns what names are hashed with: fixed by the file system's own number.
pub(crate) fn hash_seed(uuid: &[u8; 16]) -> [u8; 16] {
    let digest = Sha256::digest(uuid);
    digest[..16].try_into().expect("because a digest has 32 bytes")
}

/// Returns a directory of one block.
fn directory_block(seed: u32, number: u32, entries: &[(u32, &str)]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    for (slot, (inode, name)) in entries.iter().enumerate() {
        let last = slot + 1 == entries.len();
        let length = if last { BLOCK - 12 - at } else { (8 + name.len()).next_multiple_of(4) };
        put32(&mut block, at, *inode);
        put16(&mut block, at + 4, length as u16);
        block[at + 6] = name.len() as u8;
        block[at + 7] = 2;
        put(&mut block, at + 8, name.as_bytes());
        at += length;
    }
    put16(&mut block, BLOCK - 8, 12);
    block[BLOCK - 5] = 0xde;
    let sum = crc(inode_seed(seed, number), &block[..BLOCK - 12]);
    put32(&mut block, BLOCK - 4, sum);
    block
}

/// Returns the journal's own superblock; it is big-endian.
fn journal_block(blocks: u32, uuid: [u8; 16]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut word = |at: usize, value: u32| block[at..at + 4].copy_from_slice(&value.to_be_bytes());
    word(0, 0xc03b_3998);
    word(4, 4);
    word(12, BLOCK as u32);
    word(16, blocks);
    word(20, 1);
    word(24, 1);
    word(64, 1);
    put(&mut block, 48, &uuid);
    // The file system that uses it.
    put(&mut block, 256, &[0; 16]);
    block
}
