//! Two pulls of one name: one works, the other waits and then finds the image.

use crate::recipe;
use banger_cli::Out;
use banger_doc::{Context, Error, Name, Result};
use banger_image::interrupt;
use banger_state::{State, place};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// The longest another pull is waited for: the longest one makes an image of packages, and writes it.
const LIMIT: Duration = recipe::LIMIT.saturating_add(Duration::from_hours(1));

/// The right to make an image of a name.
pub(crate) struct Turn {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        interrupt::unlock(&self.path);
    }
}

/// Waits for the right to make an image of a name.
pub(crate) fn take(state: &State, name: &Name, out: &Out) -> Result<Turn> {
    let path = state.path(place::IMAGES).join(format!(".pull-{name}"));
    let start = Instant::now();
    let mut told = false;
    while start.elapsed() < LIMIT {
        if let Some(lock) = interrupt::lock(&path, || attempt(&path))? {
            return Ok(Turn { path, _lock: lock });
        }
        if !told {
            out.note(&format!("another pull of '{name}' is at work; waiting for it"));
            told = true;
        }
        thread::sleep(Duration::from_millis(25));
    }
    Err(Error::conflict(format!("another pull of '{name}' does not end"))
        .hint("'ps -C banger-image-pull' shows it"))
}

/// Takes the lock, unless another pull has it.
fn attempt(path: &Path) -> Result<Option<Flock<File>>> {
    let context = || format!("cannot lock '{}'", path.display());
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(context)?;
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, errno)) => return Err(errno).with_context(context),
    };
    // Its last holder may have removed it between the open and the lock.
    let own = lock.metadata().with_context(context)?.ino();
    Ok(fs::metadata(path).is_ok_and(|meta| meta.ino() == own).then_some(lock))
}
