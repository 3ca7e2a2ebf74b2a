//! Where the content of an inode lies: extents, block maps, or the inode itself.

use crate::{
    bytes::{u16_at, u32_at},
    damaged,
    disk::Disk,
    inode::{EXTENTS, Inode, MAP, Sort},
    unknown,
};
use std::io::{Read, Result};

/// As deep as a tree of extents is (`EXT4_MAX_EXTENT_DEPTH` of Linux).
const MAX_DEPTH: u16 = 5;
const MAGIC: u16 = 0xf30a;
/// Longer than this, and the rest of the number says that nothing was written yet.
const WRITTEN: u32 = 32_768;
/// Blocks that the inode names itself, in the older form.
const DIRECT: u64 = 12;
/// The most bytes of a link, as in Linux.
const MAX_TARGET: u64 = 4096;
/// The most bytes that are read of what lies in an inode: no inode is larger, and no attribute.
const MAX_INLINE: usize = 68 << 10;

/// A stretch of content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Run {
    /// Its first block within the content.
    pub(crate) logical: u64,
    /// How many blocks; at least one.
    pub(crate) blocks: u64,
    /// Where it lies; nothing where there are zeros.
    pub(crate) physical: Option<u64>,
}

/// Blocks of a tree that were read last, so that the next run needs no reading.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// By how deep what lies below them is.
    nodes: [Option<(u64, Vec<u8>)>; MAX_DEPTH as usize],
}

impl Disk {
    /// Returns the stretch of content that a block belongs to, from that block on.
    pub(crate) fn run(&self, inode: &Inode, logical: u64, walk: &mut Walk) -> Result<Run> {
        if inode.flags & EXTENTS == 0 {
            return self.mapped(inode, logical);
        }
        let wanted = u32::try_from(logical).map_err(|_| damaged("a file that is too long"))?;
        // How far what was found counts: a hole ends where something else begins.
        let mut end = 1_u64 << 32;
        let mut depth = None;
        let mut node: &[u8] = &inode.map;
        loop {
            let header = |at: usize| u16_at(node, at).ok_or_else(|| damaged("an extent tree"));
            let (count, below) = (usize::from(header(2)?), header(6)?);
            let is_next = depth.is_none_or(|above: u16| above.checked_sub(1) == Some(below));
            if header(0)? != MAGIC || below > MAX_DEPTH || !is_next || 12 + 12 * count > node.len()
            {
                return Err(damaged("an extent tree"));
            }
            let key = |slot: usize| u32_at(node, 12 + 12 * slot).unwrap_or(0);
            // The last entry that does not begin later.
            let (mut from, mut to) = (0, count);
            while from < to {
                let middle = from.midpoint(to);
                if key(middle) <= wanted { from = middle + 1 } else { to = middle }
            }
            if from < count {
                end = end.min(u64::from(key(from)));
            }
            let hole = |end: u64| Run {
                logical,
                blocks: end.saturating_sub(logical).max(1),
                physical: None,
            };
            let Some(slot) = from.checked_sub(1) else { return Ok(hole(end)) };
            let at = 12 + 12 * slot;
            let short = || damaged("an extent tree");
            if below == 0 {
                let first = u64::from(key(slot));
                let length = u32::from(u16_at(node, at + 4).ok_or_else(short)?);
                let (length, is_written) =
                    if length > WRITTEN { (length - WRITTEN, false) } else { (length, true) };
                let inside = logical - first;
                if inside >= u64::from(length) {
                    return Ok(hole(end));
                }
                let high = u64::from(u16_at(node, at + 6).ok_or_else(short)?);
                let low = u64::from(u32_at(node, at + 8).ok_or_else(short)?);
                let physical = (high << 32 | low) + inside;
                return Ok(Run {
                    logical,
                    blocks: u64::from(length) - inside,
                    physical: is_written.then_some(physical),
                });
            }
            let low = u64::from(u32_at(node, at + 4).ok_or_else(short)?);
            let high = u64::from(u16_at(node, at + 8).ok_or_else(short)?);
            let block = high << 32 | low;
            depth = Some(below);
            let kept = &mut walk.nodes[usize::from(below - 1)];
            if kept.as_ref().is_none_or(|(of, _)| *of != block) {
                *kept = Some((block, self.block(block)?));
            }
            node = kept.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        }
    }

