//! The disk as a whole: handed out to sources while data comes, finished when all has come.

use crate::bytes::put;
use crate::checksum::{crc, inode_seed};
use crate::directory::{self, Name};
use crate::empty::hash_seed;
use crate::extent::{self, Extent, IN_INODE, MAX_LENGTH};
use crate::inode::{EXTENTS, INDEXED, Inode};
use crate::layout::{
    BLOCK, BLOCK_UNINIT, COMPAT_DIR_INDEX, COMPAT_SPARSE_SUPER2, COMPAT_XATTR, DESCRIPTOR,
    DESCRIPTORS_A_BLOCK, Descriptor, FIRST, GROUP_BLOCKS, INCOMPAT_CSUM_SEED, INCOMPAT_EXTENTS,
    INCOMPAT_FILETYPE, INCOMPAT_FLEX_BG, INODE, INODE_UNINIT, INODE_ZEROED, INODES_A_BLOCK,
    MAX_LINKS, RO_COMMON, ROOT, SUPERBLOCK, Superblock, label_bytes, set_bits,
};
use crate::place::{FIRST_DATA, MAX_BLOCKS, Places};
use crate::source::Source;
use crate::tree::{Content, Node, Tree};
use crate::{SEED, Summary};
use banger_doc::{Context, Error, Result};
use nix::fcntl::{FallocateFlags, fallocate};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Metadata is collected up to this many bytes before it is written.
const BATCH: usize = 1 << 20;
/// A link's target shorter than this is in the inode.
const SHORT_TARGET: usize = 60;

/// A read-only ext4 file system that is being written.
///
/// Its superblock and descriptors come first, then the sources' data, then everything else: by then
/// it is known how much there is. There are no copies of the superblock: the disk can be made again.
pub struct Disk<'f> {
    file: &'f File,
    places: Places,
}

impl<'f> Disk<'f> {
    /// Empties the file and divides it between sources that will bring about that many bytes each.
    pub fn new(file: &'f File, sizes: &[Option<u64>]) -> Result<Self> {
        file.set_len(0).context("cannot empty the disk")?;
        Ok(Self { file, places: Places::new(sizes) })
    }

