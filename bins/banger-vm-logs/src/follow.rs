//! Going on with a log that grows, is shortened, or is begun anew by another boot.

use banger_cli::{Out, Screen};
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
    path::{Path, PathBuf},
};

/// How often the VM's lock is asked although nothing was written.
const LOOK_AGAIN_MS: u16 = 500;

/// Prints the log until the VM has ended and all of it is printed, or nobody reads any more.
pub(crate) fn follow(
    folder: &VmFolder,
    lines: u64,
    mut screen: Screen,
    out: &mut Out,
) -> Result<()> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .context("cannot watch for changes")?;
    inotify
        .add_watch(
            folder.path(),
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE,
        )
        .with_context(|| format!("cannot watch '{}'", folder.path().display()))?;
    let mut log = Log::open(folder.join(place::VM_CONSOLE), lines)?;
    loop {
        // Asked before the last read, so that nothing written before the end is missed.
        let live = folder.is_live()?;
        log.copy(&mut |bytes| out.bytes(&screen.shown(bytes)))?;
        if !live || reader_is_gone() {
            return out.bytes(&screen.rest());
        }
        let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(LOOK_AGAIN_MS)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for changes"),
        }
        while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
    }
}

/// The log of the boot that is followed.
struct Log {
    path: PathBuf,
    file: Option<File>,
}

impl Log {
    /// Opens the log that is there, at its last lines. One that comes later is of a boot that began
    /// meanwhile, so all of it is new.
    fn open(path: PathBuf, lines: u64) -> Result<Self> {
        let mut file = File::open(&path).ok();
        if let Some(file) = &mut file {
            crate::skip_to_last(file, lines).context("cannot read the log")?;
        }
        Ok(Self { path, file })
    }

    /// Hands on what was written since the last time.
    fn copy(&mut self, out: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        // Asked before the last read, so that nothing is lost of a boot that has ended.
        let another = self.file.as_ref().is_none_or(|file| is_another(file, &self.path));
        if let Some(file) = &mut self.file {
            copy(file, out)?;
        }
        if another && let Ok(mut file) = File::open(&self.path) {
            let copied = copy(&mut file, out);
            self.file = Some(file);
            copied?;
        }
        Ok(())
    }
}

fn copy(file: &mut File, out: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
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
            n => out(&buffer[..n])?,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(log: &mut Log) -> String {
        let mut all = Vec::new();
        let mut keep = |bytes: &[u8]| {
            all.extend_from_slice(bytes);
            Ok(())
        };
        log.copy(&mut keep).expect("a log");
        String::from_utf8(all).expect("text")
    }

    #[test]
    fn a_boot_that_begins_meanwhile_is_printed_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        // There is no log yet.
        let mut log = Log::open(path.clone(), 1).expect("a log");
        assert_eq!(copied(&mut log), "");
        fs::write(&path, "a\nb\nc\n").expect("a file");
        assert_eq!(copied(&mut log), "a\nb\nc\n");
        // There is one, and its last lines were asked for.
        let mut log = Log::open(path.clone(), 1).expect("a log");
        assert_eq!(copied(&mut log), "c\n");
        // It ends, and another begins.
        let mut old = fs::OpenOptions::new().append(true).open(&path).expect("a file");
        old.write_all(b"end\n").expect("a file");
        fs::rename(&path, dir.path().join("console.log.1")).expect("a file");
        assert_eq!(copied(&mut log), "end\n");
        fs::write(&path, "d\ne\n").expect("a file");
        assert_eq!(copied(&mut log), "d\ne\n");
        assert_eq!(copied(&mut log), "");
    }
}
