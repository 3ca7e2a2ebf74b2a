//! Where the content of files goes while it comes: straight onto the disk, block after block.

use crate::SEED;
use crate::extent::{Extent, MAX_LENGTH};
use crate::layout::BLOCK;
use crate::place::Places;
use crate::xattr;
use banger_doc::{Context, Error, Result};
use nix::errno::Errno;
use nix::sys::uio::pwritev;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;

/// Small files are collected up to this many bytes before they are written.
const BATCH: usize = 1 << 20;
/// Data at least this long is written from where it is, after what was collected.
const DIRECT: usize = 64 << 10;
/// Fewer zero blocks than this within data are kept as data, so that a file has few extents.
const HOLE: u32 = 16;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A string in a [`Store`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Text {
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

impl Text {
    /// Says whether it is the empty string.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }
}

/// A file's extents in a [`Store`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Span {
    pub(crate) start: u32,
    pub(crate) count: u32,
}

/// An entry's extended attributes in a [`Store`]; the default is none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Xattrs(u32);

/// What something is. What a store keeps of it is in the store that it came with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Body {
    /// A directory.
    Directory,
    /// A file whose content is on the disk.
    File {
        /// Its size in bytes.
        size: u64,
        /// Where its content lies.
        span: Span,
    },
    /// A symbolic link.
    Symlink(Text),
    /// A character device.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Attributes as they were written.
#[derive(Debug)]
pub(crate) struct Attributes {
    pub(crate) inline: Box<[u8]>,
    pub(crate) block: u32,
}

/// What one source brought, apart from the content that is on the disk already.
#[derive(Debug, Default)]
pub struct Store {
    text: Vec<u8>,
    extents: Vec<Extent>,
    attributes: Vec<Attributes>,
    /// The stretches of the disk that were written to.
    pub(crate) written: Vec<(u32, u32)>,
}

impl Store {
    /// Keeps a string.
    pub fn keep(&mut self, text: &[u8]) -> Text {
        let kept = Text { offset: self.text.len() as u32, length: text.len() as u32 };
        self.text.extend_from_slice(text);
        kept
    }

    /// Returns a string.
    pub fn text(&self, text: Text) -> &[u8] {
        &self.text[text.offset as usize..][..text.length as usize]
    }

    pub(crate) fn extents(&self, span: Span) -> &[Extent] {
        &self.extents[span.start as usize..][..span.count as usize]
    }

    pub(crate) fn attributes(&self, xattrs: Xattrs) -> Option<&Attributes> {
        self.attributes.get((xattrs.0 as usize).checked_sub(1)?)
    }
}

/// Puts the content of one source's files on the disk. Several sources may work at the same time.
pub struct Source<'f> {
    file: &'f File,
    places: Places,
    index: usize,
    turn: u64,
    /// What this source brought so far.
    pub store: Store,
    same: HashMap<Vec<u8>, u32>,
    inline_bytes: u64,
    blocks_written: u64,

    /// Blocks that are placed but not written; they end at `next`.
    batch: Vec<u8>,
    next: u32,
    end: u32,

    /// The file in hand: its first extent, its next block, zero blocks held back, the last few bytes.
    first: usize,
    logical: u64,
    zeros: u32,
    partial: Vec<u8>,
}

impl<'f> Source<'f> {
    pub(crate) fn new(file: &'f File, places: Places, index: usize) -> Self {
        Self {
            file,
            places,
            index,
            turn: 0,
            store: Store::default(),
            same: HashMap::new(),
            inline_bytes: 0,
            blocks_written: 0,
            batch: Vec::new(),
            next: 0,
            end: 0,
            first: 0,
            logical: 0,
            zeros: 0,
            partial: Vec::with_capacity(BLOCK),
        }
    }

    /// Returns how many bytes this source has put on the disk.
    pub fn bytes_written(&self) -> u64 {
        self.blocks_written * BLOCK as u64
    }

