//! Waiting for a VM's folder to change.

use crate::VmFolder;
use banger_doc::{Context, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

/// How often a waiter looks although nothing was heard: a lock may end a moment after its file is
/// closed, which is what is heard.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Hears of every document that is replaced in a VM's folder, and of a supervisor that ends, however
/// it ends: its lock file is then closed.
#[derive(Debug)]
pub struct Watch(Inotify);

impl Watch {
    /// Begins to listen.
    pub fn new(folder: &VmFolder) -> Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .context("cannot watch for changes")?;
        inotify
            .add_watch(
                folder.path(),
                AddWatchFlags::IN_MOVED_TO
                    | AddWatchFlags::IN_CLOSE_WRITE
                    | AddWatchFlags::IN_DELETE
                    | AddWatchFlags::IN_MOVE_SELF,
            )
            .with_context(|| format!("cannot watch '{}'", folder.path().display()))
            .map_err(folder.unless_gone())?;
        Ok(Self(inotify))
    }

    /// Returns what is readable when something changed.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Forgets what was heard.
    pub fn clear(&self) {
        while self.0.read_events().is_ok_and(|events| !events.is_empty()) {}
    }

    /// Waits until no supervisor holds the VM's lock; says whether it came to that within `limit`.
    pub fn until_gone(&self, folder: &VmFolder, limit: Duration) -> Result<bool> {
        Ok(self.until(limit, || Ok((!folder.is_live()?).then_some(())))?.is_some())
    }

    /// Waits until something changed, at most `limit` long, and at most as long as a look now and
    /// then allows.
    pub fn once(&self, limit: Duration) -> Result<()> {
        self.wait(limit.min(LOOK_AGAIN)).map(drop)
    }

    /// Looks until there is an answer, at most `limit` long, each time something changed.
    pub fn until<T>(
        &self,
        limit: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let end = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(answer) = look()? {
                return Ok(Some(answer));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            if self.wait(left.min(pause))? {
                pause = Duration::from_millis(1);
            } else {
                pause = (pause * 2).min(LOOK_AGAIN);
            }
        }
    }

    /// Says whether something changed.
    fn wait(&self, limit: Duration) -> Result<bool> {
        let timeout = PollTimeout::try_from(limit.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => Ok(false),
            Ok(_) => {
                self.clear();
                Ok(true)
            }
            Err(errno) => Err(errno).context("cannot wait for changes"),
        }
    }
}
