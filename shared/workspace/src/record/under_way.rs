//! What an apply has lying ready in a checkout of the host's, and what becomes of it when that one is killed.

use crate::host::{Dir, Sort};
use banger_doc::{Context, Result};
use banger_state::place;
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// How everything begins that lies ready.
pub(crate) const READY: &str = ".banger-";

/// What an apply is about to do. One that was killed has left it.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct UnderWay {
    /// The checkout.
    pub(crate) root: PathBuf,
    /// How the names of what lies ready begin.
    pub(crate) mark: String,
    /// Directories that something lies ready in.
    pub(crate) dirs: Vec<Vec<u8>>,
    /// Paths that go.
    pub(crate) goes: Vec<Vec<u8>>,
}

impl UnderWay {
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let bytes =
            banger_state::read_limited(&folder.join(place::WORKSPACE_APPLYING), 1 << 30).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let bytes =
            serde_json::to_vec(self).context("cannot write down what is about to be done")?;
        banger_state::replace(&folder.join(place::WORKSPACE_APPLYING), &bytes)
    }

    pub(crate) fn remove(folder: &Path) -> Result<()> {
        match fs::remove_file(folder.join(place::WORKSPACE_APPLYING)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).context("cannot remove what was about to be done")
            }
            _ => Ok(()),
        }
    }

    /// Removes what lies ready, and returns where it lay; with `dry_run` that alone. Nothing is known of a checkout
    /// that is not there, since it may lie on a disk that comes back.
    pub(crate) fn clean(&self, dry_run: bool) -> Result<Option<Vec<PathBuf>>> {
        let mut found = Vec::new();
        if !self.mark.starts_with(READY) || self.dirs.is_empty() {
            return Ok(Some(found));
        }
        let Ok(root) = Dir::open(&self.root) else { return Ok(None) };
        for dir in &self.dirs {
            let said = || format!("cannot tidy '{}'", root.join(dir).display());
            let names = match root.list(dir, usize::MAX) {
                Err(error) if is_gone(&error) => continue,
                names => names.with_context(said)?,
            };
            let below = root.dir(dir).with_context(said)?;
            for (name, sort) in names {
                if !name.starts_with(self.mark.as_bytes()) || sort == Sort::Dir {
                    continue;
                }
                if !dry_run {
                    unlinkat(&below, name.as_slice(), UnlinkatFlags::NoRemoveDir)
                        .map_err(io::Error::from)
                        .with_context(said)?;
                }
                found.push(root.join(dir).join(OsStr::from_bytes(&name)));
            }
        }
        Ok(Some(found))
    }
}

/// Says that a directory is not there, or that something else took its place.
fn is_gone(error: &io::Error) -> bool {
    let is_link = error.raw_os_error() == Some(nix::libc::ELOOP);
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) || is_link
}

/// Removes what an apply that was killed left lying ready in a checkout of the host's, and returns where it lay; with
/// `dry_run` that alone. None if the checkout is not there, or what is written down cannot be read. Call it where
/// nobody else works on the workspace that this is the folder of. What else that apply was about to do stays written
/// down for the next one.
pub fn clear_ready(folder: &Path, dry_run: bool) -> Result<Option<Vec<PathBuf>>> {
    let Some(before) = UnderWay::read(folder) else {
        let is_nothing = !folder.join(place::WORKSPACE_APPLYING).exists();
        return Ok(is_nothing.then(Vec::new));
    };
    let found = before.clean(dry_run)?;
    if found.is_some() && !dry_run && !before.dirs.is_empty() {
        UnderWay { dirs: Vec::new(), ..before }.write(folder)?;
    }
    Ok(found)
}
