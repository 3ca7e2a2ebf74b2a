//! Takes one layer in: the content of its files goes to the disk at once, what it changes in the
//! tree is remembered until the layers below it are there.

use crate::limits::{Limits, over};
use crate::stream::{Shared, Stream, count};
use banger_doc::{Context, Error, Result};
use banger_ext4::{Body, Meta, Source, Store, Text, Time};
use banger_tar::{Entry, Input, Kind, Reader, shown};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Names longer than this cannot be kept by the disk.
const NAME: usize = 255;
/// Link targets longer than this cannot be kept by the disk.
const TARGET: usize = 4095;
/// What a layer may put on the disk before the ratio to what it came as is looked at.
const FREE: u64 = 256 << 20;
/// How many changes are kept in one piece of memory.
const CHUNK: usize = 4096;
/// Devices can have these numbers at most.
const MAX_MAJOR: u64 = 0xfff;
const MAX_MINOR: u64 = 0xf_ffff;

/// Something that a layer does to a name in a directory.
pub(crate) struct Change {
    /// The directory's path.
    pub(crate) parent: Text,
    /// The name in it; empty for the root itself.
    pub(crate) name: Text,
    pub(crate) what: What,
}

/// What a layer does.
pub(crate) enum What {
    /// Puts something there.
    Put(Meta, Body),
    /// Gives what is at this path another name.
    Link(Text),
    /// Takes away what lower layers put there.
    Whiteout,
    /// Takes away what lower layers put into the directory.
    Opaque,
}

/// What came of a layer.
pub(crate) struct Taken {
    pub(crate) changes: Vec<Vec<Change>>,
    pub(crate) markers: bool,
    pub(crate) store: Store,
    pub(crate) digest: [u8; 32],
}

/// Takes a layer in, to its end.
pub(crate) fn take(
    stream: Stream<'_>,
    source: Source<'_>,
    shared: &Shared<'_>,
    came: &AtomicU64,
) -> Result<Taken> {
    let mut taking = Taking {
        source,
        shared,
        came,
        changes: Vec::new(),
        markers: false,
        parent: (Vec::new(), Text::default()),
        path: Vec::new(),
        grown: 0,
        counted: (0, 0),
    };
    let mut reader = Reader::new(stream, shared.limits.of_an_archive());
    let mut last: Vec<u8> = Vec::new();
    loop {
        let more = reader.advance();
        let more = if last.is_empty() {
            more?
        } else {
            more.with_context(|| format!("after the entry '{}'", shown(&last)))?
        };
        if !more {
            break;
        }
        taking.entry(&mut reader).with_context(|| {
            format!("the entry '{}' cannot be used", shown(&reader.entry().path))
        })?;
        last.clone_from(&reader.entry().path);
    }
    let stream = reader.drain()?;
    Ok(Taken {
        changes: taking.changes,
        markers: taking.markers,
        store: taking.source.finish()?,
        digest: stream.digest(),
    })
}

struct Taking<'a> {
    source: Source<'a>,
    shared: &'a Shared<'a>,
    came: &'a AtomicU64,
    changes: Vec<Vec<Change>>,
    markers: bool,
    /// The directory of the entry before, which is mostly that of this one.
    parent: (Vec<u8>, Text),
    /// The path in hand, cleaned.
    path: Vec<u8>,
    /// Bytes of content that were put on the disk.
    grown: u64,
    /// Bytes and extents kept, as far as all layers' counters know of them.
    counted: (u64, u64),
}

