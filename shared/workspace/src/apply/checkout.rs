//! The host's checkout as it lies there, next to what its index and HEAD say of a path.

use super::decide::File;
use crate::{
    git::{LINK, split_zero},
    host::index::Entry,
    host::source::{Repository, Source},
    host::{Dir, Sort, sort_of},
    names::hex,
    path::parents,
    record,
    record::given::{Given, Seen},
};
use banger_doc::{Context, Error, Result, Workspace, shell_word};
use nix::{errno::Errno, sys::stat::FileStat};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Instant,
};

/// What git may be in the middle of, by the file that says so.
const BUSY: &[(&str, &str)] = &[
    ("MERGE_HEAD", "a merge"),
    ("rebase-merge", "a rebase"),
    ("rebase-apply", "a rebase"),
    ("CHERRY_PICK_HEAD", "a cherry-pick"),
    ("REVERT_HEAD", "a revert"),
];

/// What lies at a path.
#[derive(Clone, Debug)]
pub(super) enum Lies {
    Nothing,
    /// A file or a link.
    Found(Found),
    /// Nothing, since a sparse checkout leaves it out; what it would be.
    Sparse(File),
    Dir,
    /// A pipe, a socket, a device.
    Other,
}

/// A file or a link as it was when it was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Found {
    pub(super) file: File,
    pub(super) seen: Seen,
    /// The bits of its mode.
    pub(super) bits: u32,
    /// Whether it is a link on disk.
    pub(super) is_link: bool,
}

impl Lies {
    /// Returns the file or link that counts as the host's.
    pub(super) fn file(&self) -> Option<&File> {
        match self {
            Self::Found(found) => Some(&found.file),
            Self::Sparse(file) => Some(file),
            _ => None,
        }
    }
}

/// A checkout of the host's.
#[derive(Debug)]
pub(super) struct Checkout {
    pub(super) root: Dir,
    pub(super) repository: Option<Box<Repository>>,
    /// What HEAD has at each path: mode and object. Nothing on a branch without commits.
    head: Option<BTreeMap<Vec<u8>, (u32, String)>>,
    /// The entries of the index, by path.
    index: BTreeMap<Vec<u8>, Vec<Entry>>,
    /// Whether modes of files say nothing here.
    pub(super) keeps_mode: bool,
    /// Whether links are files here.
    pub(super) keeps_links: bool,
    /// Whether names that differ in case alone are one.
    pub(super) folds_case: bool,
}