    /// Returns a source's writer; each may have one, in a thread of its own.
    pub fn source(&self, index: usize) -> Source<'f> {
        Source::new(self.file, self.places.clone(), index)
    }

    /// Writes the tree and everything else around the data. The bytes depend on the tree and the
    /// data alone.
    pub fn finish(&self, mut tree: Tree, uuid: [u8; 16], label: &str) -> Result<Summary> {
        tree.settle();
        let order = number(&mut tree)?;
        let end = tree.stores().iter().flat_map(|store| &store.written).map(|(_, end)| *end).max();
        let mut tail = Tail::new(self.file, end.unwrap_or(FIRST_DATA).max(FIRST_DATA));
        let hash_seed = hash_seed(&uuid);
        let mut used = Used::default();

        // What has to be known before the inodes: directories, long targets, large extent trees.
        let mut trees = HashMap::new();
        let mut directories = Vec::new();
        for id in &order {
            let node = tree.nodes[*id as usize];
            let seed = inode_seed(SEED, node.number);
            if let Some(attributes) = tree.attributes(&node)
                && attributes.block != 0
            {
                used.mark(attributes.block, 1);
            }
            match node.content {
                Content::Directory { parent, .. } => {
                    let parent_number = tree.nodes[parent as usize].number;
                    let names: Vec<_> = tree
                        .entries(*id)
                        .map(|(_, entry)| {
                            let node = &tree.nodes[entry.node as usize];
                            Name {
                                bytes: tree.name(entry),
                                inode: node.number,
                                kind: kind(&node.content).1,
                            }
                        })
                        .collect();
                    let first = tail.next;
                    let count = directory::write(
                        node.number,
                        parent_number,
                        &names,
                        (seed, &hash_seed),
                        |block| tail.put(block).map(|_| ()),
                    )?;
                    directories.push(node.number);
                    tree.nodes[*id as usize].content =
                        Content::Directory { first, last: count, parent };
                }
                Content::Symlink { target, .. } if target.length as usize >= SHORT_TARGET => {
                    let mut bytes = vec![0; BLOCK];
                    put(&mut bytes, 0, tree.text(node.store, target));
                    let block = tail.put(&bytes)?;
                    tree.nodes[*id as usize].content = Content::Symlink { target, block };
                }
                Content::File { span, .. } => {
                    let extents = tree.stores()[node.store as usize].extents(span);
                    for extent in extents {
                        used.mark(extent.physical, u32::from(extent.length));
                    }
                    if extents.len() > IN_INODE {
                        trees.insert(*id, extent::tree(extents, seed, |block| tail.put(block))?);
                    }
                }
                _ => {}
            }
        }

        let inodes = FIRST - 1 + order.len() as u32 - 1;
        let plan = Plan::new(tail.next, inodes)?;
        let start = tail.finish()?;
        debug_assert_eq!(start, plan.block_bitmaps);
        used.mark(
            end.unwrap_or(FIRST_DATA).max(FIRST_DATA),
            plan.end - end.unwrap_or(FIRST_DATA).max(FIRST_DATA),
        );
        used.mark(0, 1 + plan.descriptor_blocks());

        self.write_inodes(&tree, &order, &trees, plan.tables)?;
        self.punch(&tree, &used)?;
        let free_blocks = self.write_groups(&plan, &used, &directories, inodes)?;
        let superblock = Superblock {
            blocks: plan.blocks,
            free_blocks,
            reserved_blocks: 0,
            inodes: plan.groups * plan.inodes_per_group,
            free_inodes: plan.groups * plan.inodes_per_group - inodes,
            inodes_per_group: plan.inodes_per_group,
            compat: COMPAT_XATTR | COMPAT_DIR_INDEX | COMPAT_SPARSE_SUPER2,
            incompat: INCOMPAT_FILETYPE | INCOMPAT_EXTENTS | INCOMPAT_FLEX_BG | INCOMPAT_CSUM_SEED,
            ro_compat: RO_COMMON,
            uuid,
            hash_seed,
            label: label_bytes(label),
            time: 0,
            journal: None,
            checksum_seed: SEED,
            group: 0,
        };
        self.file.set_len(u64::from(plan.blocks) * BLOCK as u64).context("cannot size the disk")?;
        self.write(&superblock.encode(), SUPERBLOCK as u64)?;
        Ok(Summary {
            size_bytes: u64::from(plan.blocks) * BLOCK as u64,
            used_bytes: u64::from(plan.blocks - free_blocks) * BLOCK as u64,
            inodes: order.len() as u64,
        })
    }

    /// Writes the inode tables, which lie one after the other.
    fn write_inodes(
        &self,
        tree: &Tree,
        order: &[u32],
        trees: &HashMap<u32, ([u8; 60], u32)>,
        tables: u32,
    ) -> Result<()> {
        let mut buffer = vec![0; BATCH];
        let mut start = 0;
        // Inodes before the first are reserved and empty, but for the root.
        let mut slot = 0;
        for (place, id) in order.iter().enumerate() {
            let number = if place == 0 { ROOT } else { FIRST - 1 + place as u32 };
            slot = (number - 1) as usize * INODE - start;
            if slot == BATCH {
                self.write(&buffer, u64::from(tables) * BLOCK as u64 + start as u64)?;
                buffer.fill(0);
                start += BATCH;
                slot = 0;
            }
            let node = &tree.nodes[*id as usize];
            let inode = inode(tree, node, trees.get(id));
            inode.encode(SEED, number, &mut buffer[slot..slot + INODE]);
        }
        let length = (slot + INODE).next_multiple_of(BLOCK);
        self.write(&buffer[..length], u64::from(tables) * BLOCK as u64 + start as u64)
    }

    /// Gives back what was written for files that are gone from the tree.
    fn punch(&self, tree: &Tree, used: &Used) -> Result<()> {
        for (from, to) in tree.stores().iter().flat_map(|store| &store.written) {
            used.gaps(*from, *to, |start, end| self.zero(start, end))?;
        }
        Ok(())
    }

    /// Makes blocks a hole, or zero where the host knows no holes.
    fn zero(&self, start: u32, end: u32) -> Result<()> {
        let (offset, length) =
            (i64::from(start) * BLOCK as i64, i64::from(end - start) * BLOCK as i64);
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if fallocate(self.file, flags, offset, length).is_ok() {
            return Ok(());
        }
        let zeros = vec![0; BATCH.min(length as usize)];
        let mut at = offset;
        while at < offset + length {
            let count = (offset + length - at).min(zeros.len() as i64);
            self.write(&zeros[..count as usize], at as u64)?;
            at += count;
        }
        Ok(())
    }

    /// Writes bitmaps and descriptors; returns how many blocks are free.
    fn write_groups(
        &self,
        plan: &Plan,
        used: &Used,
        directories: &[u32],
        inodes: u32,
    ) -> Result<u32> {
        let mut descriptors = vec![0; plan.descriptor_blocks() as usize * BLOCK];
        let mut directories = directories.iter().peekable();
        let mut free_blocks = 0;
        for group in 0..plan.groups {
            let length = (plan.blocks - group * GROUP_BLOCKS).min(GROUP_BLOCKS);
            let first_inode = group * plan.inodes_per_group;
            let used_inodes = inodes.saturating_sub(first_inode).min(plan.inodes_per_group);
            let mut descriptor = Descriptor {
                block_bitmap: plan.block_bitmaps + group,
                inode_bitmap: plan.inode_bitmaps + group,
                inode_table: plan.tables + group * plan.table_blocks(),
                free_blocks: length,
                free_inodes: plan.inodes_per_group - used_inodes,
                directories: 0,
                flags: INODE_ZEROED,
                block_bitmap_sum: 0,
                inode_bitmap_sum: 0,
                unused_inodes: plan.inodes_per_group - used_inodes,
            };
            while directories
                .next_if(|number| **number - 1 < first_inode + plan.inodes_per_group)
                .is_some()
            {
                descriptor.directories += 1;
            }
            // The last group always has its bitmap: checkers want it so.
            if let Some(map) = used.group(group).or((group + 1 == plan.groups).then_some(&EMPTY)) {
                let mut map = *map;
                descriptor.free_blocks -= map.iter().map(|byte| byte.count_ones()).sum::<u32>();
                set_bits(&mut map, length, GROUP_BLOCKS);
                descriptor.block_bitmap_sum = crc(SEED, &map);
                self.write(&map, u64::from(descriptor.block_bitmap) * BLOCK as u64)?;
            } else {
                descriptor.flags |= BLOCK_UNINIT;
            }
            if used_inodes > 0 {
                let mut map = EMPTY;
                set_bits(&mut map, 0, used_inodes);
                set_bits(&mut map, plan.inodes_per_group, GROUP_BLOCKS);
                descriptor.inode_bitmap_sum = crc(SEED, &map[..plan.inodes_per_group as usize / 8]);
                self.write(&map, u64::from(descriptor.inode_bitmap) * BLOCK as u64)?;
            } else {
                descriptor.flags |= INODE_UNINIT;
            }
            free_blocks += descriptor.free_blocks;
            put(&mut descriptors, group as usize * DESCRIPTOR, &descriptor.encode(SEED, group));
        }
        self.write(&descriptors, BLOCK as u64)?;
        Ok(free_blocks)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).context("cannot write the disk")
    }
}

