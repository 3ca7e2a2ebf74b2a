//! A strict reader of tar archives: v7, POSIX with extended headers, GNU with long names and
//! sparse files, numbers in octal or binary. What could be read in two ways is refused: whatever
//! this reader takes, GNU tar, bsdtar, busybox and Python list the same. Where one of them reads
//! wrongly what GNU tar itself writes, it is taken all the same: busybox knows no sparse files and no
//! size beyond 8 GiB in an extended header, Python calls some sparse files by their other name.

use crate::Pieces;
use crate::header::{BLOCK, Dialect, Header, more_sparse, text};
use crate::input::Input;
use crate::limits::{Limits, shown};
use crate::pax;
use banger_doc::{Context, Error, Result};

/// The largest size that a header has room for in octal digits.
const OCTAL_MAX: u64 = 0o777_7777_7777;
/// Pieces of data in one sparse file.
const MAX_PIECES: usize = 1 << 18;

/// What an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A regular file, the only one that has content.
    File,
    /// One more name of what came before.
    Hardlink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// An entry, but for its content.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The path as it was written: hostile.
    pub path: Vec<u8>,
    /// Where a link leads, as it was written.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u16,
    /// Who owns it.
    pub uid: u32,
    /// The group that owns it.
    pub gid: u32,
    /// When its content changed, in seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds above that.
    pub nanos: u32,
    /// A device's numbers, major and minor.
    pub device: (u64, u64),
    /// The size of the file, holes included, in bytes.
    pub size: u64,
    /// Where in the file the content lies; nothing when it is all there.
    pub pieces: Option<Pieces>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            path: Vec::new(),
            link: Vec::new(),
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            seconds: 0,
            nanos: 0,
            device: (0, 0),
            size: 0,
            pieces: None,
            xattrs: Vec::new(),
        }
    }
}

/// What an extended header says about the entry after it.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    time: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Sparse,
}

/// What an extended header says about a sparse file.
#[derive(Default)]
struct Sparse {
    /// The real name; the other one is for programs that know no sparse files.
    name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    count: Option<u64>,
    numbers: Vec<u64>,
    any: bool,
}

/// Reads an archive, entry after entry.
pub struct Reader<I> {
    input: I,
    limits: Limits,
    /// Content of the entry in hand that was not read, and the padding after it.
    left: u64,
    padding: u64,
    /// The entry in hand; its buffers are used again.
    entry: Entry,
    done: bool,
}

impl<I: Input> Reader<I> {
    /// Reads from where the input stands.
    pub fn new(input: I) -> Self {
        Self::with(input, Limits::USUAL)
    }

    /// Reads from where the input stands, by bounds that somebody chose.
    pub fn with(input: I, limits: Limits) -> Self {
        Self { input, limits, left: 0, padding: 0, entry: Entry::default(), done: false }
    }

    /// Returns the entry in hand.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Returns where the entry's content comes from next.
    pub fn input(&self) -> &I {
        &self.input
    }