impl Checkout {
    /// Opens the checkout that a workspace came from, or another one of the same repository.
    pub(super) fn open(record: &Workspace, named: Option<&Path>, all: &[PathBuf]) -> Result<Self> {
        let path = named.map_or_else(|| PathBuf::from(&record.host_path), Path::to_owned);
        let said = || format!("cannot look at '{}'", path.display());
        let real = match fs::canonicalize(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::not_found(format!("no '{}'", path.display()))
                    .hint("name a checkout of the repository after the VM"));
            }
            real => real.with_context(said)?,
        };
        if !record.is_repository {
            if !real.is_dir() {
                return Err(Error::usage(format!("'{}' is no directory", path.display())));
            }
            return Ok(Self {
                root: Dir::open(&real)?,
                repository: None,
                head: None,
                index: BTreeMap::new(),
                keeps_mode: false,
                keeps_links: false,
                folds_case: false,
            });
        }
        let trusted = [record::trusted(record), all.to_vec()].concat();
        let Source::Repository(repository) = Source::open(&real, &trusted)? else {
            return Err(Error::usage(format!("'{}' is no checkout", path.display()))
                .hint("name a checkout of the repository that went in"));
        };
        is_of(&repository, record)?;
        let is_set = |key: &str, value: &str| repository.setting(key) == Some(value);
        let mut index: BTreeMap<Vec<u8>, Vec<Entry>> = BTreeMap::new();
        for entry in &repository.index.entries {
            index.entry(entry.path.clone()).or_default().push(entry.clone());
        }
        let commit = repository.head.commit.clone();
        Ok(Self {
            root: repository.host.root.clone(),
            head: commit.map(|commit| listed(&repository, &commit)).transpose()?,
            index,
            keeps_mode: is_set("core.filemode", "false"),
            keeps_links: is_set("core.symlinks", "false"),
            folds_case: is_set("core.ignorecase", "true"),
            repository: Some(repository),
        })
    }

    /// Fails while git is in the middle of something that changes files.
    pub(super) fn must_be_idle(&self) -> Result<()> {
        let Some(repository) = &self.repository else { return Ok(()) };
        let root = self.root.path();
        let at = shell_word(root);
        if let Some((_, what)) = BUSY.iter().find(|(name, _)| repository.has(name)) {
            return Err(Error::conflict(format!("{what} is going on in '{}'", root.display()))
                .hint(format!("'git -C {at} status' says how to end it; then again")));
        }
        if repository.has("index.lock") {
            let lock = repository.host.git.join(b"index.lock");
            return Err(Error::conflict(format!("git is at work in '{}'", root.display())).hint(
                format!("try again when it is done; if none runs, 'rm {}'", shell_word(lock)),
            ));
        }
        Ok(())
    }

    /// Says whether git does not know of a path.
    pub(super) fn is_untracked(&self, path: &[u8]) -> bool {
        self.repository.is_some() && !self.index.contains_key(path)
    }

    /// Says whether something of a path is staged: its next commit would have something else than HEAD.
    pub(super) fn is_staged(&self, path: &[u8]) -> bool {
        let Some(head) = &self.head else { return false };
        match self.index.get(path).map(Vec::as_slice) {
            None => head.contains_key(path),
            Some([entry]) if entry.stage == 0 => {
                !entry.intent_to_add && head.get(path) != Some(&(entry.mode, entry.oid.clone()))
            }
            Some(_) => true,
        }
    }

    /// Looks at what lies at a path, next to what went in there; files are read until `end`.
    pub(super) fn lies(
        &self,
        path: &[u8],
        given: Option<&Given>,
        end: Option<Instant>,
    ) -> Result<Lies> {
        let said = || format!("cannot look at '{}'", self.root.join(path).display());
        let stat = match self.root.stat(path) {
            // Nothing of this checkout lies behind a link.
            Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => None,
            stat => stat.with_context(said)?,
        };
        let entry = self.index.get(path).and_then(|entries| entries.first());
        let Some(stat) = stat else {
            let left_out = entry.filter(|entry| entry.skip_worktree);
            return Ok(left_out.map_or(Lies::Nothing, |entry| {
                let (mode, oid) = (entry.mode, entry.oid.clone());
                Lies::Sparse(File { mode, sum: String::new(), oid })
            }));
        };
        let is_link = match sort_of(&stat) {
            Sort::Dir => return Ok(Lies::Dir),
            Sort::Other => return Ok(Lies::Other),
            sort => sort == Sort::Link,
        };
        let seen = seen(&stat);
        let mut mode = match stat.st_mode & 0o100 {
            _ if is_link => LINK,
            0 => 0o100_644,
            _ => 0o100_755,
        };
        let known = given.map(|given| given.mode).or(entry.map(|entry| entry.mode));
        if let Some(known) = known.filter(|_| !is_link) {
            let is_kept = if known == LINK { self.keeps_links } else { self.keeps_mode };
            if is_kept {
                mode = known;
            }
        }
        let given = given.filter(|given| given.host == Some(seen) && !given.sum.is_empty());
        let sum = match given {
            Some(given) => given.sum.clone(),
            None if is_link => hex(&Sha256::digest(self.root.link(path).with_context(said)?)),
            None => self.sum(path, end).with_context(said)?,
        };
        let file = File { mode, sum, oid: String::new() };
        Ok(Lies::Found(Found { file, seen, bits: stat.st_mode & 0o7777, is_link }))
    }

    /// Returns the sum of a file's bytes.
    pub(super) fn sum(&self, path: &[u8], end: Option<Instant>) -> io::Result<String> {
        let mut file = self.root.file(path)?;
        let mut sum = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            if end.is_some_and(|end| Instant::now() >= end) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match file.read(&mut buffer)? {
                0 => return Ok(hex(&sum.finalize())),
                size => sum.update(&buffer[..size]),
            }
        }
    }

    /// Returns the first directory above a path that is none, as it is on the host: a file or a link.
    pub(super) fn in_the_way<'a>(&self, path: &'a [u8]) -> Result<Option<&'a [u8]>> {
        for dir in parents(path).filter(|dir| *dir != path) {
            let said = || format!("cannot look at '{}'", self.root.join(dir).display());
            match self.root.sort(dir).with_context(said)? {
                None => return Ok(None),
                Some(Sort::Dir) => {}
                Some(_) => return Ok(Some(dir)),
            }
        }
        Ok(None)
    }
}

/// Fails unless a repository is the one of a workspace, or has the commit that it began from.
fn is_of(repository: &Repository, record: &Workspace) -> Result<()> {
    if repository.root.to_str() == Some(record.host_path.as_str()) {
        return Ok(());
    }
    let has = |commit: &String| {
        let full = format!("{commit}^{{commit}}");
        let said = repository.git().attempt(["cat-file", "-e", &full], b"");
        said.is_ok_and(|said| said.status.success())
    };
    if record.base_commit.as_ref().is_some_and(has) {
        return Ok(());
    }
    let root = repository.root.display();
    Err(Error::usage(format!("'{root}' is no checkout of what went in"))
        .because(match &record.base_commit {
            Some(commit) => format!("it lacks the commit {commit}"),
            None => format!("'{}' had no commits yet", record.host_path),
        })
        .hint("name a checkout of that repository, or fetch the commit into this one"))
}

/// Lists what a commit has: mode and object by path.
fn listed(repository: &Repository, commit: &str) -> Result<BTreeMap<Vec<u8>, (u32, String)>> {
    let answer = repository.git().run(["ls-tree", "-r", "-z", "--full-tree", commit], b"")?;
    let entry = |line: &[u8]| {
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let head = std::str::from_utf8(&line[..tab]).ok()?;
        let mut words = head.split(' ');
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        Some((line[tab + 1..].to_vec(), (mode, words.nth(1)?.to_owned())))
    };
    Ok(split_zero(&answer).filter_map(entry).collect())
}

/// Returns what lstat(2) says.
pub(super) fn seen(stat: &FileStat) -> Seen {
    let ns = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
    Seen {
        size: stat.st_size.unsigned_abs(),
        mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec),
        ino: stat.st_ino,
    }
}
