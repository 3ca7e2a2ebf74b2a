//! Locks that the kernel takes back when their holder dies.

use banger_doc::{Context, Error, Result};
use nix::fcntl::{Flock, FlockArg, OFlag};
use std::{
    fs::{self, File, OpenOptions},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// A held `flock` (flock(2)). It ends with the last copy of its descriptor.
#[derive(Debug)]
pub struct Lock(Flock<File>);

impl Lock {
    /// Takes the exclusive lock on a file, made if missing, or on a directory; `None` if another
    /// holds it.
    pub fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        Self::attempt(open(path)?, FlockArg::LockExclusiveNonblock, path)
    }

    /// Shares the lock on a file, made if missing; `None` if another holds it alone.
    pub fn try_shared(path: &Path) -> Result<Option<Self>> {
        Self::attempt(open(path)?, FlockArg::LockSharedNonblock, path)
    }

    /// Waits at most `limit` for the exclusive lock; `what` names what is waited for.
    pub fn exclusive(path: &Path, limit: Duration, what: &str) -> Result<Self> {
        Self::wait(path, limit, what, open)
    }

    /// Like [`Lock::exclusive`], on a directory that is there: one that another program removed
    /// meanwhile is an error, and nothing is made in its place.
    pub fn exclusive_dir(path: &Path, limit: Duration, what: &str) -> Result<Self> {
        Self::wait(path, limit, what, open_dir)
    }

    fn wait(
        path: &Path,
        limit: Duration,
        what: &str,
        open: fn(&Path) -> Result<File>,
    ) -> Result<Self> {
        let end = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        loop {
            let file = open(path)?;
            if let Some(lock) = Self::attempt(file, FlockArg::LockExclusiveNonblock, path)? {
                return Ok(lock);
            }
            if Instant::now() >= end {
                return Err(Error::conflict(format!(
                    "{what} is busy: '{}' stayed locked for {} s",
                    path.display(),
                    limit.as_secs()
                ))
                .hint("another banger program is at work on it; try again when it has ended"));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Waits until nobody holds the exclusive lock on a file, made if missing, for however long that is.
    pub fn await_free(path: &Path) -> Result<()> {
        let mut file = open(path)?;
        loop {
            match Flock::lock(file, FlockArg::LockShared) {
                Ok(_free) => return Ok(()),
                Err((again, nix::errno::Errno::EINTR)) => file = again,
                Err((_, errno)) => {
                    return Err(errno).context(format!("cannot lock '{}'", path.display()));
                }
            }
        }
    }

    /// Says whether somebody holds the exclusive lock now. Makes nothing; absent means no.
    pub fn is_held(path: &Path) -> Result<bool> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).context(format!("cannot open '{}'", path.display())),
        };
        Ok(Self::attempt(file, FlockArg::LockSharedNonblock, path)?.is_none())
    }

    fn attempt(file: File, how: FlockArg, path: &Path) -> Result<Option<Self>> {
        match Flock::lock(file, how) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno).context(format!("cannot lock '{}'", path.display())),
        }
    }

    /// Says whether this is the lock of what has that path now, and not of what had it before.
    pub fn is_of(&self, path: &Path) -> bool {
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let held = self.0.metadata().map(identity).ok();
        held.is_some() && held == fs::metadata(path).map(identity).ok()
    }

    /// Gives the lock away as a descriptor: it ends with the last copy of that, and with nothing before.
    pub fn hand_over(self) -> OwnedFd {
        let fd = self.0.as_raw_fd();
        // Dropped, it would let go of the lock, whoever else has the descriptor.
        std::mem::forget(self.0);
        // SAFETY: the descriptor is open, and what would have closed it is forgotten.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    /// Returns the descriptor that is the lock.
    pub fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn open_dir(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlag::O_DIRECTORY.bits());
    options.open(path).with_context(|| format!("cannot open '{}'", path.display()))
}

fn open(path: &Path) -> Result<File> {
    let file = if path.is_dir() {
        File::open(path)
    } else {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
    };
    file.with_context(|| format!("cannot open '{}'", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_over_ends_with_its_last_copy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let is_free = || Lock::try_exclusive(&path).unwrap().is_some();
        let shared = Lock::try_shared(&path).unwrap().unwrap();
        assert!(Lock::try_shared(&path).unwrap().is_some() && !Lock::is_held(&path).unwrap());
        let fd = shared.hand_over();
        let copy = fd.try_clone().unwrap();
        drop(fd);
        assert!(!is_free());
        drop(copy);
        assert!(is_free());
        let alone = Lock::try_exclusive(&path).unwrap();
        assert!(Lock::try_shared(&path).unwrap().is_none());
        drop(alone);
    }

    #[test]
    fn a_directory_that_is_gone_is_not_made_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web");
        let lock = |path: &Path| Lock::exclusive_dir(path, Duration::ZERO, "it");
        assert!(lock(&path).is_err());
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
        let held = lock(&path).unwrap();
        assert!(held.is_of(&path));
        assert_eq!(lock(&path).unwrap_err().kind(), banger_doc::Kind::Conflict);
        fs::rename(&path, dir.path().join("old")).unwrap();
        assert!(!held.is_of(&path));
        fs::create_dir(&path).unwrap();
        assert!(!held.is_of(&path));
        assert!(lock(&path).unwrap().is_of(&path));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(lock(&dir.path().join("file")).is_err());
    }
}