impl Taking<'_> {
    fn entry<I: Input>(&mut self, reader: &mut Reader<I>) -> Result<()> {
        let shared = self.shared;
        shared.progress.entries.fetch_add(1, Relaxed);
        count(&shared.entries, 1, shared.limits.entries, "entries")?;
        let entry = reader.entry();
        clean(&entry.path, shared.limits, &mut self.path)?;
        let split = self.path.iter().rposition(|byte| *byte == b'/');
        let base = split.map_or(0, |slash| slash + 1);
        let parent_end = split.unwrap_or(0);

        if self.path.is_empty() && entry.kind != Kind::Directory {
            return Err(Error::failed("it has no name"));
        }
        match marker(&self.path, base, entry.kind)? {
            Marker::None => {}
            Marker::Ignored => return Ok(()),
            Marker::Opaque => {
                let parent = self.parent(parent_end);
                self.markers = true;
                self.push(Change { parent, name: Text::default(), what: What::Opaque });
                return self.count();
            }
            Marker::Whiteout(from) => {
                let parent = self.parent(parent_end);
                let name = self.source.store.keep(&self.path[from..]);
                self.markers = true;
                self.push(Change { parent, name, what: What::Whiteout });
                return self.count();
            }
        }
        let what = self.what(reader)?;
        let parent = self.parent(parent_end);
        let name = self.source.store.keep(&self.path[base..]);
        self.push(Change { parent, name, what });
        self.count()
    }

    /// Puts the content of the entry on the disk and returns what is to be done.
    fn what<I: Input>(&mut self, reader: &mut Reader<I>) -> Result<What> {
        let entry = reader.entry();
        let body = match entry.kind {
            Kind::Hardlink => {
                let mut target = Vec::new();
                clean(&entry.link, self.shared.limits, &mut target)
                    .with_context(|| format!("its target '{}'", shown(&entry.link)))?;
                return Ok(What::Link(self.source.store.keep(&target)));
            }
            Kind::Directory => Body::Directory,
            Kind::File => {
                let meta = self.meta(entry)?;
                return Ok(What::Put(meta, self.file(reader)?));
            }
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.len() > TARGET {
                    return Err(Error::failed(format!(
                        "its target has {} bytes; it must be from 1 to {TARGET}",
                        entry.link.len()
                    )));
                }
                Body::Symlink(self.source.store.keep(&entry.link))
            }
            Kind::Character | Kind::Block => {
                let (major, minor) = entry.device;
                if major > MAX_MAJOR || minor > MAX_MINOR {
                    return Err(Error::failed(format!("there is no device {major}:{minor}")));
                }
                if entry.kind == Kind::Block {
                    Body::Block(major as u32, minor as u32)
                } else {
                    Body::Character(major as u32, minor as u32)
                }
            }
            Kind::Fifo => Body::Fifo,
        };
        Ok(What::Put(self.meta(entry)?, body))
    }

    fn meta(&mut self, entry: &Entry) -> Result<Meta> {
        let xattrs: Vec<(&[u8], &[u8])> = entry
            .xattrs
            .iter()
            // Other systems' attributes mean nothing to Linux, which would refuse to set them.
            .filter(|(name, _)| banger_ext4::is_known(name))
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
            .collect();
        Ok(Meta {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            time: Time { seconds: entry.seconds, nanos: entry.nanos }.clamped(),
            xattrs: self.source.xattrs(&xattrs)?,
        })
    }

    fn file<I: Input>(&mut self, reader: &mut Reader<I>) -> Result<Body> {
        let limits = self.shared.limits;
        let size = reader.entry().size;
        if size > limits.file_bytes {
            return Err(over(format!(
                "it has {size} bytes, more than the limit of {}",
                limits.file_bytes
            )));
        }
        let pieces = reader.entry().pieces.clone();
        let (source, came) = (&mut self.source, self.came);
        // Padding to whole blocks does not count, and holes are not written at all.
        let (before, grown) = (source.bytes_written(), self.grown);
        let written = |source: &Source<'_>| (source.bytes_written() - before).min(size);
        let ratio = |source: &Source<'_>| {
            let written = grown + written(source);
            let came = came.load(Relaxed);
            if written > FREE && written / limits.ratio > came {
                return Err(over(format!(
                    "the layer grows to more than {} times of what it came as",
                    limits.ratio
                )));
            }
            Ok(())
        };
        let Some(pieces) = pieces else {
            reader.content(|bytes| {
                source.write(bytes)?;
                ratio(source)
            })?;
            let body = source.end(size)?;
            self.grown += written(source);
            return Ok(body);
        };
        let mut pieces = pieces.into_iter().filter(|(_, length)| *length > 0);
        let (mut at, mut left) = (0, 0);
        reader.content(|mut bytes| {
            while !bytes.is_empty() {
                if left == 0 {
                    let (offset, length) =
                        pieces.next().expect("because the pieces are as long as the content");
                    source.skip(offset - at)?;
                    (at, left) = (offset, length);
                }
                let count = left.min(bytes.len() as u64);
                source.write(&bytes[..count as usize])?;
                bytes = &bytes[count as usize..];
                at += count;
                left -= count;
            }
            ratio(source)
        })?;
        source.skip(size - at)?;
        let body = source.end(size)?;
        self.grown += written(source);
        Ok(body)
    }

    /// Keeps the path of the entry's directory.
    fn parent(&mut self, end: usize) -> Text {
        let parent = &self.path[..end];
        if self.parent.0 != parent {
            self.parent.0.clear();
            self.parent.0.extend_from_slice(parent);
            self.parent.1 = self.source.store.keep(parent);
        }
        self.parent.1
    }

    fn push(&mut self, change: Change) {
        match self.changes.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(change),
            _ => {
                let mut chunk = Vec::with_capacity(if self.changes.is_empty() { 0 } else { CHUNK });
                chunk.push(change);
                self.changes.push(chunk);
            }
        }
    }

    /// Adds what the entry takes in memory to what all layers take.
    fn count(&mut self) -> Result<()> {
        let shared = self.shared;
        let (kept, extents) = (self.source.kept_bytes(), self.source.extents() as u64);
        let more = (kept - self.counted.0, extents - self.counted.1);
        self.counted = (kept, extents);
        let limits = shared.limits;
        count(&shared.kept, more.0, limits.name_bytes, "bytes of names and attributes")?;
        count(&shared.extents, more.1, limits.extents, "separate stretches of data")
    }
}

