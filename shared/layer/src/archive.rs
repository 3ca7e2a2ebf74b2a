//! Archives that are no layers but hold some, as `docker save` writes them.

use crate::Progress;
use crate::inflate::Inflate;
use crate::limits::{Limits, over};
use crate::stream::Counted;
use banger_doc::{Context, Error, Result};
use banger_tar::{Input, Kind, Reader, shown};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes that are unpacked at a time, and looked at for zeros.
const PIECE: usize = 64 << 10;
/// Bytes of an archive that are read at a time.
const READ: usize = 32 << 10;
/// What may be written before the ratio to what was read is looked at.
const FREE: u64 = 256 << 20;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// What an archive has under a name. Directories, devices and pipes are not told of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Member<'a> {
    /// A file, and where in the archive its content lies.
    File {
        /// The first byte.
        offset: u64,
        /// How many bytes.
        size: u64,
    },
    /// A symbolic link with this target.
    Symlink(&'a [u8]),
    /// One more name of what is at this path.
    Hardlink(&'a [u8]),
}

/// Writes what is read to a file that is empty, without what packs it. Long runs of zeros become
/// holes. The limits on bytes and on growth hold.
pub fn unpack(
    input: Box<dyn Read + Send>,
    output: &File,
    limits: &Limits,
    progress: &Progress,
) -> Result<()> {
    let came = AtomicU64::new(0);
    let mut inflate = Inflate::new(Counted { input, here: &came }, limits)?;
    let mut piece = vec![0; PIECE];
    let (mut at, mut written) = (0, 0);
    loop {
        let count = inflate.fill(&mut piece)?;
        let bytes = &piece[..count];
        if at + count as u64 > limits.bytes {
            return Err(over(format!("it has more than {} bytes when unpacked", limits.bytes)));
        }
        if *bytes != ZEROS[..count] {
            written += count as u64;
            if written > FREE && written / limits.ratio > came.load(Relaxed) {
                return Err(over(format!(
                    "it grows to more than {} times of what it came as",
                    limits.ratio
                )));
            }
            output.write_all_at(bytes, at).context("cannot write what it unpacks to")?;
        }
        at += count as u64;
        progress.bytes_in.store(came.load(Relaxed), Relaxed);
        progress.bytes_out.fetch_add(count as u64, Relaxed);
        if count < PIECE {
            return output.set_len(at).context("cannot write what it unpacks to");
        }
    }
}

/// Tells of every file and link in an archive that is not packed, in their order. Contents are
/// passed over.
pub fn members(
    archive: &File,
    limits: &Limits,
    mut found: impl FnMut(&[u8], Member<'_>) -> Result<()>,
) -> Result<()> {
    let length = archive.metadata().context("it cannot be read")?.len();
    let input =
        Skipping { file: archive, length, base: 0, buffer: vec![0; READ], start: 0, end: 0 };
    let mut reader = Reader::new(input, limits.of_an_archive());
    let (mut count, mut names) = (0, 0);
    while reader.advance()? {
        let entry = reader.entry();
        count += 1;
        names += (entry.path.len() + entry.link.len()) as u64;
        if count > limits.entries {
            return Err(over(format!("it has more than {} entries", limits.entries)));
        }
        if names > limits.name_bytes {
            return Err(over(format!("it has more than {} bytes of names", limits.name_bytes)));
        }
        let member = match entry.kind {
            Kind::File if entry.pieces.is_some() => {
                return Err(Error::failed(format!(
                    "the file '{}' in it is stored as a sparse one",
                    shown(&entry.path)
                )));
            }
            Kind::File => Member::File { offset: reader.input().position(), size: entry.size },
            Kind::Symlink => Member::Symlink(&entry.link),
            Kind::Hardlink => Member::Hardlink(&entry.link),
            Kind::Directory | Kind::Character | Kind::Block | Kind::Fifo => continue,
        };
        found(&entry.path, member)?;
    }
    Ok(())
}

/// Reads a file and passes over parts of it without reading them.
struct Skipping<'f> {
    file: &'f File,
    length: u64,
    /// Where in the file the buffer's bytes are from.
    base: u64,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Skipping<'_> {
    fn position(&self) -> u64 {
        self.base + self.start as u64
    }
}

impl Input for Skipping<'_> {
    fn fill(&mut self) -> Result<&[u8]> {
        if self.start == self.end {
            (self.base, self.start) = (self.position(), 0);
            self.end =
                self.file.read_at(&mut self.buffer, self.base).context("it cannot be read")?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }

    fn skip(&mut self, count: u64) -> Result<bool> {
        if count <= (self.end - self.start) as u64 {
            self.start += count as usize;
            return Ok(true);
        }
        let Some(to) = self.position().checked_add(count).filter(|to| *to <= self.length) else {
            return Ok(false);
        };
        (self.base, self.start, self.end) = (to, 0, 0);
        Ok(true)
    }
}