static EMPTY: [u8; BLOCK] = [0; BLOCK];

/// Gives everything in the tree its inode; returns the nodes in that order, the root first.
fn number(tree: &mut Tree) -> Result<Vec<u32>> {
    let mut order = vec![0];
    tree.nodes[0].number = ROOT;
    let mut path = Vec::new();
    let mut next = tree.first(0);
    loop {
        let Some(number) = next else {
            match path.pop() {
                Some(above) => {
                    next = tree.after(above);
                    continue;
                }
                None => return Ok(order),
            }
        };
        let id = tree.entry(number).node;
        let node = &mut tree.nodes[id as usize];
        if node.number == 0 {
            node.number = FIRST - 1 + order.len() as u32;
            order.push(id);
        }
        next = match tree.first(id) {
            Some(first) => {
                path.push(number);
                Some(first)
            }
            None => tree.after(number),
        };
        if order.len() as u64 > 1 << 31 {
            return Err(Error::failed("the disk would have too many files"));
        }
    }
}

/// Returns the type in an inode's mode, and what a directory entry calls it.
fn kind(content: &Content) -> (u16, u8) {
    match content {
        Content::File { .. } => (0o100_000, 1),
        Content::Directory { .. } => (0o040_000, directory::DIRECTORY),
        Content::Character(..) => (0o020_000, 3),
        Content::Block(..) => (0o060_000, 4),
        Content::Fifo => (0o010_000, 5),
        Content::Socket => (0o140_000, 6),
        Content::Symlink { .. } => (0o120_000, 7),
    }
}