/// Writes a path without what means nothing in it: slashes at both ends, empty names and dots.
fn clean(path: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    let mut depth = 0;
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => continue,
            b".." => return Err(Error::failed("its path goes up with '..'")),
            name if name.len() > NAME => {
                return Err(Error::failed(format!("it has a name of more than {NAME} bytes")));
            }
            _ => {}
        }
        depth += 1;
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(name);
    }
    if out.len() > limits.path_bytes {
        return Err(over(format!(
            "its path has {} bytes, more than the limit of {}",
            out.len(),
            limits.path_bytes
        )));
    }
    if depth > limits.depth {
        return Err(over(format!(
            "it is {depth} directories deep, more than the limit of {}",
            limits.depth
        )));
    }
    Ok(())
}

enum Marker {
    None,
    /// What an old layer store kept for itself.
    Ignored,
    Opaque,
    /// The name that it takes away begins there.
    Whiteout(usize),
}

/// Says whether a path is a marker. The prefix is reserved, so whatever else has it is refused.
fn marker(path: &[u8], base: usize, kind: Kind) -> Result<Marker> {
    const PREFIX: &[u8] = b".wh.";
    const OWN: &[u8] = b".wh..wh.";
    if path.windows(PREFIX.len()).all(|part| part != PREFIX) {
        return Ok(Marker::None);
    }
    let name = &path[base..];
    if name == b".wh..wh..opq" {
        return if kind == Kind::File {
            Ok(Marker::Opaque)
        } else {
            Err(Error::failed("a marker is not a file"))
        };
    }
    if path.split(|byte| *byte == b'/').any(|part| part.starts_with(OWN)) {
        return Ok(Marker::Ignored);
    }
    if path[..base].split(|byte| *byte == b'/').any(|part| part.starts_with(PREFIX)) {
        return Err(Error::failed("it lies below a marker"));
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Marker::None),
        Some(b"" | b"." | b"..") => Err(Error::failed("it is a marker for no name")),
        // Some layer stores keep all their markers as links to one.
        Some(_) if matches!(kind, Kind::File | Kind::Hardlink) => {
            Ok(Marker::Whiteout(base + PREFIX.len()))
        }
        Some(_) => Err(Error::failed("a marker is not a file")),
    }
}
