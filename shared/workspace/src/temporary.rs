//! Directories of work in progress, in which trees of others lie.

use banger_doc::{Context, Error, Result};
use banger_tree::remove_tree_if_there;
use std::path::{Path, PathBuf};

/// How a directory beside a store is called. A killed program's is removed by the next one.
pub(crate) const PREFIX: &str = ".tmp-";

/// A directory that is removed with its value, however deep what lies in it.
#[derive(Debug)]
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    /// Makes one among the system's temporary files.
    pub(crate) fn new() -> Result<Self> {
        let made = tempfile::tempdir().context("cannot make a scratch directory")?;
        Ok(Self(made.keep()))
    }

    /// Makes one in the folder of a workspace.
    pub(crate) fn beside(folder: &Path) -> Result<Self> {
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(folder);
        let made =
            made.with_context(|| format!("cannot make a directory in '{}'", folder.display()))?;
        Ok(Self(made.keep()))
    }

    /// Has all that come later lie in this one, for who has to end at any moment.
    pub(crate) fn holds_others(&self) -> Result<()> {
        let said = |_| Error::failed("temporary files are kept elsewhere already");
        tempfile::env::override_temp_dir(&self.0).map_err(said)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it, and says why it cannot be.
    pub(crate) fn remove(self) -> Result<()> {
        remove(&self.0)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Who ends in order asks for it and hears; what stays of one in a workspace's folder, the next
        // one there tells of.
        let _ = remove(&self.0);
    }
}

/// Removes a tree if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let hint = "look whose it is, and whether the disk of the state can be written to";
    remove_tree_if_there(path)
        .with_context(|| format!("cannot remove '{}'", path.display()))
        .map_err(|error| error.or_hint(hint))
}
