//! Ctrl-C leaves only the cache: what is half made is removed before the program ends.

use banger_doc::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

/// What to undo.
struct Undo {
    folder: Option<PathBuf>,
    lock: Option<PathBuf>,
    child: Option<u32>,
}

static UNDO: Mutex<Undo> = Mutex::new(Undo { folder: None, lock: None, child: None });

/// Begins to watch for signals that end the program.
pub fn watch() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch for signals")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            undo();
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(())
}

/// Makes the folder to remove; no interrupt comes between the two.
pub(crate) fn begin<T, E>(
    make: impl FnOnce() -> Result<T, E>,
    path: impl FnOnce(&T) -> &Path,
) -> Result<T, E> {
    let mut undo = UNDO.lock().unwrap_or_else(PoisonError::into_inner);
    let value = make()?;
    undo.folder = Some(path(&value).to_owned());
    Ok(value)
}

/// Names the program to end; `None` when it has ended.
pub fn end(child: Option<u32>) {
    change(|undo| undo.child = child);
}

/// Names the lock file to remove.
pub fn unlock(path: &Path) {
    change(|undo| undo.lock = Some(path.to_owned()));
}

/// Runs what makes the folder be seen. An interrupt waits for its end: removing and renaming one
/// folder at once would publish what is left of it.
pub(crate) fn settle<T>(publish: impl FnOnce() -> T) -> T {
    let mut undo = UNDO.lock().unwrap_or_else(PoisonError::into_inner);
    let value = publish();
    undo.folder = None;
    value
}

fn change(act: impl FnOnce(&mut Undo)) {
    act(&mut UNDO.lock().unwrap_or_else(PoisonError::into_inner));
}

fn undo() {
    let undo = UNDO.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(child) = undo.child {
        let child = Pid::from_raw(child as i32);
        let _ = kill(child, Signal::SIGTERM);
        // It takes its own temporary files away; main waits for it and forgets it.
        for _ in 0..100 {
            if kill(child, None).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
    if let Some(folder) = &undo.folder {
        let _ = fs::remove_dir_all(folder);
    }
    if let Some(lock) = &undo.lock {
        let _ = fs::remove_file(lock);
    }
}