    /// Goes to the next entry; says whether there is one.
    pub fn advance(&mut self) -> Result<bool> {
        if self.done {
            return Ok(false);
        }
        self.pass(self.left + self.padding)?;
        (self.left, self.padding) = (0, 0);
        let mut extended: Option<Extended> = None;
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let pending = extended.is_some() || long_name.is_some() || long_link.is_some();
            let mut block = [0; BLOCK];
            if !self.header(&mut block)? {
                if pending {
                    return Err(Error::failed(
                        "the archive ends before the entry that was announced",
                    ));
                }
                self.done = true;
                return Ok(false);
            }
            let header = Header::new(&block)?;
            let twice = |what| Err(Error::failed(format!("an entry has two {what}")));
            match header.kind() {
                b'x' if extended.is_some() => return twice("extended headers"),
                b'g' if pending => {
                    return Err(Error::failed("a header for all entries stands before one's own"));
                }
                b'L' if long_name.is_some() => return twice("long names"),
                b'K' if long_link.is_some() => return twice("long link targets"),
                b'x' => {
                    let body = self.small(header.size()?)?;
                    extended = Some(Extended::read(&body, &self.limits)?);
                }
                b'g' => {
                    let body = self.small(header.size()?)?;
                    pax::records(&body, for_all)?;
                }
                b'L' => long_name = Some(self.long(header.size()?)?),
                b'K' => long_link = Some(self.long(header.size()?)?),
                _ => {
                    self.take(&header, extended.unwrap_or_default(), long_name, long_link)?;
                    return Ok(true);
                }
            }
        }
    }

    /// Hands on the content of the entry in hand, in pieces as they come.
    pub fn content(&mut self, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while self.left > 0 {
            let bytes = self.input.fill()?;
            if bytes.is_empty() {
                return Err(Error::failed("the archive ends within the content"));
            }
            let count = self.left.min(bytes.len() as u64) as usize;
            sink(&bytes[..count])?;
            self.input.consume(count);
            self.left -= count as u64;
        }
        Ok(())
    }

    /// Passes over everything to the end of the input.
    pub fn drain(mut self) -> Result<I> {
        loop {
            let count = self.input.fill()?.len();
            if count == 0 {
                return Ok(self.input);
            }
            self.input.consume(count);
        }
    }

    /// Fills in the entry in hand.
    fn take(
        &mut self,
        header: &Header<'_>,
        mut extended: Extended,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<()> {
        let mut entry = std::mem::take(&mut self.entry);
        let twice = |what| Err(Error::failed(format!("an entry has two {what}")));
        // A sparse file has another name for who knows none of those, and may have it at length.
        let two_names = long_name.is_some() && (extended.sparse.any || extended.path.is_some());
        match long_name.or(extended.sparse.name.take()).or(extended.path.take()) {
            Some(path) => entry.path = path,
            None => header.name(&mut entry.path)?,
        }
        self.entry.path.clone_from(&entry.path);
        if two_names {
            return twice("names");
        }
        if long_link.is_some() && extended.link.is_some() {
            return twice("link targets");
        }
        entry.link = long_link.or(extended.link).unwrap_or_else(|| header.link().to_vec());
        let told = header.size()?;
        let mut stored = extended.size.unwrap_or(told);
        // Who does not know extended headers goes by the header; it has no room for larger ones.
        if stored != told && stored <= OCTAL_MAX {
            return twice("sizes");
        }
        let old_sparse = header.kind() == b'S';
        let slash = entry.path.ends_with(b"/");
        entry.kind = match header.kind() {
            // Before there were directories in archives, a slash told them apart.
            0 if slash
                && stored == 0
                && header.dialect() == Dialect::Old
                && header.short_name().ends_with(b"/") =>
            {
                Kind::Directory
            }
            0 | b'0' | b'7' | b'S' if slash => {
                return Err(Error::failed("a file's name ends with a slash"));
            }
            0 if header.short_name().ends_with(b"/") => {
                return Err(Error::failed("a file's short name ends with a slash"));
            }
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(Error::failed(format!(
                    "its type '{}' is not known",
                    other.escape_ascii()
                )));
            }
        };
        // As much as a header can say, and less than would fill its last block beyond all numbers.
        if stored > i64::MAX as u64 {
            return Err(Error::failed("its size is more than any file's"));
        }
        // Only files have content.
        if entry.kind != Kind::File && stored > 0 {
            if !self.limits.idle_sizes {
                return Err(Error::failed("it tells a size, but only files have content"));
            }
            stored = 0;
        }
        if matches!(entry.kind, Kind::Hardlink | Kind::Symlink) {
            if entry.link.is_empty() {
                return Err(Error::failed("it is a link without a target"));
            }
        } else if !entry.link.is_empty() {
            // busybox takes such a file for a hard link.
            return Err(Error::failed("it has a link's target and is none"));
        }
        if entry.path.is_empty() && entry.kind != Kind::Directory {
            return Err(Error::failed("it has no name"));
        }
        let dialect = header.dialect();
        let known = match (old_sparse, extended.sparse.any) {
            (false, false) => true,
            (true, false) => dialect == Dialect::Gnu,
            (false, true) => dialect == Dialect::Posix && entry.kind == Kind::File,
            (true, true) => false,
        };
        if !known {
            return Err(Error::failed("it is sparse in a way that is not known to all"));
        }
        entry.mode = (header.mode()? & 0o7777) as u16;
        entry.uid = owner("uid", extended.uid, header.uid())?;
        entry.gid = owner("gid", extended.gid, header.gid())?;
        (entry.seconds, entry.nanos) = match extended.time {
            Some(time) => time,
            None => (header.time()?, 0),
        };
        entry.device = match entry.kind {
            Kind::Character | Kind::Block => header.device()?,
            _ => (0, 0),
        };
        entry.xattrs = extended.xattrs;
        entry.size = stored;
        entry.pieces = None;
        self.left = stored;
        self.padding = stored.next_multiple_of(BLOCK as u64) - stored;
        if entry.kind == Kind::File {
            if old_sparse {
                let (size, pieces) = self.old_sparse(header)?;
                entry.size = size;
                entry.pieces = Some(pieces);
            } else if extended.sparse.any {
                let (size, pieces) = self.sparse(extended.sparse)?;
                entry.size = size;
                entry.pieces = Some(pieces);
            }
        }
        if let Some(pieces) = &entry.pieces {
            check_pieces(pieces, entry.size, self.left)?;
        }
        if entry.path.contains(&0) || entry.link.contains(&0) {
            return Err(Error::failed("a name has a NUL in it"));
        }
        self.entry = entry;
        Ok(())
    }

    fn old_sparse(&mut self, header: &Header<'_>) -> Result<(u64, Pieces)> {
        let (size, mut pieces, mut more) = header.sparse()?;
        while more {
            let mut block = [0; BLOCK];
            if self.exactly(&mut block)? < BLOCK {
                return Err(Error::failed("the archive ends within a sparse file's map"));
            }
            let (next, again) = more_sparse(&block)?;
            pieces.extend(next);
            more = again;
            if pieces.len() > MAX_PIECES {
                return Err(too_sparse());
            }
        }
        Ok((size, pieces))
    }

    fn sparse(&mut self, sparse: Sparse) -> Result<(u64, Pieces)> {
        let size = sparse.size.ok_or_else(|| Error::failed("a sparse file's size is not told"))?;
        let numbers = match (sparse.major.unwrap_or(0), sparse.minor.unwrap_or(0)) {
            (1, 0) if sparse.numbers.is_empty() && sparse.count.is_none() => {
                let count = self.line()?;
                if count > MAX_PIECES as u64 {
                    return Err(too_sparse());
                }
                let numbers = (0..2 * count).map(|_| self.line()).collect::<Result<Vec<_>>>()?;
                // The map is padded like everything else.
                let end = self.left + self.padding;
                let rest = end % BLOCK as u64;
                if rest > self.left {
                    return Err(Error::failed("a sparse file's map is cut off"));
                }
                self.pass(rest)?;
                self.left -= rest;
                numbers
            }
            (0, _) => {
                if sparse.count.is_some_and(|count| count * 2 != sparse.numbers.len() as u64) {
                    return Err(Error::failed("a sparse file's map has a wrong length"));
                }
                sparse.numbers
            }
            _ => return Err(Error::failed("a sparse file is of a kind that is not known")),
        };
        if !numbers.len().is_multiple_of(2) {
            return Err(Error::failed("a sparse file's map is cut off"));
        }
        Ok((size, numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()))
    }

    /// Reads a number on a line of its own from the content.
    fn line(&mut self) -> Result<u64> {
        let mut digits = [0; 20];
        let mut count = 0;
        loop {
            let mut byte = [0];
            if self.left == 0 || self.exactly(&mut byte)? == 0 {
                return Err(Error::failed("a sparse file's map is cut off"));
            }
            self.left -= 1;
            if byte[0] == b'\n' {
                return pax::decimal(&digits[..count])
                    .ok_or_else(|| Error::failed("a sparse file's map has no number"));
            }
            if count == digits.len() {
                return Err(Error::failed("a sparse file's map has no number"));
            }
            digits[count] = byte[0];
            count += 1;
        }
    }

    /// Reads a header; says whether there is one. Two blocks of zeros are the end, and so is the
    /// end of the input.
    fn header(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        match self.exactly(block)? {
            0 => return Ok(false),
            BLOCK => {}
            _ => return Err(Error::failed("the archive ends within a header")),
        }
        if block.iter().any(|byte| *byte != 0) {
            return Ok(true);
        }
        match self.exactly(block)? {
            0 => Ok(false),
            BLOCK if block.iter().all(|byte| *byte == 0) => Ok(false),
            BLOCK => Err(Error::failed("a block of zeros stands between entries")),
            _ => Err(Error::failed("the archive ends within a header")),
        }
    }

    /// Reads the body of a header that announces something, with its padding.
    fn small(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > self.limits.header_bytes {
            return Err(self.limits.over(format!(
                "an extended header has {size} bytes, more than the limit of {}",
                self.limits.header_bytes
            )));
        }
        let mut body = vec![0; size.next_multiple_of(BLOCK as u64) as usize];
        if self.exactly(&mut body)? < body.len() {
            return Err(Error::failed("the archive ends within an extended header"));
        }
        body.truncate(size as usize);
        Ok(body)
    }

    /// Reads a long name or link target.
    fn long(&mut self, size: u64) -> Result<Vec<u8>> {
        let body = self.small(size)?;
        Ok(text(&body).to_vec())
    }

    /// Reads as many bytes as there is room for, fewer only at the end of the input.
    fn exactly(&mut self, out: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < out.len() {
            let bytes = self.input.fill()?;
            if bytes.is_empty() {
                break;
            }
            let count = bytes.len().min(out.len() - done);
            out[done..done + count].copy_from_slice(&bytes[..count]);
            self.input.consume(count);
            done += count;
        }
        Ok(done)
    }

    fn pass(&mut self, count: u64) -> Result<()> {
        if self.input.skip(count)? {
            Ok(())
        } else {
            Err(Error::failed("the archive ends within the content"))
        }
    }
}

