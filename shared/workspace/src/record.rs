//! The record of a workspace in a VM's folder.

pub(crate) mod folders;
pub(crate) mod given;
pub(crate) mod journal;
pub(crate) mod prepared;
pub(crate) mod store;
pub(crate) mod under_way;

use crate::{
    prepare::load::tree_of_given,
    prepare::plan::has_git,
    record::given::{Given, Tree},
    record::store::Store,
    record::under_way::clear_ready,
    temporary::{PREFIX, Temporary, remove},
};
use banger_doc::{Context, Error, Result, Workspace};
use banger_state::{Lock, place, read_document, rewrite_document, write_document};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What a store is made of, in the folder of a workspace.
const STORES: [&str; 4] = ["repo.git", "local", "modules", "applied"];
/// How many workspaces a VM may have.
pub(crate) const MOST: usize = 64;
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
        let end = Instant::now() + limit.min(BUSY);
        let lock = loop {
            // One by one: the folder of a VM that was deleted meanwhile does not come back.
            path.parent().map_or(Ok(()), make)?;
            make(path)?;
            let left = end.saturating_duration_since(Instant::now());
            match Lock::exclusive_dir(path, left, "the workspace") {
                Ok(lock) if lock.is_of(path) => break lock,
                // Whoever had it removed it, since nothing came of it.
                Err(error) if path.exists() || left.is_zero() => return Err(error),
                _ => {}
            }
        };
        let folder = Self { path: path.to_owned(), _lock: lock };
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            // Nobody else is here, so this is what a killed program left.
            if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                remove(&entry.path())?;
            }
        }
        // Likewise on the host. What cannot go there keeps nobody from the workspace: the next apply tells of it.
        let _ = clear_ready(path, false);
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
        let path = self.path.join(place::WORKSPACE_DOCUMENT);
        if path.exists() { rewrite_document(&path, record) } else { write_document(&path, record) }
    }

    /// Writes the first record: from now on the place in the guest is taken. Fails if another workspace took
    /// one that it would be in, or that would be in it.
    pub(crate) fn claim(&self, record: &Workspace) -> Result<()> {
        let all = self.path.parent().expect("because it lies in a VM's folder");
        let _turn = Lock::exclusive_dir(all, BUSY, "the list of workspaces")?;
        self.check_place(&record.guest_path)?;
        self.write(record)
    }

    /// Fails if another workspace of the VM is inside this place, or around it, or if there are too many.
    pub(crate) fn check_place(&self, guest_path: &str) -> Result<()> {
        let others = self.others()?;
        if let Some((_, other)) =
            others.iter().find(|(_, other)| meet(&other.guest_path, guest_path))
        {
            return Err(Error::conflict(format!(
                "'{guest_path}' and the workspace in '{}' would lie one in the other",
                other.guest_path
            ))
            .hint("'--guest-path DIR' names another place"));
        }
        if others.len() >= MOST {
            return Err(Error::conflict(format!("the VM has {} workspaces already", others.len()))
                .hint("what is removed in the guest is forgotten by the next 'banger workspace prepare'"));
        }
        Ok(())
    }

    /// Reads the records of the VM's other workspaces.
    pub(crate) fn others(&self) -> Result<Vec<(PathBuf, Workspace)>> {
        let vm = self.path.ancestors().nth(2).expect("because it lies in a VM's folder");
        let mut others = banger_state::workspaces(vm)?;
        others.retain(|path| *path != self.path);
        records_in(others)
    }

    /// Removes the folder, with all that is known of the workspace, but for what a killed apply left on the host.
    pub(crate) fn discard(self) -> Result<()> {
        self.forget()?;
        match clear_ready(&self.path, false) {
            Ok(Some(_)) => remove(&self.path),
            _ => Ok(()),
        }
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
        let record = self.path.join(place::WORKSPACE_DOCUMENT);
        let said = || format!("cannot remove '{}'", record.display());
        match fs::remove_file(&record) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let hint = "look whose it is, and whether the disk of the state can be written to";
                return Err(error).with_context(said).map_err(|error: Error| error.or_hint(hint));
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

/// Reads the record and what the guest was given without waiting for anybody; nothing if the record is
/// replaced meanwhile.
pub(crate) fn peek(folder: &Path) -> Result<Option<(Workspace, Tree)>> {
    let Some(record) = read(folder)? else { return Ok(None) };
    let is_plain = record.tree_file.starts_with("tree-") && !record.tree_file.contains('/');
    let tree = is_plain.then(|| given::read(&folder.join(&record.tree_file)).ok()).flatten();
    Ok(tree.map(|tree| (record, tree)))
}

/// Makes a directory if it is missing.
fn make(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).context(format!("cannot make '{}'", path.display()))
        }
        _ => Ok(()),
    }
}

/// Says whether one of two places in a guest is the other, or lies in it.
pub(crate) fn meet(one: &str, other: &str) -> bool {
    let is_in = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    is_in(one, other) || is_in(other, one)
}

/// Reads the records of workspaces; the one that was made first is the first.
pub(crate) fn records_in(folders: Vec<PathBuf>) -> Result<Vec<(PathBuf, Workspace)>> {
    let mut records = Vec::new();
    for folder in folders {
        // One that is gone meanwhile is none.
        records.extend(read(&folder)?.map(|record| (folder, record)));
    }
    records.sort_by(|(_, a), (_, b)| {
        (a.first_unix_ms, &a.guest_path).cmp(&(b.first_unix_ms, &b.guest_path))
    });
    Ok(records)
}

/// Reads the record in a workspace's folder without waiting for anybody.
pub fn read(folder: &Path) -> Result<Option<Workspace>> {
    let path = folder.join(place::WORKSPACE_DOCUMENT);
    if !path.exists() {
        return Ok(None);
    }
    match read_document(&path) {
        // Removed at this moment.
        Err(_) if !path.exists() => Ok(None),
        read => read.map(Some),
    }
}

/// Returns the directories of git's that a workspace's repository may lead to, as far as they are there.
pub(crate) fn trusted(record: &Workspace) -> Vec<PathBuf> {
    record.trusted_git_dirs.iter().map(PathBuf::from).filter(|dir| dir.is_dir()).collect()
}
