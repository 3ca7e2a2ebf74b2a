//! Making files of the host from a guest's tar stream, every byte of which may be a lie.

use super::{
    Budget, is_inside,
    tree::{Item, Tree, plain_path},
};
use banger_doc::{Context, Error, Result};
use banger_tar::{Buffered, Entry, Input, Kind, Reader, shown};
use banger_tree::MAX_DEPTH;
use std::{
    collections::HashSet,
    fs::File,
    hash::{BuildHasher, RandomState},
    io::Read,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// The most that all files may say to hold. The stream's length does not bound files with holes.
const MOST_BYTES: u64 = 1 << 40;
/// How many of those that were left out are named.
const NAMED: usize = 20;

/// How a guest's stream becomes files of the host.
#[derive(Clone, Debug)]
pub struct Take<'a> {
    /// The name that the stream has to begin every path with; `.` for none.
    pub asked: &'a [u8],
    /// What stands in its place below the root; `.` for the root itself.
    pub name: &'a [u8],
    /// Whether the root was made for this, and gets the mode and the time of what was asked for.
    pub fresh: bool,
    /// Whether owners, setuid bits and links that lead out are kept.
    pub archive: bool,
    /// What its entries, and the names that are kept, are taken of.
    pub budget: &'a Budget,
    /// Set by somebody who wants no more of it.
    pub stop: Arc<AtomicBool>,
}

/// What was left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Skipped {
    /// Path below what was asked for.
    pub path: Vec<u8>,
    /// Why.
    pub why: &'static str,
}

/// What came of a stream.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Entries that were made.
    pub entries: u64,
    /// Bytes of files, holes included.
    pub bytes: u64,
    /// How many entries were left out.
    pub skipped: u64,
    /// The first of them.
    pub first_skipped: Vec<Skipped>,
}

/// Returns the bits that the user wants no new file to have (umask(2)), which can only be asked for by
/// changing it otherwise. Where that cannot be told, nobody else may write.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|digits| u32::from_str_radix(digits.trim(), 8).ok()).unwrap_or(0o022)
}

