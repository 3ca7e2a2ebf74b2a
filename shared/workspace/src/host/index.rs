//! Reading an index file (gitformat-index(5)), whoever wrote it, and fitting one to other files.

use crate::names::hex;
use banger_doc::{Context, Error, Result};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The most entries that are read.
const MAX_ENTRIES: u32 = 5_000_000;
/// The most memory that the entries of an index of the host's, or of a guest's, may take, in bytes. An index
/// may name a path by what it adds to the one before, so that a small file has long paths.
pub(crate) const MOST_OF_HOST: usize = 1 << 30;
pub(crate) const MOST_OF_GUEST: usize = 128 << 20;
/// What an entry takes beside its path: itself, its object's name, and what the allocator adds to both.
const ENTRY: usize = size_of::<Entry>() + 64 + 32;

/// The longest path.
const MAX_PATH: usize = 4096;

/// What an index says of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    /// Path below the work tree.
    pub(crate) path: Vec<u8>,
    /// Type and permissions, as in a tree.
    pub(crate) mode: u32,
    /// Object, in hexadecimal.
    pub(crate) oid: String,
    /// 0, or 1 to 3 in a conflict.
    pub(crate) stage: u8,
    /// Absent from the work tree on purpose.
    pub(crate) skip_worktree: bool,
    /// Only the path is added.
    pub(crate) intent_to_add: bool,
    /// Low 32 bits of the size when the file was last known to be what the object says.
    pub(crate) size: u32,
    /// Its modification time then, seconds and nanoseconds.
    pub(crate) mtime: (u32, u32),
    /// Its change time then.
    pub(crate) ctime: (u32, u32),
    /// Low 32 bits of its inode number then.
    pub(crate) ino: u32,
    /// Where it begins in the file.
    at: usize,
}

/// An index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// Its entries, sorted by path and stage.
    pub(crate) entries: Vec<Entry>,
    /// Whether an extension is needed to understand it: a split or a sparse index.
    pub(crate) is_partial: bool,
    /// Whether directories stand for what is in them.
    pub(crate) is_sparse: bool,
    /// The shared index that a split one builds on, in hexadecimal.
    pub(crate) shared: Option<String>,
    /// Where the extension with the cached trees begins and ends in the file.
    trees: Option<(usize, usize)>,
}

/// Reads an index whose objects have names of `oid_len` bytes, and whose entries take at most `most` bytes of
/// memory.
pub(crate) fn parse(bytes: &[u8], oid_len: usize, most: usize) -> Result<Index> {
    // The sum at the end is no part of what is read.
    let end = bytes.len().checked_sub(oid_len);
    let mut left = Some(most);
    let index =
        end.and_then(|end| Parser { bytes: &bytes[..end], at: 0 }.index(oid_len, &mut left));
    if left.is_none() {
        return Err(Error::failed(format!(
            "the index lists more than {} MiB of paths and objects",
            most >> 20
        )));
    }
    index.ok_or_else(|| Error::failed("the index is damaged"))
}

/// Reads an index; no bytes are an empty one.
pub(crate) fn parse_or_empty(bytes: &[u8], oid_len: usize, most: usize) -> Result<Index> {
    if bytes.is_empty() { Ok(Index::default()) } else { parse(bytes, oid_len, most) }
}

/// What an index is to say of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stat {
    /// It holds what the entry's object holds: its size and the second of its time.
    Same {
        /// Low 32 bits of the size.
        size: u32,
        /// Seconds since 1970.
        mtime_s: u32,
    },
    /// It holds something else, or that is not known: git has to read it.
    Unsure,
}

/// Returns an index with what `stat` says of files, where it says something. What git concluded on the
/// host from times of the host's does not hold for files that were written elsewhere.
pub(crate) fn fitted(
    bytes: &[u8],
    oid_len: usize,
    stat: impl Fn(&Entry) -> Option<Stat>,
) -> Result<Vec<u8>> {
    // It was read before, or made.
    let index = parse(bytes, oid_len, MOST_OF_HOST)?;
    let mut new = bytes.to_vec();
    for entry in &index.entries {
        // An intended path has no object that a file could be compared with.
        if entry.stage != 0 || entry.intent_to_add {
            continue;
        }
        let (size, mtime_s) = match stat(entry) {
            Some(Stat::Same { size, mtime_s }) => (size, mtime_s),
            // A size of zero makes git compare the content, whatever the times are.
            Some(Stat::Unsure) => (0, 0),
            None => continue,
        };
        let mut put = |at: usize, value: u32| {
            new[entry.at + at..entry.at + at + 4].copy_from_slice(&value.to_be_bytes());
        };
        put(8, mtime_s);
        put(12, 0);
        put(36, size);
    }
    // The cached trees are named by objects that need be in no commit, so that nobody may have them.
    if let Some((from, to)) = index.trees {
        new.drain(from..to);
    }
    let end = new.len().saturating_sub(oid_len);
    // Zeros say that nobody is to check it (index.skipHash in git-config(1)).
    if new[end..].iter().any(|byte| *byte != 0) {
        let sum = match oid_len {
            20 => Sha1::digest(&new[..end]).to_vec(),
            _ => Sha256::digest(&new[..end]).to_vec(),
        };
        new[end..].copy_from_slice(&sum);
    }
    Ok(new)
}