    /// Returns how many separate stretches of data there are.
    pub fn extents(&self) -> usize {
        self.store.extents.len()
    }

    /// Returns how many bytes of strings and attributes are kept in memory.
    pub fn kept_bytes(&self) -> u64 {
        self.store.text.len() as u64 + self.inline_bytes
    }

    /// Adds to the content of the file in hand.
    pub fn write(&mut self, mut data: &[u8]) -> Result<()> {
        if !self.partial.is_empty() {
            let taken = data.len().min(BLOCK - self.partial.len());
            self.partial.extend_from_slice(&data[..taken]);
            data = &data[taken..];
            if self.partial.len() < BLOCK {
                return Ok(());
            }
            let block = std::mem::take(&mut self.partial);
            self.blocks(&block)?;
            self.partial = block;
            self.partial.clear();
        }
        let whole = data.len() / BLOCK * BLOCK;
        self.blocks(&data[..whole])?;
        self.partial.extend_from_slice(&data[whole..]);
        Ok(())
    }

    /// Adds zeros to the content of the file in hand, as a hole where they fill blocks.
    pub fn skip(&mut self, mut bytes: u64) -> Result<()> {
        if !self.partial.is_empty() {
            let taken = bytes.min((BLOCK - self.partial.len()) as u64);
            self.write(&ZEROS[..taken as usize])?;
            bytes -= taken;
        }
        let blocks = bytes / BLOCK as u64;
        if blocks > 0 {
            self.logical += u64::from(self.zeros) + blocks;
            self.zeros = 0;
        }
        self.write(&ZEROS[..(bytes % BLOCK as u64) as usize])
    }

    /// Ends the file in hand, which has `size` bytes; what follows is the next one's.
    pub fn end(&mut self, size: u64) -> Result<Body> {
        if !self.partial.is_empty() {
            let missing = BLOCK - self.partial.len();
            self.write(&ZEROS[..missing])?;
        }
        // Zeros at the end are a hole of any length.
        let span = Span {
            start: self.first as u32,
            count: (self.store.extents.len() - self.first) as u32,
        };
        let blocks = self.logical + u64::from(self.zeros);
        debug_assert_eq!(blocks, size.div_ceil(BLOCK as u64));
        self.first = self.store.extents.len();
        self.logical = 0;
        self.zeros = 0;
        if blocks > u64::from(u32::MAX) {
            return Err(Error::failed("a file cannot have 16 TiB or more"));
        }
        Ok(Body::File { size, span })
    }

    /// Keeps extended attributes, given as system calls know them.
    pub fn xattrs(&mut self, attributes: &[(&[u8], &[u8])]) -> Result<Xattrs> {
        if attributes.is_empty() {
            return Ok(Xattrs::default());
        }
        let mut encoded = xattr::encode(attributes)?;
        let mut block = 0;
        if encoded.block.is_empty() {
            if let Some(found) = self.same.get(&encoded.inline) {
                return Ok(Xattrs(*found));
            }
        } else {
            self.room()?;
            block = self.next;
            xattr::seal(&mut encoded.block, SEED, block);
            self.put(&encoded.block)?;
        }
        self.inline_bytes += encoded.inline.len() as u64 + 32;
        self.store.attributes.push(Attributes { inline: encoded.inline.clone().into(), block });
        let number = self.store.attributes.len() as u32;
        if block == 0 {
            self.inline_bytes += encoded.inline.len() as u64;
            self.same.insert(encoded.inline, number);
        }
        Ok(Xattrs(number))
    }

    /// Writes what is held back and returns what the source brought.
    pub fn finish(mut self) -> Result<Store> {
        self.flush()?;
        self.leave();
        Ok(self.store)
    }

    /// Adds whole blocks to the file in hand.
    fn blocks(&mut self, data: &[u8]) -> Result<()> {
        let mut from = 0;
        for at in (0..data.len()).step_by(BLOCK) {
            if data[at..at + BLOCK] == ZEROS {
                self.data(&data[from..at])?;
                self.zeros += 1;
                from = at + BLOCK;
            }
        }
        self.data(&data[from..])
    }

