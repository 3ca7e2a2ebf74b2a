//! What the guest changed, path by path, and where the bytes of it are.

use super::{decide::File, last::Last, merge::MOST, put::From};
use crate::{
    export::sides::Sides,
    git::{MODULE, split_zero},
    host::{self, Dir},
    names::hex,
    prepare::plan::is_safe,
    record::given::{Given, Sort},
};
use banger_doc::{Context, Error, Result};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File as Disk,
    io::Read,
};

/// The longest target of a link, and the most bytes of all objects that are read at once.
const MAX_LINK: u64 = 8192;
const MOST_OF_ALL: u64 = 1 << 30;

/// A path that is not as it went in, or was not the last time.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    /// Where the guest has it from, if it renamed it.
    pub(super) from: Option<Vec<u8>>,
    pub(super) base: Option<File>,
    pub(super) theirs: Option<File>,
}

/// The guest's work.
pub(super) struct Work {
    pub(super) changes: BTreeMap<Vec<u8>, Changed>,
    /// What the guest renamed, and to what.
    pub(super) renamed: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Submodules that are at another commit.
    pub(super) modules: Vec<Vec<u8>>,
    /// The guest's files, as they lie there.
    tree: Dir,
    /// Targets of links by object.
    targets: BTreeMap<String, Vec<u8>>,
}

/// Returns what went in at a path, if it is of the tree.
pub(super) fn given_file(given: Option<&Given>) -> Option<File> {
    let given =
        given.filter(|given| matches!(given.sort, Sort::File | Sort::Link | Sort::Sparse))?;
    let (mode, sum, oid) = (given.mode, given.sum.clone(), given.oid.clone());
    (!oid.is_empty()).then_some(File { mode, sum, oid })
}

impl Work {
    pub(super) fn of(sides: &Sides, last: Option<&Last>) -> Result<Self> {
        let tree = Dir::open(&sides.scratch.tree())?;
        let words =
            ["diff-tree", "-r", "-z", "-M", "--raw", "--full-index", "--ignore-submodules=none"];
        let words = words.iter().copied();
        let words = words.chain([sides.record.prepared_tree.as_str(), sides.whole.as_str()]);
        let answer = sides
            .git_for_guest()
            .run(words, b"")
            .context("cannot compare what went in and what is there")?;
        let (changes, renamed, targets) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut work = Self { changes, renamed, modules: Vec::new(), tree, targets };
        let mut fields = split_zero(&answer);
        while let Some(head) = fields.next() {
            let head = String::from_utf8_lossy(head);
            let words: Vec<&str> = head.trim_start_matches(':').split(' ').collect();
            let ([before, mode, _, oid, how], Some(path)) = (words.as_slice(), fields.next())
            else {
                return Err(Error::failed("git answered something else than changes"));
            };
            let modes = [before, mode].map(|mode: &&str| u32::from_str_radix(mode, 8).unwrap_or(0));
            let mut path = path.to_vec();
            let mut from = None;
            if how.starts_with('R') {
                let half = || Error::failed("git answered half a rename");
                let new = fields.next().ok_or_else(half)?.to_vec();
                from = Some(std::mem::replace(&mut path, new));
            }
            if modes.contains(&MODULE) {
                work.modules.push(path);
                continue;
            }
            work.add(sides, path, from, modes[1], oid)?;
        }
        for path in last.into_iter().flat_map(Last::paths) {
            if !work.changes.contains_key(path) {
                // The guest took back what this checkout got.
                let base = given_file(sides.given.get(path));
                let changed = Changed { from: None, theirs: base.clone(), base };
                work.changes.insert(path.clone(), changed);
            }
        }
        let links = work.changes.values().filter_map(|changed| changed.theirs.as_ref());
        let links: BTreeSet<&String> =
            links.filter(|file| file.is_link()).map(|file| &file.oid).collect();
        work.targets =
            sides.store.blobs_with(Some(&sides.scratch), &links, MAX_LINK, MOST_OF_ALL)?;
        for file in work.changes.values_mut().filter_map(|changed| changed.theirs.as_mut()) {
            if let Some(target) = work.targets.get(&file.oid).filter(|_| file.is_link()) {
                file.sum = hex(&Sha256::digest(target));
            }
        }
        Ok(work)
    }

