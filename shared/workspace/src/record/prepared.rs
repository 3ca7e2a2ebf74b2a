//! A workspace that was prepared, with what its guest was given.

use crate::{
    guest::{self, Look},
    record::{Folder, given::Tree, read, store::Store},
};
use banger_channel::files::Files;
use banger_doc::{Error, Result, Workspace};
use std::path::Path;

/// A prepared workspace, locked.
pub(crate) struct Prepared {
    pub(crate) folder: Folder,
    pub(crate) record: Workspace,
    pub(crate) store: Store,
    /// What the guest was given, and what an update that did not end was to give it.
    pub(crate) given: Tree,
    pub(crate) next: Option<Tree>,
}

impl Prepared {
    /// Opens the one whose record lies in `dir`.
    pub(crate) fn open(dir: &Path, files: &Files<'_>) -> Result<Self> {
        if read(dir)?.is_none() {
            return Err(no_workspace());
        }
        let folder = Folder::open(dir, files.budget().left()?)?;
        let record = folder.record()?.ok_or_else(no_workspace)?;
        let (given, next) = folder.trees(&record)?;
        let store = Store::open(dir, &record.object_format)?.until(files.budget().end());
        Ok(Self { folder, record, store, given, next })
    }

    /// Looks at what the guest has there now.
    pub(crate) fn look(&self, files: &Files<'_>) -> Result<Look> {
        let Self { record, store, given, next, .. } = self;
        guest::look(files, record, store, given, next.as_ref(), store.keeps_mode())
    }

    /// The same, of a guest that has to have something there.
    pub(crate) fn look_at_what_is_there(&self, files: &Files<'_>) -> Result<Look> {
        let look = self.look(files)?;
        if look.is_there {
            return Ok(look);
        }
        Err(Error::not_found(format!("no '{}' in the guest", self.record.guest_path))
            .hint("somebody removed it there"))
    }
}

pub(crate) fn no_workspace() -> Error {
    Error::not_found("no workspace in this VM")
        .hint("'banger workspace prepare' puts a repository into it")
}