/// Puts one inode together. `large` is the extent tree that did not fit into it.
fn inode<'t>(tree: &'t Tree, node: &Node, large: Option<&([u8; 60], u32)>) -> Inode<'t> {
    let mut inode = Inode {
        mode: kind(&node.content).0 | node.meta.mode & 0o7777,
        uid: node.meta.uid,
        gid: node.meta.gid,
        size: 0,
        links: node.links.min(MAX_LINKS) as u16,
        blocks: 0,
        flags: 0,
        map: [0; 60],
        time: node.meta.time,
        xattr_block: 0,
        xattrs: &[],
    };
    match node.content {
        Content::Directory { first, last: count, .. } => {
            // A directory with very many subdirectories counts no links.
            inode.links = if node.links + 2 > MAX_LINKS { 1 } else { node.links as u16 + 2 };
            inode.size = u64::from(count) * BLOCK as u64;
            inode.blocks = u64::from(count);
            inode.flags = EXTENTS | if count > 1 { INDEXED } else { 0 };
            let extents: Vec<_> = (0..count)
                .step_by(MAX_LENGTH as usize)
                .map(|logical| Extent {
                    logical,
                    physical: first + logical,
                    length: (count - logical).min(u32::from(MAX_LENGTH)) as u16,
                })
                .collect();
            inode.map = extent::flat(&extents);
        }
        Content::File { size, span } => {
            let extents = tree.stores()[node.store as usize].extents(span);
            inode.size = size;
            inode.flags = EXTENTS;
            inode.blocks = extents.iter().map(|extent| u64::from(extent.length)).sum();
            match large {
                Some((map, blocks)) => {
                    inode.map = *map;
                    inode.blocks += u64::from(*blocks);
                }
                None => inode.map = extent::flat(extents),
            }
        }
        Content::Symlink { target, block } => {
            inode.size = u64::from(target.length);
            if block == 0 {
                put(&mut inode.map, 0, tree.text(node.store, target));
            } else {
                inode.blocks = 1;
                inode.flags = EXTENTS;
                inode.map = extent::flat(&[Extent { logical: 0, physical: block, length: 1 }]);
            }
        }
        Content::Character(major, minor) | Content::Block(major, minor) => {
            if major < 256 && minor < 256 {
                put(&mut inode.map, 0, &(major << 8 | minor).to_le_bytes());
            } else {
                let both = minor & 0xff | major << 8 | (minor & !0xff) << 12;
                put(&mut inode.map, 4, &both.to_le_bytes());
            }
        }
        Content::Fifo | Content::Socket => {}
    }
    if let Some(attributes) = tree.attributes(node) {
        inode.xattrs = &attributes.inline;
        inode.xattr_block = attributes.block;
        inode.blocks += u64::from(attributes.block != 0);
    }
    inode
}

/// Writes blocks one after the other.
struct Tail<'f> {
    file: &'f File,
    next: u32,
    buffer: Vec<u8>,
}

impl<'f> Tail<'f> {
    fn new(file: &'f File, next: u32) -> Self {
        Self { file, next, buffer: Vec::new() }
    }

    fn put(&mut self, block: &[u8]) -> Result<u32> {
        if u64::from(self.next) >= MAX_BLOCKS {
            return Err(Error::failed("the data does not fit on a disk of 4 TiB"));
        }
        self.buffer.extend_from_slice(block);
        self.next += 1;
        if self.buffer.len() >= BATCH {
            self.flush()?;
        }
        Ok(self.next - 1)
    }