impl Extended {
    fn read(body: &[u8], limits: &Limits) -> Result<Self> {
        let mut found = Self::default();
        pax::records(body, |key, value| {
            found
                .record(key, value)
                .with_context(|| format!("the extended header's '{}' is wrong", shown(key)))?;
            // At once: each is compared with all before it.
            if found.xattrs.len() > limits.xattrs {
                return Err(limits.over(format!(
                    "an entry has more than {} extended attributes",
                    limits.xattrs
                )));
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let number = || pax::decimal(value).ok_or_else(|| Error::failed("it is no number"));
        let words = || {
            if value.contains(&0) {
                return Err(Error::failed("it has a NUL in it"));
            }
            // To some this takes back what was said before.
            if value.is_empty() {
                return Err(Error::failed("it is empty"));
            }
            Ok(value.to_vec())
        };
        match key {
            b"path" => once(&mut self.path, words()?)?,
            b"GNU.sparse.name" => {
                self.sparse.any = true;
                once(&mut self.sparse.name, words()?)?;
            }
            b"linkpath" => once(&mut self.link, words()?)?,
            b"size" => once(&mut self.size, number()?)?,
            b"uid" => once(&mut self.uid, number()?)?,
            b"gid" => once(&mut self.gid, number()?)?,
            b"mtime" => {
                let time = pax::moment(value).ok_or_else(|| Error::failed("it is no time"))?;
                once(&mut self.time, time)?;
            }
            b"hdrcharset" | b"charset" => {
                if !matches!(value, b"BINARY" | b"ISO-IR 10646 2000 UTF-8") {
                    return Err(Error::failed("names are in letters that not all can read"));
                }
            }
            // The sizes of files in pieces, of which only some programs know.
            b"SCHILY.realsize" | b"GNU.volume.size" | b"GNU.volume.offset" => {
                return Err(Error::failed("not all know what it means"));
            }
            b"RHT.security.selinux" => {
                self.attribute(b"security.selinux", value.to_vec(), false);
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.attribute(name, value.to_vec(), true);
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = pax::percent(name);
                    let value = pax::base64(value);
                    let (Some(name), Some(value)) = (name, value) else {
                        return Err(Error::failed("it is not encoded as it should be"));
                    };
                    self.attribute(&name, value, false);
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.record(name, value)?;
                }
            }
        }
        Ok(())
    }

    /// Remembers an attribute; a `strong` one replaces another.
    fn attribute(&mut self, name: &[u8], value: Vec<u8>, strong: bool) {
        match self.xattrs.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => {
                if strong {
                    *known = value;
                }
            }
            None => self.xattrs.push((name.to_vec(), value)),
        }
    }
}

impl Sparse {
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let number =
            |value: &[u8]| pax::decimal(value).ok_or_else(|| Error::failed("it is no number"));
        self.any = true;
        match key {
            b"major" => once(&mut self.major, number(value)?)?,
            b"minor" => once(&mut self.minor, number(value)?)?,
            b"size" | b"realsize" => once(&mut self.size, number(value)?)?,
            b"numblocks" => once(&mut self.count, number(value)?)?,
            b"offset" | b"numbytes" => {
                let due: &[u8] =
                    if self.numbers.len().is_multiple_of(2) { b"offset" } else { b"numbytes" };
                if key != due {
                    return Err(Error::failed("it is out of order"));
                }
                self.numbers.push(number(value)?);
            }
            b"map" if !self.numbers.is_empty() => {
                return Err(Error::failed("it is told twice"));
            }
            b"map" => {
                self.numbers = if value.is_empty() {
                    Vec::new()
                } else {
                    value.split(|byte| *byte == b',').map(number).collect::<Result<_>>()?
                };
            }
            _ => {}
        }
        if self.numbers.len() > 2 * MAX_PIECES
            || self.count.is_some_and(|count| count > MAX_PIECES as u64)
        {
            return Err(too_sparse());
        }
        Ok(())
    }
}