/// Reads an index as a guest's is read; nothing if it is none. What is one is fitted to other files and read
/// again, which may not fail; returns how many entries it has.
pub fn check_index(bytes: &[u8], oid_len: usize) -> Option<Result<usize>> {
    let index = parse(bytes, oid_len, MOST_OF_GUEST).ok()?;
    Some(check_fitted(bytes, oid_len, &index))
}

fn check_fitted(bytes: &[u8], oid_len: usize, index: &Index) -> Result<usize> {
    let new = fitted(bytes, oid_len, |_| Some(Stat::Unsure)).context("it cannot be fitted")?;
    let again = parse(&new, oid_len, MOST_OF_GUEST).context("what was fitted is none")?;
    if index.entries.len() != again.entries.len() {
        return Err(Error::failed("the index changed by being fitted"));
    }
    Ok(index.entries.len())
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let part = self.bytes.get(self.at..self.at.checked_add(size)?)?;
        self.at += size;
        Some(part)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn until_zero(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let part = &rest[..rest.iter().position(|byte| *byte == 0)?];
        self.at += part.len() + 1;
        Some(part)
    }

    fn index(mut self, oid_len: usize, left: &mut Option<usize>) -> Option<Index> {
        if self.take(4)? != b"DIRC" {
            return None;
        }
        let version = self.u32()?;
        let count = self.u32()?;
        if !(2..=4).contains(&version) || count > MAX_ENTRIES {
            return None;
        }
        let mut index = Index::default();
        for _ in 0..count {
            let before = index.entries.last().map_or(&[][..], |entry| &entry.path);
            let entry = self.entry(version, oid_len, before)?;
            *left = left.and_then(|left| left.checked_sub(ENTRY + entry.path.len()));
            (*left)?;
            index.entries.push(entry);
        }
        while self.at + 8 <= self.bytes.len() {
            let start = self.at;
            let name = self.take(4)?;
            let size = self.u32()? as usize;
            // A lower-case letter marks an extension that has to be understood.
            index.is_partial |= name[0].is_ascii_lowercase();
            index.is_sparse |= name == b"sdir";
            let body = self.take(size)?;
            if name == b"link" {
                index.shared = body.get(..oid_len).map(hex);
            }
            if name == b"TREE" {
                index.trees = Some((start, self.at));
            }
        }
        Some(index)
    }

    fn entry(&mut self, version: u32, oid_len: usize, before: &[u8]) -> Option<Entry> {
        let start = self.at;
        let ctime = (self.u32()?, self.u32()?);
        let mtime = (self.u32()?, self.u32()?);
        let _dev = self.u32()?;
        let ino = self.u32()?;
        let mode = self.u32()?;
        let _owner = (self.u32()?, self.u32()?);
        let size = self.u32()?;
        let oid = hex(self.take(oid_len)?);
        let flags = self.u16()?;
        let more = if version >= 3 && flags & 0x4000 != 0 { self.u16()? } else { 0 };
        let path = if version == 4 {
            let strip = self.varint()?;
            let keep = before.get(..before.len().checked_sub(strip)?)?;
            let more = self.until_zero()?;
            if keep.len() + more.len() > MAX_PATH {
                return None;
            }
            [keep, more].concat()
        } else {
            let path = self.until_zero()?.to_vec();
            // One to eight zero bytes fill up to a multiple of eight.
            let size = self.at - start;
            self.take(size.next_multiple_of(8) - size)?;
            path
        };
        if path.len() > MAX_PATH {
            return None;
        }
        Some(Entry {
            path,
            mode,
            oid,
            stage: (flags >> 12 & 3) as u8,
            skip_worktree: more & 0x4000 != 0,
            intent_to_add: more & 0x2000 != 0,
            size,
            mtime,
            ctime,
            ino,
            at: start,
        })
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0usize;
        loop {
            let byte = self.take(1)?[0];
            value = value.checked_mul(128)?.checked_add(usize::from(byte & 0x7f))?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            value = value.checked_add(1)?;
        }
    }
}