    fn flush(&mut self) -> Result<()> {
        let start = u64::from(self.next) * BLOCK as u64 - self.buffer.len() as u64;
        self.file.write_all_at(&self.buffer, start).context("cannot write the disk")?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what is held back; returns the block after all.
    fn finish(mut self) -> Result<u32> {
        self.flush()?;
        Ok(self.next)
    }
}

/// The blocks in use, a bitmap for each group that has some.
#[derive(Default)]
struct Used(BTreeMap<u32, Box<[u8; BLOCK]>>);

impl Used {
    fn mark(&mut self, start: u32, count: u32) {
        let (mut from, end) = (start, start + count);
        while from < end {
            let group = from / GROUP_BLOCKS;
            let to = end.min((group + 1) * GROUP_BLOCKS);
            let map = self.0.entry(group).or_insert_with(|| Box::new([0; BLOCK]));
            set_bits(&mut map[..], from - group * GROUP_BLOCKS, to - group * GROUP_BLOCKS);
            from = to;
        }
    }

    fn group(&self, group: u32) -> Option<&[u8; BLOCK]> {
        self.0.get(&group).map(|map| &**map)
    }

    /// Tells of each stretch in `from..to` that is not in use.
    fn gaps(&self, from: u32, to: u32, mut gap: impl FnMut(u32, u32) -> Result<()>) -> Result<()> {
        let mut start = None;
        let mut at = from;
        while at < to {
            let (group, bit) = (at / GROUP_BLOCKS, at % GROUP_BLOCKS);
            let map = self.group(group);
            let byte = map.map_or(0, |map| map[bit as usize / 8]);
            // Eight at a time where all are alike.
            let step = if bit.is_multiple_of(8) && to - at >= 8 && (byte == 0 || byte == 0xff) {
                8
            } else {
                1
            };
            if byte >> (bit % 8) & 1 == 0 {
                start.get_or_insert(at);
            } else if let Some(start) = start.take() {
                gap(start, at)?;
            }
            at += step;
        }
        start.map_or(Ok(()), |start| gap(start, to))
    }
}

/// How many groups there are, and where what describes them lies.
struct Plan {
    groups: u32,
    inodes_per_group: u32,
    block_bitmaps: u32,
    inode_bitmaps: u32,
    tables: u32,
    /// The block after everything.
    end: u32,
    blocks: u32,
}

impl Plan {
    /// Plans for data up to block `start` and that many inodes.
    fn new(start: u32, inodes: u32) -> Result<Self> {
        let mut groups = start.div_ceil(GROUP_BLOCKS).max(inodes.div_ceil(GROUP_BLOCKS)).max(1);
        loop {
            let inodes_per_group = inodes.div_ceil(groups).next_multiple_of(INODES_A_BLOCK);
            let tables = u64::from(start) + 2 * u64::from(groups);
            let end = tables + u64::from(groups) * u64::from(inodes_per_group / INODES_A_BLOCK);
            // Whole megabytes; and as many groups as the inodes need.
            let blocks = end
                .next_multiple_of(256)
                .max(u64::from(groups - 1) * u64::from(GROUP_BLOCKS) + 256);
            if blocks > MAX_BLOCKS {
                return Err(Error::failed("the data does not fit on a disk of 4 TiB"));
            }
            let needed = blocks.div_ceil(u64::from(GROUP_BLOCKS)) as u32;
            if needed == groups {
                return Ok(Self {
                    groups,
                    inodes_per_group,
                    block_bitmaps: start,
                    inode_bitmaps: start + groups,
                    tables: tables as u32,
                    end: end as u32,
                    blocks: blocks as u32,
                });
            }
            groups = needed;
        }
    }

    fn table_blocks(&self) -> u32 {
        self.inodes_per_group / INODES_A_BLOCK
    }

    fn descriptor_blocks(&self) -> u32 {
        self.groups.div_ceil(DESCRIPTORS_A_BLOCK)
    }
}