/// Keeps what may be said once: some go by the first of two, some by the last.
fn once<T>(place: &mut Option<T>, value: T) -> Result<()> {
    if place.is_some() {
        return Err(Error::failed("it is told twice"));
    }
    *place = Some(value);
    Ok(())
}

/// Looks at a record that holds for all entries after it. Comments are; of all that has a meaning some
/// programs take notice and some do not.
fn for_all(key: &[u8], _: &[u8]) -> Result<()> {
    let has_meaning = matches!(
        key,
        b"path"
            | b"linkpath"
            | b"size"
            | b"uid"
            | b"gid"
            | b"uname"
            | b"gname"
            | b"mtime"
            | b"atime"
            | b"ctime"
            | b"hdrcharset"
            | b"charset"
    ) || key.starts_with(b"GNU.")
        || key.starts_with(b"LIBARCHIVE.")
        || key.starts_with(b"RHT.")
        || key.starts_with(b"SCHILY.") && key != b"SCHILY.archtype";
    if has_meaning {
        return Err(Error::failed(format!(
            "an extended header sets '{}' for all entries",
            shown(key)
        )));
    }
    Ok(())
}

fn too_sparse() -> Error {
    Error::failed(format!("a sparse file has more than {MAX_PIECES} pieces"))
}

/// Checks that pieces are in order, within the file, and as long together as what was stored.
fn check_pieces(pieces: &[(u64, u64)], size: u64, stored: u64) -> Result<()> {
    let wrong = || Error::failed("a sparse file's map does not fit the file");
    let (mut end, mut total) = (0u64, 0u64);
    let (mut is_whole, mut is_known) = (true, true);
    for (offset, length) in pieces {
        is_known &= is_whole || *length == 0;
        is_whole &= length.is_multiple_of(BLOCK as u64);
        if *offset < end {
            return Err(wrong());
        }
        end = offset.checked_add(*length).ok_or_else(wrong)?;
        total += length;
    }
    if end > size || total != stored {
        return Err(wrong());
    }
    // GNU tar begins each piece with a block of the archive, others where the last one ended.
    if !is_known {
        return Err(Error::failed("a sparse file's map has pieces that are no whole blocks"));
    }
    Ok(())
}

fn owner(what: &str, extended: Option<u64>, header: Result<i64>) -> Result<u32> {
    let value = match extended {
        Some(value) => i64::try_from(value).unwrap_or(i64::MAX),
        None => header?,
    };
    // The highest number stands for nobody at all.
    u32::try_from(value)
        .ok()
        .filter(|value| *value != u32::MAX)
        .ok_or_else(|| Error::failed(format!("its {what} {value} cannot be")))
}
