//! The user's `~/.ssh/config`: found, and replaced whole or left alone.

use banger_doc::{Context, Error, Result};
use banger_state::{Lock, read_limited};
use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

/// A longer file is no configuration a person keeps.
const MAX_BYTES: u64 = 16 << 20;
const LOCK_LIMIT: Duration = Duration::from_secs(20);

/// The file that is changed: where links lead to, so that a link stays one.
pub(crate) struct Target {
    shown: PathBuf,
    real: PathBuf,
    /// The file to include, for what to do by hand.
    include: Option<PathBuf>,
}

impl Target {
    /// Finds the file below `home`.
    pub(crate) fn find(home: &Path, include: Option<&Path>) -> Result<Self> {
        let dir = home.join(".ssh");
        let shown = dir.join("config");
        let include = include.map(Path::to_owned);
        let real = match fs::symlink_metadata(&shown) {
            Ok(_) => fs::canonicalize(&shown)
                .with_context(|| format!("cannot follow '{}'", shown.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => shown.clone(),
            Err(error) => return Err(error).context(format!("cannot find '{}'", shown.display())),
        };
        Ok(Self { shown, real, include })
    }

    /// Returns the path as the user knows it.
    pub(crate) fn shown(&self) -> &Path {
        &self.shown
    }

    /// Replaces the file whole by what `edit` makes of it; says whether anything changed.
    pub(crate) fn change(&self, edit: impl FnOnce(&[u8]) -> Result<Vec<u8>>) -> Result<bool> {
        let failed = || format!("cannot change '{}'", self.shown.display());
        let dir = self.real.parent().ok_or_else(|| Error::failed(failed()))?;
        if !dir.is_dir() {
            if self.include.is_none() {
                return Ok(false);
            }
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .with_context(|| format!("cannot make '{}'", dir.display()))?;
        }
        let _lock = Lock::exclusive_dir(dir, LOCK_LIMIT, "the folder of your ssh configuration")?;
        let before = match fs::metadata(&self.real) {
            Ok(meta) if meta.is_file() => Some(meta),
            Ok(_) => return Err(Error::failed(failed()).because(not_a_file())),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(failed),
        };
        let text = match &before {
            Some(_) => read_limited(&self.real, MAX_BYTES)?,
            None => Vec::new(),
        };
        let new = edit(&text).with_context(failed)?;
        if new == text {
            return Ok(false);
        }
        // Who made it read-only wants it to stay as it is.
        if before.as_ref().is_some_and(|meta| meta.permissions().readonly()) {
            return Err(self
                .by_hand(Error::unavailable(format!("'{}' is read-only", self.shown.display()))));
        }
        self.write(dir, &new, before.as_ref())
            .map_err(|error| self.by_hand(Error::unavailable(failed()).because(error)))?;
        Ok(true)
    }

    fn write(&self, dir: &Path, text: &[u8], before: Option<&fs::Metadata>) -> std::io::Result<()> {
        let beside = dir.join(format!(".banger-config.{}", std::process::id()));
        let write = || {
            let mut file = File::create(&beside)?;
            let mode = before.map_or(0o600, |meta| meta.mode() & 0o7777);
            file.set_permissions(Permissions::from_mode(mode))?;
            if let Some(meta) = before
                && file.metadata()?.uid() != meta.uid()
            {
                chown(&beside, Some(meta.uid()), Some(meta.gid()))?;
            }
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&beside, &self.real)?;
            File::open(dir)?.sync_all()
        };
        write().inspect_err(|_| drop(fs::remove_file(&beside)))
    }

    fn by_hand(&self, error: Error) -> Error {
        error.hint(match &self.include {
            Some(path) => {
                format!("put this line at its beginning by hand: Include \"{}\"", path.display())
            }
            None => "take banger's lines out by hand".to_owned(),
        })
    }
}

fn not_a_file() -> std::io::Error {
    std::io::Error::other("it is no file")
}
