//! A directory of work in progress, with a tree, an index and objects for git.

use crate::{
    path::{parents, shown},
    temporary::Temporary,
};
use banger_doc::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::{Mode, mkdirat},
};
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

/// The most bytes of lists of rules that are copied for git to read.
pub(crate) const MAX_ALL_RULES: u64 = 64 << 20;

/// A directory of work in progress beside the store, gone with its value. A killed program's is
/// removed by the next one.
#[derive(Debug)]
pub(crate) struct Scratch(Temporary);

impl Scratch {
    pub(crate) fn beside(beside: &Path) -> Result<Self> {
        Self::within(Temporary::beside(beside)?)
    }

    /// Makes one among the system's temporary files.
    pub(crate) fn new() -> Result<Self> {
        Self::within(Temporary::new()?)
    }

    fn within(dir: Temporary) -> Result<Self> {
        for part in ["tree", "objects", "links"] {
            fs::create_dir(dir.path().join(part)).context("cannot make a scratch directory")?;
        }
        Ok(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Removes it, and says why it cannot be.
    pub(crate) fn remove(self) -> Result<()> {
        self.0.remove()
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.path().join("tree")
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.path().join("objects")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.path().join("index")
    }

    /// Writes a file of the scratch tree. No link is ever made in there, so a checked path stays.
    pub(crate) fn write(
        &self,
        path: &[u8],
        executable: bool,
        content: &mut dyn Read,
    ) -> Result<()> {
        let said = || format!("cannot write '{}'", shown(path));
        let tree = self.open_tree()?;
        if let Some(end) = path.iter().rposition(|byte| *byte == b'/') {
            make_dirs(&tree, &path[..end]).with_context(said)?;
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(if executable { 0o700 } else { 0o600 });
        let mut file = openat(&tree, path, flags, mode).map(File::from).with_context(said)?;
        std::io::copy(content, &mut file).with_context(said)?;
        Ok(())
    }

    /// Opens the tree. A path of the guest may be as long as a path can be, so it is one from here.
    pub(crate) fn open_tree(&self) -> Result<File> {
        File::open(self.tree()).context("cannot open a scratch directory")
    }
}

/// Makes a directory below an open one, with those it lies in.
pub(crate) fn make_dirs(tree: &File, dir: &[u8]) -> nix::Result<()> {
    let make = |dir: &[u8]| match mkdirat(tree, dir, Mode::S_IRWXU) {
        Err(Errno::EEXIST) => Ok(()),
        done => done,
    };
    match make(dir) {
        Err(Errno::ENOENT) => parents(dir).try_for_each(make),
        done => done,
    }
}
