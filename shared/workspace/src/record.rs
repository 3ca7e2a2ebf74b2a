//! The record of a workspace in a VM's folder.

use crate::{
    given::{self, Given, Tree},
    journal,
    load::tree_of_given,
    plan::has_git,
    store::Store,
    temporary::{Temporary, remove},
};
use banger_doc::{Context, Error, Result, Workspace};
use banger_state::{Lock, place, read_document, rewrite_document, write_document};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

/// What a store is made of, in the folder of a workspace.
const STORES: [&str; 3] = ["repo.git", "local", "modules"];
/// How long another program may work on the same workspace.
pub(crate) const BUSY: Duration = Duration::from_mins(10);

/// The folder of a workspace's record, locked.
pub(crate) struct Folder {
    path: PathBuf,
    _lock: Lock,
}

impl Folder {
    /// Opens the folder, made if missing, and waits until nobody else works on it, for `limit` at most. What
    /// was given path by path since is then part of the record.
    pub(crate) fn open(path: &Path, limit: Duration) -> Result<Self> {
        let folder = Self::lock(path, limit)?;
        folder.take_in()?;
        Ok(folder)
    }

    /// Opens the folder without a look at what was given path by path.
    pub(crate) fn lock(path: &Path, limit: Duration) -> Result<Self> {
        // Alone: the folder of a VM that was deleted meanwhile does not come back.
        match fs::create_dir(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).context(format!("cannot make '{}'", path.display()));
            }
            _ => {}
        }
        let lock = Lock::exclusive_dir(path, limit.min(BUSY), "the workspace")?;
        let folder = Self { path: path.to_owned(), _lock: lock };
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            // Nobody else is here, so this is what a killed program left.
            if entry.file_name().as_encoded_bytes().starts_with(b".tmp-") {
                remove(&entry.path())?;
            }
        }
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes what was given path by path part of the record. A kill leaves the record as it was or as it is
    /// then.
    pub(crate) fn take_in(&self) -> Result<()> {
        let Some(told) = journal::read(&self.path)? else { return Ok(()) };
        let record = self.record()?.filter(|record| record.tree_file == told.tree_file);
        // Without its list it is of another time.
        if let Some(record) = record {
            let (mut tree, next) = self.trees(&record)?;
            let mut next = next.unwrap_or_else(|| tree.clone());
            for (path, given) in &told.done {
                journal::apply(&mut tree, path, given.as_ref());
                journal::apply(&mut next, path, given.as_ref());
            }
            for (path, given) in &told.open {
                journal::apply(&mut next, path, given.as_ref());
            }
            self.renew(record, &tree, &next)?;
        }
        journal::remove(&self.path)
    }

    /// Writes the record anew with what the guest was given, and what it may have been given beside that.
    pub(crate) fn renew(
        &self,
        mut record: Workspace,
        tree: &Tree,
        next: &Tree,
    ) -> Result<Workspace> {
        let store = Store::open(&self.path, &record.object_format)?;
        record.prepared_tree = tree_of_given(tree, &store)?;
        let lies = |(path, given): &(&Vec<u8>, &Given)| given.is_there() && !has_git(path);
        record.files = tree.iter().filter(lies).count() as u64;
        record.tree_file = self.write_tree(tree)?;
        let is_whole = tree.len() == next.len()
            && tree
                .iter()
                .all(|(path, given)| next.get(path).is_some_and(|next| next.is_same(given)));
        let is_ours = record.next.as_ref().is_none_or(|next| *next == record.given);
        if is_whole && is_ours {
            (record.next_tree_file, record.next) = (None, None);
        } else {
            record.next_tree_file = Some(self.write_tree(next)?);
            record.next.get_or_insert_with(|| record.given.clone());
        }
        self.write(&record)?;
        let kept = [Some(&record.tree_file), record.next_tree_file.as_ref()];
        self.tidy_but(&kept.into_iter().flatten().collect::<Vec<_>>());
        Ok(record)
    }

    /// Reads the record; nothing if the VM was never given a workspace.
    pub(crate) fn record(&self) -> Result<Option<Workspace>> {
        read(&self.path)
    }

    /// Reads what the guest was given, and what an update that did not end was to give.
    pub(crate) fn trees(&self, record: &Workspace) -> Result<(Tree, Option<Tree>)> {
        let given = given::read(&self.file(&record.tree_file)?)?;
        let next = record.next_tree_file.as_ref();
        let next = next.map(|name| given::read(&self.file(name)?)).transpose()?;
        Ok((given, next))
    }

    /// Writes a tree under a name that no record has yet.
    pub(crate) fn write_tree(&self, tree: &Tree) -> Result<String> {
        let mut n = 1u64;
        let mut name = format!("tree-{n}.jsonl");
        while self.path.join(&name).exists() {
            n += 1;
            name = format!("tree-{n}.jsonl");
        }
        given::write(&self.path.join(&name), tree)?;
        Ok(name)
    }

    /// Replaces the record.
    pub(crate) fn write(&self, record: &Workspace) -> Result<()> {
        let path = self.path.join(document());
        if path.exists() { rewrite_document(&path, record) } else { write_document(&path, record) }
    }

    /// Removes the trees that no record names.
    pub(crate) fn tidy(&self, kept: &str) {
        self.tidy_but(&[&kept.to_owned()]);
    }

    fn tidy_but(&self, kept: &[&String]) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("tree-") && !kept.iter().any(|kept| **kept == name) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Makes a place for a store beside the one that is in use.
    pub(crate) fn scratch(&self) -> Result<Temporary> {
        Temporary::beside(&self.path)
    }

    /// Removes all that is known of the workspace, and takes the store that was made in `new`.
    pub(crate) fn replace(&self, new: &Path) -> Result<()> {
        self.forget()?;
        for name in STORES {
            match fs::rename(new.join(name), self.path.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).context("cannot take over what was made of the repository");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes all that is known of the workspace.
    pub(crate) fn forget(&self) -> Result<()> {
        let record = self.path.join(document());
        let said = || format!("cannot remove '{}'", record.display());
        match fs::remove_file(&record) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(said);
            }
            _ => {}
        }
        for name in STORES {
            remove(&self.path.join(name))?;
        }
        self.tidy("");
        journal::remove(&self.path)
    }

    fn file(&self, name: &str) -> Result<PathBuf> {
        let is_plain = name.starts_with("tree-") && !name.contains('/');
        if is_plain {
            Ok(self.path.join(name))
        } else {
            Err(Error::failed("the record is damaged"))
        }
    }
}

fn document() -> &'static str {
    let name = place::VM_WORKSPACE_DOCUMENT;
    name.rsplit_once('/').map_or(name, |(_, name)| name)
}

/// Reads the record in a workspace's folder without waiting for anybody.
pub fn read(folder: &Path) -> Result<Option<Workspace>> {
    let path = folder.join(document());
    if path.exists() { read_document(&path).map(Some) } else { Ok(None) }
}

/// Returns the directories of git's that a workspace's repository may lead to, as far as they are there.
pub(crate) fn trusted(record: &Workspace) -> Vec<PathBuf> {
    record.trusted_git_dirs.iter().map(PathBuf::from).filter(|dir| dir.is_dir()).collect()
}