    /// Adds whole blocks that are not zero to the file in hand.
    fn data(&mut self, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let zeros = std::mem::take(&mut self.zeros);
        if zeros < HOLE {
            for _ in 0..zeros {
                self.map(&ZEROS)?;
            }
        } else {
            self.logical += u64::from(zeros);
        }
        self.map(data)
    }

    /// Places whole blocks and remembers where.
    fn map(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            self.room()?;
            let count = (data.len() / BLOCK).min((self.end - self.next) as usize);
            let (now, later) = data.split_at(count * BLOCK);
            data = later;
            self.extend(count as u32)?;
            self.put(now)?;
        }
        Ok(())
    }

    /// Remembers that the next blocks of the file in hand lie at `next`.
    fn extend(&mut self, count: u32) -> Result<()> {
        let (mut logical, mut physical, mut left) = (self.logical, self.next, count);
        self.logical += u64::from(count);
        if self.logical > u64::from(u32::MAX) {
            return Err(Error::failed("a file cannot have 16 TiB or more"));
        }
        if self.store.extents.len() > self.first {
            let last = self.store.extents.last_mut().expect("because there is one after the first");
            let joined = u64::from(last.logical) + u64::from(last.length) == logical
                && last.physical + u32::from(last.length) == physical;
            if joined {
                let more = left.min(u32::from(MAX_LENGTH - last.length));
                last.length += more as u16;
                logical += u64::from(more);
                physical += more;
                left -= more;
            }
        }
        while left > 0 {
            let length = left.min(u32::from(MAX_LENGTH));
            let extent = Extent { logical: logical as u32, physical, length: length as u16 };
            self.store.extents.push(extent);
            logical += u64::from(length);
            physical += length;
            left -= length;
        }
        Ok(())
    }

    /// Makes sure that the block at `next` is this source's.
    fn room(&mut self) -> Result<()> {
        if self.next < self.end {
            return Ok(());
        }
        let (start, length) = self.places.stretch(self.index, self.turn)?;
        self.turn += 1;
        if start != self.next {
            self.flush()?;
            self.leave();
            self.store.written.push((start, start));
        }
        self.next = start;
        self.end = start + length;
        Ok(())
    }

    /// Notes where the stretch that was written to ends.
    fn leave(&mut self) {
        if let Some(last) = self.store.written.last_mut() {
            last.1 = self.next;
        }
    }

    /// Puts blocks at `next`, which has room for them.
    fn put(&mut self, data: &[u8]) -> Result<()> {
        let count = data.len() / BLOCK;
        if data.len() >= DIRECT {
            self.flush_with(data)?;
        } else {
            self.batch.extend_from_slice(data);
        }
        self.next += count as u32;
        self.blocks_written += count as u64;
        if self.batch.len() >= BATCH {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.flush_with(&[])
    }

    /// Writes the batch and what comes after it, from where both are.
    fn flush_with(&mut self, data: &[u8]) -> Result<()> {
        let batch = &self.batch;
        let start = self.next - (batch.len() / BLOCK) as u32;
        let offset = u64::from(start) * BLOCK as u64;
        let mut done = 0;
        if !batch.is_empty() && !data.is_empty() {
            let both = [IoSlice::new(batch), IoSlice::new(data)];
            done = match pwritev(self.file, &both, offset as i64) {
                Err(Errno::EINTR) => 0,
                result => result.map_err(io::Error::from).context("cannot write the disk")?,
            };
        }
        let mut at = 0;
        for part in [batch.as_slice(), data] {
            let rest = &part[done.saturating_sub(at).min(part.len())..];
            let from = offset + (at + part.len() - rest.len()) as u64;
            self.file.write_all_at(rest, from).context("cannot write the disk")?;
            at += part.len();
        }
        self.batch.clear();
        Ok(())
    }
}
