//! Making files of the host from a guest's tar stream, every byte of which may be a lie.

use super::{
    is_inside,
    relay::MAX_HEAD,
    serve::{Tree, plain_path},
};
use banger_doc::{Context, Error, Result};
use std::{
    cell::Cell,
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    io::Read,
    path::Path,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
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
    /// The most entries.
    pub entries: u64,
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

/// Bounds what describes an entry: the parser keeps it in memory.
struct Bounded<R> {
    from: R,
    /// Bytes that may still be read before the next look; none: no bound.
    head: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(buffer)?;
        if let Some(left) = self.head.get() {
            let left = left.checked_sub(count as u64);
            let over = || std::io::Error::other("what describes an entry does not end");
            self.head.set(Some(left.ok_or_else(over)?));
        }
        Ok(count)
    }
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
        let mut tree = Tree::open(root)?;
        tree.keeps = true;
        tree.plain = !self.archive;
        // The guest chose the modes; who may read and write here is the user's to say.
        tree.masked = if self.archive { 0 } else { umask() };
        tree.unfinished = 0o700;
        tree.stop = self.stop.clone();
        let head = Rc::new(Cell::new(None));
        let mut archive = tar::Archive::new(Bounded { from: &mut *stream, head: head.clone() });
        let mut taken = Taken::default();
        let mut dirs = Vec::new();
        let mut made = Made::default();
        let mut entries = archive.entries().context("cannot read the guest's stream")?;
        loop {
            head.set(Some(MAX_HEAD));
            let Some(entry) = entries.next() else { break };
            head.set(None);
            let mut entry = entry.context("cannot read the guest's stream")?;
            let below = self.below(&entry.path_bytes())?;
            if let Some(why) = self.refuses(&entry, &below) {
                taken.skip(&below, why);
                continue;
            }
            let path = self.place(&below);
            self.bound(&entry, &mut taken)?;
            let said = || format!("cannot write '{}/{}'", root.display(), path.escape_ascii());
            let kind = entry.header().entry_type();
            if kind.is_hard_link() {
                let target = self.below(&entry.link_name_bytes().unwrap_or_default())?;
                let target = self.place(&target);
                if !made.has(&target) {
                    return Err(Self::nonsense("is a hard link to what was not copied", &path));
                }
                tree.link(&target, &path, true).with_context(said)?;
                made.note(&path);
            } else {
                let is_root = path == b".";
                if is_root && !kind.is_dir() {
                    return Err(Self::nonsense("is no directory", &path));
                }
                if kind.is_dir() || kind.is_symlink() {
                    made.forget(&path);
                } else {
                    made.note(&path);
                }
                tree.keeps = !(is_root && self.fresh);
                tree.unpack_one(&mut entry, &path, true, &mut dirs).with_context(said)?;
                tree.keeps = true;
            }
            // What the parser would otherwise skip under the bound for descriptions.
            std::io::copy(&mut entry, &mut std::io::sink())
                .context("cannot read the guest's stream")?;
        }
        head.set(None);
        drop(archive);
        std::io::copy(stream, &mut std::io::sink()).context("cannot read the guest's stream")?;
        tree.finish_dirs(dirs)?;
        Ok(taken)
    }

    /// Returns a path of the stream relative to what was asked for, `.` for that itself.
    fn below(&self, path: &[u8]) -> Result<Vec<u8>> {
        let path = plain_path(path);
        let below = match self.asked {
            b"." => Some(path),
            asked if asked == path => Some(&b"."[..]),
            asked => path.strip_prefix(asked).and_then(|rest| rest.strip_prefix(b"/")),
        };
        below
            .filter(|below| *below == b"." || is_inside(below))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| Self::nonsense("was not asked for", path))
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
    fn refuses<R: Read>(&self, entry: &tar::Entry<'_, R>, path: &[u8]) -> Option<&'static str> {
        let kind = entry.header().entry_type();
        if kind.is_symlink() && !self.archive {
            let target = entry.link_name_bytes().unwrap_or_default();
            return leads_out(path, &target).then_some("a link that leads out");
        }
        let is_kept = kind.is_file()
            || kind.is_contiguous()
            || kind.is_gnu_sparse()
            || kind.is_dir()
            || kind.is_symlink()
            || kind.is_hard_link();
        (!is_kept).then_some("neither file, directory nor link")
    }

    fn bound<R: Read>(&self, entry: &tar::Entry<'_, R>, taken: &mut Taken) -> Result<()> {
        taken.entries += 1;
        if taken.entries > self.entries {
            return Err(Error::failed(format!("the guest sent more than {} files", self.entries)));
        }
        taken.bytes = taken.bytes.saturating_add(entry.size());
        if taken.bytes > MOST_BYTES {
            return Err(Error::failed(format!(
                "the guest's files hold more than {MOST_BYTES} bytes"
            )));
        }
        Ok(())
    }

    fn nonsense(what: &str, path: &[u8]) -> Error {
        Error::failed(format!("'{}' in the guest's stream {what}", path.escape_ascii()))
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

/// The files this stream made, by a hash of their paths which a guest cannot foresee.
#[derive(Default)]
struct Made {
    hasher: RandomState,
    paths: HashSet<u64>,
}

impl Made {
    fn note(&mut self, path: &[u8]) {
        self.paths.insert(self.hasher.hash_one(path));
    }

    fn forget(&mut self, path: &[u8]) {
        self.paths.remove(&self.hasher.hash_one(path));
    }

    fn has(&self, path: &[u8]) -> bool {
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