    fn add(
        &mut self,
        sides: &Sides,
        path: Vec<u8>,
        from: Option<Vec<u8>>,
        mode: u32,
        oid: &str,
    ) -> Result<()> {
        if !is_safe(&path) {
            let path = path.escape_ascii();
            return Err(Error::failed(format!(
                "the guest has '{path}', which is no path of a work tree"
            ))
            .hint("the guest may be broken or hostile"));
        }
        if let Some(from) = &from {
            let base = given_file(sides.given.get(from));
            self.changes.insert(from.clone(), Changed { from: None, base, theirs: None });
            self.renamed.insert(from.clone(), path.clone());
        }
        let mut theirs = None;
        if mode != 0 {
            let mut file = File { mode, sum: String::new(), oid: oid.to_owned() };
            if !file.is_link() {
                file.sum = self.sum(&path)?;
            }
            theirs = Some(file);
        }
        let base = given_file(sides.given.get(&path));
        self.changes.insert(path, Changed { from, base, theirs });
        Ok(())
    }

    /// Returns the sum of a file as the guest has it.
    fn sum(&self, path: &[u8]) -> Result<String> {
        let said = || format!("cannot read what was read of '{}'", path.escape_ascii());
        let mut file = self.tree.file(path).with_context(said)?;
        let mut sum = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match Disk::read(&mut file, &mut buffer).with_context(said)? {
                0 => return Ok(hex(&sum.finalize())),
                size => sum.update(&buffer[..size]),
            }
        }
    }

    /// Returns where the bytes are that the guest has at a path; none if only what went in could be made again.
    pub(super) fn bytes(&self, path: &[u8], file: &File) -> Option<From> {
        if file.is_link() {
            return self.targets.get(&file.oid).cloned().map(From::Here);
        }
        let is_there = self.changes.get(path).is_some_and(|changed| changed.theirs != changed.base);
        is_there.then(|| From::File(self.tree.clone(), path.to_vec()))
    }

    /// Reads a file of the guest's that may be text; none if it is too large.
    pub(super) fn text(&self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        text(&self.tree, path, MOST)
    }

    /// Reads it, if it is of at most `most` bytes.
    pub(super) fn small(&self, path: &[u8], most: u64) -> Option<Vec<u8>> {
        text(&self.tree, path, most).ok().flatten()
    }
}

/// Reads a file of at most `most` bytes.
pub(super) fn text(dir: &Dir, path: &[u8], most: u64) -> Result<Option<Vec<u8>>> {
    let at = dir.join(path);
    let said = || format!("cannot read '{}'", at.display());
    let file = dir.file(path).with_context(said)?;
    if file.metadata().with_context(said)?.len() > most {
        return Ok(None);
    }
    host::read(&file, most, &at).map(Some)
}

/// Returns the bytes that went in, by the object that stands for them: the same, or with line ends as they were.
pub(super) fn as_it_went_in(file: &File, blob: Vec<u8>) -> Option<Vec<u8>> {
    let is_it = |bytes: &[u8]| file.sum.is_empty() || hex(&Sha256::digest(bytes)) == file.sum;
    if is_it(&blob) {
        return Some(blob);
    }
    let mut bytes = Vec::with_capacity(blob.len() + blob.len() / 16);
    for byte in blob {
        if byte == b'\n' {
            bytes.push(b'\r');
        }
        bytes.push(byte);
    }
    is_it(&bytes).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_come_back_as_they_went_in() {
        let went_in = |bytes: &[u8]| File {
            mode: 0o100_644,
            sum: hex(&Sha256::digest(bytes)),
            oid: String::new(),
        };
        let back = |bytes: &[u8], blob: &[u8]| as_it_went_in(&went_in(bytes), blob.to_vec());
        assert_eq!(back(b"a\nb\n", b"a\nb\n").as_deref(), Some(&b"a\nb\n"[..]));
        assert_eq!(back(b"a\r\nb\r\n", b"a\nb\n").as_deref(), Some(&b"a\r\nb\r\n"[..]));
        assert_eq!(back(b"a\r\nb\n", b"a\nb\n"), None);
        assert_eq!(back(b"large", b"pointer"), None);
    }
}
