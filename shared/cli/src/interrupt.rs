//! Ctrl-C leaves nothing half made: it is removed before the program ends, as the signal says.

use crate::note;
use banger_doc::{Context, Result, shell_word};
use banger_tree::remove_tree_if_there;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
    iterator::Signals,
    low_level::emulate_default_handler,
};
use std::{
    fs,
    io::{IsTerminal, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How often removing a folder is tried, 5 ms apart.
const TRIES: u32 = 20;
/// How long a program that is interrupted may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// What to undo.
struct Undo {
    folders: Vec<PathBuf>,
    lock: Option<PathBuf>,
    child: Option<u32>,
    words: Option<String>,
}

static UNDO: Mutex<Undo> =
    Mutex::new(Undo { folders: Vec::new(), lock: None, child: None, words: None });

/// Set by the signal itself, before anybody acts on it.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Begins to watch for signals that end the program.
pub fn watch() -> Result<()> {
    let all = [SIGINT, SIGTERM, SIGHUP];
    let mut signals = Signals::new(all).context("cannot watch for signals")?;
    for signal in all {
        flag::register(signal, &INTERRUPTED).context("cannot watch for signals")?;
    }
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Held until the signal has ended the program: nothing is begun any more.
            let _undone = undo();
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(())
}

/// Makes the folder to remove; no interrupt comes between the two.
pub fn begin<T, E>(
    make: impl FnOnce() -> Result<T, E>,
    path: impl FnOnce(&T) -> &Path,
) -> Result<T, E> {
    let mut undo = UNDO.lock().unwrap_or_else(PoisonError::into_inner);
    let value = make()?;
    undo.folders.push(path(&value).to_owned());
    Ok(value)
}

/// Names the program to end; `None` when it has ended.
pub fn end(child: Option<u32>) {
    change(|undo| undo.child = child);
}

/// Names what to tell the person who interrupts: what goes on all the same. `None` when it is over.
pub fn say(words: Option<String>) {
    change(|undo| undo.words = words);
}

/// Tries to take the lock on a file, which is to be removed then; no interrupt comes between the two.
pub fn lock<T, E>(
    path: &Path,
    attempt: impl FnOnce() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let mut undo = UNDO.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = attempt()?;
    if taken.is_some() {
        undo.lock = Some(path.to_owned());
    }
    Ok(taken)
}

/// Removes the lock file: the next one of that name is another program's.
pub fn unlock(path: &Path) {
    change(|undo| {
        let _ = fs::remove_file(path);
        undo.lock = None;
    });
}

/// Runs what makes the folder be seen. An interrupt waits for its end: removing and renaming one
/// folder at once would publish what is left of it.
pub fn settle<T>(publish: impl FnOnce() -> T) -> T {
    let mut undo = UNDO.lock().unwrap_or_else(PoisonError::into_inner);
    let value = publish();
    undo.folders.clear();
    value
}

/// Says whether an interrupt came. What waits for [`settle`] may end sooner then.
pub fn came() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Lets an interrupt that came end the program: what fails now fails for what it took away.
pub(crate) fn give_way() {
    if came() {
        thread::sleep(END_LIMIT);
    }
}

fn change(act: impl FnOnce(&mut Undo)) {
    act(&mut UNDO.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Removes a folder in which the program may be making a file at this moment.
fn remove(folder: &Path) {
    for _ in 0..TRIES {
        if remove_tree_if_there(folder).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    if let Err(error) = remove_tree_if_there(folder) {
        note(&stays(folder, &error));
    }
}

/// Says that a folder could not be removed, and what removes it.
fn stays(folder: &Path, error: &dyn std::error::Error) -> String {
    let place = folder.display();
    let name = folder.file_name().unwrap_or_default();
    // Those are the objects of the state that are half made; others are in a directory for temporary files.
    let what = if name.as_bytes().starts_with(b".new-") {
        "'banger gc'".to_owned()
    } else {
        format!("'rm -r {}'", shell_word(folder))
    };
    format!("note: '{place}' stays, and holds room: {error}; {what} removes it")
}

fn undo() -> MutexGuard<'static, Undo> {
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
    for folder in &undo.folders {
        remove(folder);
    }
    if let Some(lock) = &undo.lock {
        let _ = fs::remove_file(lock);
    }
    let mut stderr = std::io::stderr().lock();
    // A caller has done this, has ended perhaps, and the line may be a shell's by now.
    if stderr.is_terminal() && !crate::is_called() {
        // The line is the terminal's echo of the key, or one that was going to change.
        let _ = stderr.write_all(b"\r\x1b[K");
    }
    if let Some(words) = &undo.words {
        let _ = writeln!(stderr, "{}", banger_doc::visible_text(words));
    }
    undo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_said_with_what_removes_it() {
        let full = std::io::Error::other("busy");
        let said = |folder: &str| stays(Path::new(folder), &full);
        let place = "/s/images/.new-web-7";
        let words = format!("note: '{place}' stays, and holds room: busy; 'banger gc' removes it");
        assert_eq!(said(place), words);
        let words = said("/tmp/a b/banger-kernel-x");
        assert!(words.ends_with("busy; 'rm -r /tmp/a\\ b/banger-kernel-x' removes it"), "{words}");
    }
}