impl Take<'_> {
    /// Makes what `stream` describes below the directory `root`, each file whole or not at all. No
    /// link is followed, a directory that is there keeps its mode, and nothing is made that nobody
    /// asked for. The stream is read to its end; it has to bound itself.
    pub fn unpack(&self, stream: &mut dyn Read, root: &Path) -> Result<Taken> {
        let tree = Tree::open(root)?
            .keeping(true)
            .in_fresh_root(self.fresh)
            .plain(!self.archive)
            // The guest chose the modes; who may read and write here is the user's to say.
            .without_bits(if self.archive { 0 } else { umask() })
            .closed_until_filled();
        let mut reader = Reader::new(Buffered::new(&mut *stream));
        let mut taken = Taken::default();
        let mut dirs = Vec::new();
        let mut made = Made::default();
        while reader.advance().context("cannot read the guest's stream")? {
            let entry = reader.entry();
            let below = self.below(&entry.path)?;
            // What is left out keeps us as busy as what is made.
            self.budget.take_entry().map_err(|most| {
                Error::failed(format!("the guest sent more than {most} entries"))
                    .hint("copy parts of it one by one; the guest may be hostile")
            })?;
            if let Some(why) = self.refuses(entry, &below) {
                taken.skip(&below, why);
                continue;
            }
            let path = self.place(&below);
            Self::bound(entry, &mut taken)?;
            let said = || format!("cannot write '{}/{}'", root.display(), path.escape_ascii());
            if entry.kind == Kind::Hardlink {
                let target = self.below(&entry.link)?;
                let target = self.place(&target);
                if !made.has(&target) {
                    return Err(Self::nonsense("is a hard link to what was not copied", &path));
                }
                tree.link(&target, &path, true).with_context(said)?;
                made.note(&path);
                continue;
            }
            let is_root = path == b".";
            if is_root && entry.kind != Kind::Directory {
                return Err(Self::nonsense("is no directory", &path));
            }
            if entry.kind == Kind::File {
                made.note(&path);
            } else {
                made.forget(&path);
            }
            if entry.kind == Kind::Directory {
                // They are kept until all is there.
                self.budget.take_name(path.len())?;
            }
            let link = entry.link.clone();
            let item = Item {
                sort: entry.kind,
                mode: entry.mode.into(),
                uid: entry.uid,
                gid: entry.gid,
                // The last second there is stands for the present, which is for a guest's files.
                mtime_s: entry.seconds.min(i64::MAX - 1),
                link: &link,
                device: 0,
            };
            let mut fill = |file: &mut File| self.fill(&mut reader, file);
            tree.make(&item, &mut fill, &path, true, &mut dirs).with_context(said)?;
        }
        drop(reader);
        std::io::copy(stream, &mut std::io::sink()).context("cannot read the guest's stream")?;
        tree.finish_dirs(dirs)?;
        Ok(taken)
    }

    /// Writes the content of the entry in hand to an empty file, and leaves its holes.
    fn fill(&self, reader: &mut Reader<impl Input>, file: &mut File) -> std::io::Result<()> {
        let size = reader.entry().size;
        let pieces = reader.entry().pieces.clone();
        let has_holes = pieces.is_some();
        let mut pieces = pieces.unwrap_or_else(|| vec![(0, size)]).into_iter();
        // Where the piece in hand goes on, and how much is left of it.
        let (mut at, mut left) = (0, 0);
        let go_on = || {
            let is_over = self.stop.load(Ordering::Relaxed);
            if is_over { Err(Error::failed("interrupted")) } else { Ok(()) }
        };
        let written = go_on().and_then(|()| {
            reader.content(|mut bytes| {
                go_on()?;
                while !bytes.is_empty() {
                    while left == 0 {
                        let piece = pieces.next();
                        (at, left) = piece.expect("because the pieces are as long as the content");
                    }
                    let (now, later) =
                        bytes.split_at(bytes.len().min(left.try_into().unwrap_or(usize::MAX)));
                    file.write_all_at(now, at).context("cannot write it")?;
                    at += now.len() as u64;
                    left -= now.len() as u64;
                    bytes = later;
                }
                Ok(())
            })
        });
        written.map_err(std::io::Error::other)?;
        if has_holes { file.set_len(size) } else { Ok(()) }
    }

    /// Returns a path of the stream relative to what was asked for, `.` for that itself.
    fn below(&self, path: &[u8]) -> Result<Vec<u8>> {
        let path = plain_path(path);
        let below = match self.asked {
            b"." => Some(path),
            asked if asked == path => Some(&b"."[..]),
            asked => path.strip_prefix(asked).and_then(|rest| rest.strip_prefix(b"/")),
        };
        below.filter(|below| *below == b"." || is_inside(below)).map(<[u8]>::to_vec).ok_or_else(
            || {
                Self::nonsense(
                    &format!("was not asked for, or has more than {MAX_DEPTH} names"),
                    path,
                )
            },
        )
    }

    /// Returns where it belongs below the root.
    fn place(&self, below: &[u8]) -> Vec<u8> {
        match (self.name, below) {
            (name, b".") => name.to_vec(),
            (b".", below) => below.to_vec(),
            (name, below) => [name, b"/", below].concat(),
        }
    }

    /// Says why an entry is left out.
    fn refuses(&self, entry: &Entry, path: &[u8]) -> Option<&'static str> {
        match entry.kind {
            Kind::Symlink if !self.archive => {
                leads_out(path, &entry.link).then_some("a link that leads out")
            }
            Kind::File | Kind::Directory | Kind::Symlink | Kind::Hardlink => None,
            Kind::Character | Kind::Block | Kind::Fifo => Some("neither file, directory nor link"),
        }
    }

    fn bound(entry: &Entry, taken: &mut Taken) -> Result<()> {
        taken.entries += 1;
        taken.bytes = taken.bytes.saturating_add(entry.size);
        if taken.bytes > MOST_BYTES {
            return Err(Error::failed(format!(
                "the guest's files hold more than {MOST_BYTES} bytes"
            )));
        }
        Ok(())
    }

    fn nonsense(what: &str, path: &[u8]) -> Error {
        Error::failed(format!("'{}' in the guest's stream {what}", shown(path)))
            .hint("the guest may be broken or hostile; what came before it was checked as it came")
    }
}

impl Taken {
    fn skip(&mut self, path: &[u8], why: &'static str) {
        self.skipped += 1;
        if self.first_skipped.len() < NAMED {
            self.first_skipped.push(Skipped { path: path.to_vec(), why });
        }
    }
}

/// Paths, by a hash that nobody can foresee who makes a stream.
#[derive(Debug, Default)]
pub(super) struct Made {
    hasher: RandomState,
    paths: HashSet<u64>,
}

impl Made {
    pub(super) fn note(&mut self, path: &[u8]) {
        self.paths.insert(self.hasher.hash_one(path));
    }

    pub(super) fn forget(&mut self, path: &[u8]) {
        self.paths.remove(&self.hasher.hash_one(path));
    }

    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.paths.contains(&self.hasher.hash_one(path))
    }
}

/// Says whether a link at `path` may lead out of the tree that `path` is relative to. Directories
/// above it are none of the guest's links; what else `..` follows may be one.
fn leads_out(path: &[u8], target: &[u8]) -> bool {
    let mut depth = path.split(|byte| *byte == b'/').count() - 1;
    let mut is_down = false;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if is_down || depth == 0 => return true,
            b".." => depth -= 1,
            _ => is_down = true,
        }
    }
    path == b"." || target.is_empty() || target.starts_with(b"/")
}

#[cfg(test)]
mod tests;
