//! Going on with a log that grows, is shortened, or is begun anew by another boot.

use banger_cli::Out;
use banger_doc::{Context, Result};
use banger_state::{VmFolder, place};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
};

/// How often the VM's lock is asked although nothing was written.
const LOOK_AGAIN_MS: u16 = 500;

/// Prints the log until the VM has ended and all of it is printed, or nobody reads any more.
pub(crate) fn follow(folder: &VmFolder, lines: u64, out: &mut Out) -> Result<()> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .context("cannot watch for changes")?;
    inotify
        .add_watch(
            folder.path(),
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE,
        )
        .with_context(|| format!("cannot watch '{}'", folder.path().display()))?;
    let path = folder.join(place::VM_CONSOLE);
    let mut open: Option<File> = None;
    loop {
        // Asked before the last read, so that nothing written before the end is missed.
        let live = folder.is_live()?;
        if let Some(file) = &mut open {
            copy(file, out)?;
        }
        if open.as_ref().is_none_or(|file| is_another(file, &path)) {
            // Of another boot all is new.
            let first = open.is_none();
            open = File::open(&path).ok();
            if let Some(file) = &mut open {
                if first {
                    crate::skip_to_last(file, lines).context("cannot read the log")?;
                }
                copy(file, out)?;
            }
        }
        if !live || reader_is_gone() {
            return Ok(());
        }
        let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(LOOK_AGAIN_MS)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for changes"),
        }
        while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
    }
}

fn copy(file: &mut File, out: &mut Out) -> Result<()> {
    let mut buffer = [0; 8 << 10];
    let at = file.stream_position().context("cannot read the log")?;
    let size = file.metadata().context("cannot read the log")?.len();
    if size < at {
        // Its middle was left out: what is new is at the end.
        file.seek(SeekFrom::Start(size)).context("cannot read the log")?;
    }
    loop {
        match file.read(&mut buffer).context("cannot read the log")? {
            0 => return Ok(()),
            n => out.bytes(&buffer[..n])?,
        }
    }
}

/// Says whether another boot has begun a log of its own.
fn is_another(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    (open.ino(), open.dev()) != (named.ino(), named.dev())
}

/// Says whether stdout is a pipe or socket that nobody reads any more.
fn reader_is_gone() -> bool {
    let stdout = std::io::stdout();
    let _ = stdout.lock().flush();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}