    /// The same in the older form: blocks of numbers of blocks.
    fn mapped(&self, inode: &Inode, logical: u64) -> Result<Run> {
        let one = |number: u32| Run {
            logical,
            blocks: 1,
            physical: (number != 0).then_some(u64::from(number)),
        };
        let number = |bytes: &[u8], slot: u64| {
            u32_at(bytes, slot as usize * 4).ok_or_else(|| damaged("a block map"))
        };
        if logical < DIRECT {
            return number(&inode.map, logical).map(one);
        }
        let each = u64::from(self.block) / 4;
        let mut rest = logical - DIRECT;
        let mut span = 1_u64;
        for level in 1..=3_u32 {
            let room = span * each;
            if rest >= room {
                rest -= room;
                span = room;
                continue;
            }
            let mut at = number(&inode.map, DIRECT + u64::from(level) - 1)?;
            while at != 0 {
                let node = self.block(u64::from(at))?;
                at = number(&node, rest / span)?;
                if span == 1 {
                    return Ok(one(at));
                }
                rest %= span;
                span /= each;
            }
            return Ok(one(0));
        }
        Err(damaged("a file that is too long"))
    }

    /// Returns the content of a file.
    pub fn content<'a>(&'a self, inode: &'a Inode) -> Result<Content<'a>> {
        if inode.is_encrypted() {
            return Err(unknown("it is encrypted".into()));
        }
        let inline = inode.is_inline().then(|| self.inline(inode)).transpose()?;
        Ok(Content { disk: self, inode, at: 0, run: None, walk: Walk::default(), inline })
    }

    /// Returns what lies in an inode itself: the room of its map, and an attribute with the rest.
    pub(crate) fn inline(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut all = inode.map.to_vec();
        if let Some(rest) = self.attribute(inode, b"system.data")? {
            all.extend_from_slice(&rest);
        }
        if all.len() > MAX_INLINE {
            return Err(damaged("an inode's content"));
        }
        Ok(all)
    }

    /// Returns where a link leads.
    pub fn target(&self, inode: &Inode) -> Result<Vec<u8>> {
        if inode.sort != Sort::Link || inode.size > MAX_TARGET {
            return Err(damaged("a link"));
        }
        let size = inode.size as usize;
        if size < MAP && !inode.is_inline() && !inode.is_encrypted() {
            return Ok(inode.map[..size].to_vec());
        }
        let mut target = Vec::with_capacity(size);
        self.content(inode)?.read_to_end(&mut target)?;
        Ok(target)
    }

    /// Returns which stretches of a file hold anything, as offset and length in bytes, in order; nothing if
    /// there are more than `most`.
    pub fn data(&self, inode: &Inode, most: usize) -> Result<Option<Vec<(u64, u64)>>> {
        if inode.is_inline() {
            let size = inode.size.min(self.inline(inode)?.len() as u64);
            return Ok(Some(if size == 0 { Vec::new() } else { vec![(0, size)] }));
        }
        let block = u64::from(self.block);
        let end = inode.size.div_ceil(block);
        let mut walk = Walk::default();
        let mut found: Vec<(u64, u64)> = Vec::new();
        let (mut at, mut steps) = (0, 0);
        while at < end {
            steps += 1;
            if found.len() > most || steps > most.saturating_mul(8) {
                return Ok(None);
            }
            let run = self.run(inode, at, &mut walk)?;
            let next = at.saturating_add(run.blocks).min(end);
            if run.physical.is_some() {
                let (from, to) = (at * block, (next * block).min(inode.size));
                match found.last_mut() {
                    Some((start, length)) if *start + *length == from => *length += to - from,
                    _ => found.push((from, to - from)),
                }
            }
            at = next;
        }
        Ok(Some(found))
    }
}

/// The content of a file, read in order.
#[derive(Debug)]
pub struct Content<'a> {
    disk: &'a Disk,
    inode: &'a Inode,
    at: u64,
    run: Option<Run>,
    walk: Walk,
    inline: Option<Vec<u8>>,
}

impl Content<'_> {
    /// Goes on at another place.
    pub fn seek(&mut self, at: u64) {
        self.at = at;
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = self.inode.size.saturating_sub(self.at);
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..most];
        if buffer.is_empty() {
            return Ok(0);
        }
        if let Some(inline) = &self.inline {
            let start = usize::try_from(self.at).unwrap_or(usize::MAX);
            // What its file is longer is a hole.
            let part = inline.get(start..).unwrap_or_default();
            let count = if part.is_empty() { buffer.len() } else { part.len().min(buffer.len()) };
            buffer[..count].fill(0);
            let held = part.len().min(count);
            buffer[..held].copy_from_slice(&part[..held]);
            self.at += count as u64;
            return Ok(count);
        }
        let block = u64::from(self.disk.block);
        let logical = self.at / block;
        let run = match self.run {
            Some(run) if (run.logical..run.logical + run.blocks).contains(&logical) => run,
            _ => self.disk.run(self.inode, logical, &mut self.walk)?,
        };
        self.run = Some(run);
        let inside = self.at - run.logical * block;
        let rest = (run.blocks * block).saturating_sub(inside);
        let count = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        match run.physical {
            None => buffer[..count].fill(0),
            Some(physical) => self.disk.read(physical, inside, &mut buffer[..count])?,
        }
        self.at += count as u64;
        Ok(count)
    }
}
