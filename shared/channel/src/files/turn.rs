//! One writer of a root at a time. A host that was killed may have left one that has not seen the end
//! of its stream yet, while the next one begins.

use banger_doc::{Error, Result};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a writer may be waited for: less than a host waits for an answer.
const LIMIT: Duration = Duration::from_secs(40);

/// The roots that are written to.
static BUSY: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
static FREED: Condvar = Condvar::new();

/// The right to write to a root, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(PathBuf);

impl Turn {
    /// Waits until nobody else writes to `root`, and takes the right to.
    pub(super) fn take(root: &Path) -> Result<Self> {
        until_free(root)?.get_or_insert_default().insert(root.to_owned());
        Ok(Self(root.to_owned()))
    }

    /// Waits until nobody writes to `root`.
    pub(super) fn wait(root: &Path) -> Result<()> {
        until_free(root).map(drop)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
        busy.get_or_insert_default().remove(&self.0);
        drop(busy);
        FREED.notify_all();
    }
}

fn until_free(root: &Path) -> Result<MutexGuard<'static, Option<HashSet<PathBuf>>>> {
    let end = Instant::now() + LIMIT;
    let mut busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    while busy.as_ref().is_some_and(|busy| busy.contains(root)) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::conflict(format!(
                "something else is still being written to '{}'",
                root.display()
            )));
        }
        busy = FREED.wait_timeout(busy, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    Ok(busy)
}