/// Returns a digest of what an index lists.
pub(crate) fn index_sum(index: &Index) -> String {
    let mut sum = Sha256::new();
    for entry in &index.entries {
        let flags = [entry.stage, u8::from(entry.skip_worktree), u8::from(entry.intent_to_add)];
        sum.update(entry.mode.to_be_bytes());
        sum.update(&entry.oid);
        sum.update(flags);
        sum.update(&entry.path);
        sum.update([0]);
    }
    hex(&sum.finalize())
}

/// Adds a line for `git update-index -z --index-info`.
pub(crate) fn index_line(lines: &mut Vec<u8>, mode: u32, oid: &str, path: &[u8]) {
    lines.extend_from_slice(format!("{mode:06o} {oid}\t").as_bytes());
    lines.extend_from_slice(path);
    lines.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_indexes_are_refused() {
        assert!(parse(b"", 20, MOST_OF_GUEST).is_err());
        assert!(parse(b"DIRC\0\0\0\x02\xff\xff\xff\xff", 20, MOST_OF_GUEST).is_err());
        assert!(parse(b"DIRC\0\0\0\x04\0\0\0\x01", 20, MOST_OF_GUEST).is_err());
        assert!(parse(b"DIRC\0\0\0\x09\0\0\0\0", 20, MOST_OF_GUEST).is_err());
        assert!(
            parse(&[&b"DIRC\0\0\0\x02\0\0\0\0"[..], &[0; 20]].concat(), 20, MOST_OF_GUEST).is_ok()
        );
    }

    /// An index of version 4, each of whose paths repeats the one before and adds a byte or nothing.
    fn index_that_repeats(count: u32) -> Vec<u8> {
        let mut bytes = b"DIRC\0\0\0\x04".to_vec();
        bytes.extend(count.to_be_bytes());
        for number in 0..count {
            bytes.extend([0; 24]);
            bytes.extend([0, 0, 0x81, 0xa4]);
            bytes.extend([0; 12 + 20]);
            bytes.extend(b"\x0f\xff\0");
            bytes.extend(if number < 4000 { &b"x\0"[..] } else { &b"\0"[..] });
        }
        bytes.extend([0; 20]);
        bytes
    }

    #[test]
    fn a_small_index_that_needs_much_memory_is_refused() {
        let small = index_that_repeats(4100);
        assert_eq!(parse(&small, 20, MOST_OF_GUEST).unwrap().entries[4099].path.len(), 4000);
        let bytes = index_that_repeats(100_000);
        assert!(bytes.len() < 8 << 20, "it would take 400 MiB");
        let error = parse(&bytes, 20, MOST_OF_GUEST).unwrap_err();
        assert!(error.to_string().contains("128 MiB"), "{error}");
    }

    /// An index of one file with cached trees that claim to be `size` bytes long.
    fn index_with_trees(oid_len: usize, size: u32) -> Vec<u8> {
        let mut bytes = b"DIRC\0\0\0\x02\0\0\0\x01".to_vec();
        let entry = [&[1; 24][..], &[0, 0, 0x81, 0xa4], &[1; 12], &vec![2; oid_len], b"\0\x01a"];
        let entry = entry.concat();
        bytes.extend(&entry);
        bytes.resize(bytes.len() + 8 - entry.len() % 8, 0);
        bytes.extend(b"TREE");
        bytes.extend(size.to_be_bytes());
        bytes.extend(b"tree");
        bytes.extend(vec![3; oid_len]);
        bytes
    }

    #[test]
    fn an_extension_ends_before_the_sum() {
        let unsure = |bytes: &[u8], oid_len| fitted(bytes, oid_len, |_| Some(Stat::Unsure));
        for oid_len in [20, 32] {
            let whole = index_with_trees(oid_len, 4);
            let new = unsure(&whole, oid_len).unwrap();
            assert_eq!(new.len(), whole.len() - 12);
            assert_eq!(parse(&new, oid_len, MOST_OF_GUEST).unwrap().entries[0].path, b"a");
            for size in (5..64).chain([u32::MAX]) {
                assert!(unsure(&index_with_trees(oid_len, size), oid_len).is_err(), "{size}");
            }
            // Nor does any other damage end in anything but an answer.
            for at in 0..whole.len() {
                let _ = unsure(&whole[..at], oid_len);
                for byte in [0, 1, 0x40, 0x7f, 0x80, 0xff] {
                    let mut damaged = whole.clone();
                    damaged[at] = byte;
                    let _ = unsure(&damaged, oid_len);
                }
            }
        }
    }
}
