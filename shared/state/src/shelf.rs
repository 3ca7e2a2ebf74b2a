//! A shelf: objects of one kind, a folder each.

use crate::{Lock, file, load};
use banger_doc::{Context, Document, Error, Name, Result};
use banger_tree::{remove_tree, remove_tree_if_there};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};
use std::{
    fs::{self, File},
    io::ErrorKind,
    marker::PhantomData,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a shelf may stay locked by another program. Nothing slow happens under that lock.
const SHELF_LIMIT: Duration = Duration::from_secs(20);

/// Objects of one kind, a folder each, with one document that names the object.
#[derive(Debug)]
pub struct Shelf<D> {
    dir: PathBuf,
    document: &'static str,
    what: &'static str,
    of: PhantomData<fn() -> D>,
}

impl<D: Document> Shelf<D> {
    pub(crate) fn new(dir: PathBuf, document: &'static str, what: &'static str) -> Self {
        Self { dir, document, what, of: PhantomData }
    }

    /// Returns the folder an object of this name has or would have.
    pub fn folder(&self, name: &Name) -> PathBuf {
        self.dir.join(name.as_str())
    }

    /// Says whether the object is there. One that cannot be looked at is, and reading it says why.
    pub fn has(&self, name: &Name) -> bool {
        let found = fs::metadata(self.folder(name).join(self.document));
        let is_absent = |error: &std::io::Error| {
            matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        };
        !found.is_err_and(|error| is_absent(&error))
    }

    /// Returns the names of all objects, sorted.
    pub fn names(&self) -> Result<Vec<Name>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).context(format!("cannot list '{}'", self.dir.display()));
            }
        };
        let mut names: Vec<Name> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// Fails with the nearest name as a hint if the object is not there.
    pub fn must_exist(&self, name: &Name) -> Result<()> {
        if self.has(name) {
            return Ok(());
        }
        let error = absent(self.what, name);
        Err(match (self.nearest(name), error.hint_text()) {
            (Some(near), Some(hint)) => {
                let hint = format!("did you mean '{near}'? {hint}");
                error.hint(hint)
            }
            _ => error,
        })
    }

    /// Returns the name somebody may have meant who typed one that is not there.
    pub fn nearest(&self, name: &Name) -> Option<Name> {
        let names = self.names().unwrap_or_default();
        let away = |other: &Name| strsim::osa_distance(other.as_str(), name.as_str());
        names
            .into_iter()
            .map(|other| (away(&other), other))
            .min()
            .filter(|(distance, other)| *distance <= 2 && *distance * 2 < other.as_str().len())
            .map(|(_, other)| other)
    }

    /// Reads an object's document.
    pub fn get(&self, name: &Name) -> Result<D> {
        self.must_exist(name)?;
        load(&self.folder(name).join(self.document), self.what, name)
    }

    /// Begins a new object: an empty folder nobody sees yet.
    pub fn begin(&self, name: &Name) -> Result<Staged> {
        if self.what == "VM" && !name.is_label() {
            return Err(Error::usage(format!("'{name}' is no name for a VM: it has a '.'"))
                .hint("a VM's name is its host name: use a-z, 0-9 and '-'"));
        }
        if self.has(name) {
            return Err(self.exists(name));
        }
        self.begin_over(name)
    }

    /// Begins an object that may take the place of one; see [`Shelf::publish_over`].
    pub fn begin_over(&self, name: &Name) -> Result<Staged> {
        let path = self.dir.join(format!(".new-{name}-{}", std::process::id()));
        // Keeps `banger gc` from seeing the folder before its own lock is taken.
        let _shelf = self.lock()?;
        remove_tree_if_there(&path)
            .with_context(|| format!("cannot remove '{}'", path.display()))?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make '{}'", path.display()))?;
        let mut staged = Staged { path, lock: None };
        // Whoever only asks whether it is held shares it for a moment.
        staged.lock = Some(Lock::exclusive_dir(&staged.path, SHELF_LIMIT, self.what)?);
        Ok(staged)
    }

    /// Publishes a begun object with its document: afterwards everybody sees all of it.
    pub fn publish(&self, name: &Name, staged: Staged, document: &D) -> Result<()> {
        file::write_document(&staged.path.join(self.document), document)?;
        sync(&staged.path)?;
        let _lock = self.lock()?;
        let folder = self.folder(name);
        if folder.exists() {
            return Err(self.exists(name));
        }
        fs::rename(&staged.path, &folder)
            .with_context(|| format!("cannot publish '{}'", folder.display()))?;
        sync(&self.dir)
    }

    /// Publishes a begun object in place of one that may be there already.
    ///
    /// Killed at any moment, the name stands for the one or the other.
    pub fn publish_over(&self, name: &Name, staged: Staged, document: &D) -> Result<()> {
        self.replace(name, staged, document, |_| Ok(()))
    }

    /// Like [`Shelf::publish_over`]; `check` sees what is there, under the shelf's lock, and may
    /// refuse.
    pub fn replace(
        &self,
        name: &Name,
        staged: Staged,
        document: &D,
        check: impl FnOnce(&D) -> Result<()>,
    ) -> Result<()> {
        file::write_document(&staged.path.join(self.document), document)?;
        self.place(name, &staged, check)
    }

    /// Like [`Shelf::replace`], for a document that is the changed one of the object that is there:
    /// fields of a newer banger are kept.
    pub fn rewrite(
        &self,
        name: &Name,
        staged: Staged,
        document: &D,
        check: impl FnOnce(&D) -> Result<()>,
    ) -> Result<()> {
        self.must_exist(name)?;
        let place = staged.path.join(self.document);
        fs::copy(self.folder(name).join(self.document), &place)
            .with_context(|| format!("cannot write '{}'", place.display()))?;
        file::rewrite_document(&place, document)?;
        self.place(name, &staged, check)
    }

    /// Puts a begun object, whose document is written, in its place.
    fn place(
        &self,
        name: &Name,
        staged: &Staged,
        check: impl FnOnce(&D) -> Result<()>,
    ) -> Result<()> {
        sync(&staged.path)?;
        let _lock = self.lock()?;
        let folder = self.folder(name);
        if !folder.exists() {
            fs::rename(&staged.path, &folder)
                .with_context(|| format!("cannot publish '{}'", folder.display()))?;
            return sync(&self.dir);
        }
        check(&self.get(name)?)?;
        self.exchange(name, &staged.path, &folder)?;
        // What was there before now lies where the new one was begun, and goes with it.
        sync(&self.dir)
    }

    /// Puts one folder in the place of another in one step, so that the name always is somebody's.
    fn exchange(&self, name: &Name, new: &Path, folder: &Path) -> Result<()> {
        match renameat2(AT_FDCWD, new, AT_FDCWD, folder, RenameFlags::RENAME_EXCHANGE) {
            Err(Errno::EINVAL | Errno::ENOSYS) => {}
            other => {
                return other.with_context(|| format!("cannot publish '{}'", folder.display()));
            }
        }
        // A file system that cannot do so, such as one over the network.
        let aside = self.aside(name)?;
        fs::rename(folder, &aside)
            .with_context(|| format!("cannot move '{}' aside", folder.display()))?;
        fs::rename(new, folder)
            .with_context(|| format!("cannot publish '{}'", folder.display()))?;
        remove_tree(&aside).with_context(|| format!("cannot remove '{}'", aside.display())).map_err(
            |error| error.or_hint(format!("'{name}' is replaced; 'banger gc' removes the rest")),
        )
    }

    /// Removes an object: it disappears whole, then its files go. `check` runs under the shelf's
    /// lock and may refuse.
    pub fn remove(&self, name: &Name, check: impl Fn(&D) -> Result<()>) -> Result<()> {
        let folder = self.folder(name);
        let what = format!("{} '{name}'", self.what);
        let (busy, aside, synced) = loop {
            self.must_exist(name)?;
            // Held on the folder itself until all of it is gone: tells `banger gc` that somebody is
            // at work on it. Taken before the shelf's lock, so that nobody waits for that as long as
            // another program works on this one.
            let busy = Lock::exclusive_dir(&folder, SHELF_LIMIT, &what)
                .map_err(|error| if folder.exists() { error } else { absent(self.what, name) })?;
            let _lock = self.lock()?;
            check(&self.get(name)?)?;
            // Another object may have taken its place meanwhile.
            if busy.is_of(&folder) {
                let aside = self.aside(name)?;
                fs::rename(&folder, &aside)
                    .with_context(|| format!("cannot remove '{}'", folder.display()))?;
                break (busy, aside, sync(&self.dir));
            }
        };
        // It has disappeared: its files go, whether or not the disk has noted that yet.
        let removed =
            remove_tree(&aside).with_context(|| format!("cannot remove '{}'", aside.display()));
        drop(busy);
        removed.and(synced)
    }

    /// Lists folders that a killed program left half made or half removed. Ask under
    /// [`Shelf::lock`]: nobody begins or removes an object then.
    pub fn litter(&self) -> Result<Vec<PathBuf>> {
        let mut litter = Vec::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let ours =
                name.to_str().is_some_and(|n| n.starts_with(".new-") || n.starts_with(".old-"));
            if ours && entry.path().is_dir() && !Lock::is_held(&entry.path())? {
                litter.push(entry.path());
            }
        }
        litter.sort();
        Ok(litter)
    }

    /// Takes the lock under which objects are added and removed.
    pub fn lock(&self) -> Result<Lock> {
        Lock::exclusive(&self.dir.join(".lock"), SHELF_LIMIT, self.what)
    }

    /// Returns where an object goes before its files do. What a killed program of the same number
    /// left there is removed. Call it under [`Shelf::lock`].
    fn aside(&self, name: &Name) -> Result<PathBuf> {
        let path = self.dir.join(format!(".old-{name}-{}", std::process::id()));
        remove_tree_if_there(&path)
            .with_context(|| format!("cannot remove '{}'", path.display()))
            .map(|()| path)
    }

    fn exists(&self, name: &Name) -> Error {
        let noun = self.what.to_lowercase();
        Error::conflict(format!("{} '{name}' exists", self.what))
            .hint(format!("choose another name, or 'banger {noun} delete {name}' first"))
    }
}

/// The error of an object that is not there.
pub(crate) fn absent(what: &str, name: &Name) -> Error {
    let list = match what {
        "export" => "workspace exports".to_owned(),
        _ => format!("{} list", what.to_lowercase()),
    };
    Error::not_found(format!("no {what} '{name}'"))
        .hint(format!("'banger {list}' shows what is there"))
}

/// A folder nobody sees yet. Dropped before it is published, it is removed; if the program is
/// killed, the lock on it ends and `banger gc` removes it.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    lock: Option<Lock>,
}

impl Staged {
    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What stays is for `banger gc`, which says why it cannot go.
        let _ = remove_tree_if_there(&self.path);
        self.lock.take();
    }
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("cannot sync '{}'", dir.display()))
}
