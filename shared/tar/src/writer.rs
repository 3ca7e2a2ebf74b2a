//! Writes archives that can be read in one way only: GNU headers, long names before them, numbers in
//! octal as far as there is room; nothing that a reader may know or not know, but for holes.

use crate::header::{BLOCK, sum};
use crate::limits::shown;
use crate::{Entry, Kind, Pieces};
use banger_doc::{Context, Error, Result};
use std::io::Write;

const GNU: [u8; 8] = *b"ustar  \0";
const POSIX: [u8; 8] = *b"ustar\x0000";
/// Bytes of a name that a header has room for.
const NAME: usize = 100;
/// Pieces of a sparse file's map in a header of the GNU kind, and in each block after it.
const IN_HEADER: usize = 4;
const IN_BLOCK: usize = 21;

/// How files with holes are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holes {
    /// As GNU tar's own format has it, the map in headers. Who does not know it may take the map for
    /// the headers of entries, so only those get it who do.
    Gnu,
    /// As GNU tar has it in POSIX archives, the map before the content. Who does not know it finds
    /// both in a file of another name.
    Posix,
}

/// Writes an archive, entry after entry.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    holes: Holes,
    /// Content of the entry in hand that was not written, and the padding after it.
    left: u64,
    padding: usize,
    head: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes from where the output stands.
    pub fn new(to: W, holes: Holes) -> Self {
        Self { to, holes, left: 0, padding: 0, head: Vec::new() }
    }

    /// Begins an entry, but with this path and link. Nanoseconds and attributes are left out. A file's
    /// content has to follow, of a sparse file what the pieces have.
    pub fn entry(&mut self, path: &[u8], link: &[u8], entry: &Entry) -> Result<()> {
        self.padded()?;
        self.head.clear();
        if path.contains(&0) || link.contains(&0) || path.is_empty() {
            return Err(Error::failed(format!("no archive can have the name '{}'", shown(path))));
        }
        let stored = match &entry.pieces {
            _ if entry.kind != Kind::File => 0,
            None => {
                self.named(path, b"");
                self.head(GNU, kind(entry.kind), path, b"", entry.size, entry);
                entry.size
            }
            Some(pieces) => {
                let pieces = mapped(pieces, entry.size);
                match self.holes {
                    Holes::Gnu => self.gnu_holes(path, entry, &pieces)?,
                    Holes::Posix => self.posix_holes(path, entry, &pieces),
                }
            }
        };
        if entry.kind != Kind::File {
            let link: &[u8] =
                if matches!(entry.kind, Kind::Hardlink | Kind::Symlink) { link } else { b"" };
            self.named(path, link);
            self.head(GNU, kind(entry.kind), path, link, 0, entry);
        }
        self.left = stored;
        self.padding = (stored.next_multiple_of(BLOCK as u64) - stored) as usize;
        self.to.write_all(&self.head).context("cannot write an archive")
    }

    /// Writes content of the entry in hand.
    pub fn content(&mut self, bytes: &[u8]) -> Result<()> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| Error::failed("a file is longer than was told"))?;
        self.to.write_all(bytes).context("cannot write an archive")
    }

    /// Writes the end.
    pub fn finish(mut self) -> Result<W> {
        self.padded()?;
        self.to.write_all(&[0; 2 * BLOCK]).context("cannot write an archive")?;
        Ok(self.to)
    }

    /// Ends the entry in hand.
    fn padded(&mut self) -> Result<()> {
        if self.left > 0 {
            return Err(Error::failed("a file is shorter than was told"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.to.write_all(&[0; BLOCK][..padding]).context("cannot write an archive")
    }

    /// Adds long names.
    fn named(&mut self, path: &[u8], link: &[u8]) {
        for (kind, name) in [(b'K', link), (b'L', path)] {
            if name.len() > NAME {
                let none = Entry::default();
                self.head(GNU, kind, b"././@LongLink", b"", name.len() as u64 + 1, &none);
                self.head.extend_from_slice(name);
                // At least one zero: the name's end.
                self.head.resize((self.head.len() + 1).next_multiple_of(BLOCK), 0);
            }
        }
    }

    /// Adds a header.
    fn head(
        &mut self,
        magic: [u8; 8],
        kind: u8,
        path: &[u8],
        link: &[u8],
        size: u64,
        entry: &Entry,
    ) {
        let mut b = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &path[..path.len().min(NAME)]);
        put(100, &number::<8>(i64::from(entry.mode & 0o7777)));
        put(108, &number::<8>(i64::from(entry.uid)));
        put(116, &number::<8>(i64::from(entry.gid)));
        put(124, &number::<12>(i64::try_from(size).unwrap_or(i64::MAX)));
        put(136, &number::<12>(entry.seconds));
        put(156, &[kind]);
        put(157, &link[..link.len().min(NAME)]);
        put(257, &magic);
        if matches!(entry.kind, Kind::Character | Kind::Block) {
            put(329, &number::<8>(i64::try_from(entry.device.0).unwrap_or(i64::MAX)));
            put(337, &number::<8>(i64::try_from(entry.device.1).unwrap_or(i64::MAX)));
        }
        sum(&mut b);
        self.head.extend_from_slice(&b);
    }

    /// Adds the headers of a sparse file in the GNU format; returns how much is stored of it.
    fn gnu_holes(&mut self, path: &[u8], entry: &Entry, pieces: &Pieces) -> Result<u64> {
        let stored = pieces.iter().map(|(_, length)| length).sum();
        self.named(path, b"");
        let at = self.head.len();
        self.head(GNU, b'S', path, b"", stored, entry);
        let fill = |field: &mut [u8], pieces: &[(u64, u64)]| -> Result<()> {
            for (slot, (offset, length)) in field.chunks_exact_mut(24).zip(pieces) {
                slot[..12].copy_from_slice(&positive(*offset)?);
                slot[12..].copy_from_slice(&positive(*length)?);
            }
            Ok(())
        };
        let (first, rest) = pieces.split_at(pieces.len().min(IN_HEADER));
        let head: &mut [u8; BLOCK] =
            (&mut self.head[at..]).try_into().expect("because it is one header");
        fill(&mut head[386..482], first)?;
        head[482] = u8::from(!rest.is_empty());
        head[483..495].copy_from_slice(&positive(entry.size)?);
        sum(head);
        for (number, part) in rest.chunks(IN_BLOCK).enumerate() {
            let mut block = [0; BLOCK];
            fill(&mut block[..504], part)?;
            block[504] = u8::from((number + 1) * IN_BLOCK < rest.len());
            self.head.extend_from_slice(&block);
        }
        Ok(stored)
    }

    /// Adds the headers and the map of a sparse file of POSIX archives; returns how much is stored
    /// of it.
    fn posix_holes(&mut self, path: &[u8], entry: &Entry, pieces: &Pieces) -> u64 {
        let mut records = Vec::new();
        record(&mut records, "GNU.sparse.major", b"1");
        record(&mut records, "GNU.sparse.minor", b"0");
        if std::str::from_utf8(path).is_err() {
            record(&mut records, "hdrcharset", b"BINARY");
        }
        record(&mut records, "GNU.sparse.name", path);
        record(&mut records, "GNU.sparse.realsize", entry.size.to_string().as_bytes());
        let none = Entry::default();
        self.head(POSIX, b'x', b"././@PaxHeader", b"", records.len() as u64, &none);
        self.head.extend_from_slice(&records);
        self.head.resize(self.head.len().next_multiple_of(BLOCK), 0);
        let mut map = format!("{}\n", pieces.len()).into_bytes();
        for (offset, length) in pieces {
            map.extend_from_slice(format!("{offset}\n{length}\n").as_bytes());
        }
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        let stored: u64 = pieces.iter().map(|(_, length)| length).sum();
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let other = [b"GNUSparseFile.0/", &last[..last.len().min(80)]].concat();
        self.head(POSIX, b'0', &other, b"", map.len() as u64 + stored, entry);
        self.head.extend_from_slice(&map);
        stored
    }
}

/// Returns a map without what is empty, up to the end of the file: where data ends before it, some
/// readers want to be told.
fn mapped(pieces: &Pieces, size: u64) -> Pieces {
    let mut mapped: Pieces = pieces.iter().filter(|(_, length)| *length > 0).copied().collect();
    if mapped.last().is_none_or(|(offset, length)| offset + length < size) {
        mapped.push((size, 0));
    }
    mapped
}

fn kind(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::Hardlink => b'1',
        Kind::Symlink => b'2',
        Kind::Character => b'3',
        Kind::Block => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// Writes a number: octal where there is room, binary where there is not.
fn number<const N: usize>(value: i64) -> [u8; N] {
    let mut field = [0; N];
    if value >= 0 && value < 1 << (3 * (N - 1)) {
        let mut rest = value;
        for digit in field[..N - 1].iter_mut().rev() {
            *digit = b'0' + (rest & 7) as u8;
            rest >>= 3;
        }
        return field;
    }
    let fill = if value < 0 { 0xff } else { 0 };
    field.fill(fill);
    let bytes = value.to_be_bytes();
    let room = bytes.len().min(N - 1);
    field[N - room..].copy_from_slice(&bytes[bytes.len() - room..]);
    field[0] = fill | 0x80;
    field
}

fn positive(value: u64) -> Result<[u8; 12]> {
    let value = i64::try_from(value);
    value.map(number::<12>).map_err(|_| Error::failed("a sparse file has no end"))
}

/// Adds a record: its length counts itself.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length += 1;
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}
