//! The VM's writable disks: who writes them, and how they were left.

use crate::log::CappedLog;
use banger_doc::{Context, Error, Result};
use banger_jail::{Limits, Tool};
use banger_state::place;
use nix::{
    fcntl::{Flock, FlockArg},
    libc,
    unistd::{chown, getegid, geteuid},
};
use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, RawFd},
        unix::{
            fs::{FileExt, OpenOptionsExt},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

/// How long an earlier VMM may take to vanish after its supervisor was killed.
const VANISH_LIMIT: Duration = Duration::from_secs(20);
/// What e2fsck ends with when it corrected errors, which a journal's replay counts as (e2fsck(8)).
const CORRECTED: i32 = 1;
/// How long checking one disk may take.
const CHECK_LIMIT: Duration = Duration::from_mins(2);
/// What e2fsck may have of memory, in bytes: so much, and a part of the disk's size for its maps of it.
const CHECK_MEMORY: u64 = 1 << 30;
const CHECK_PART: u64 = 512;
/// What it may have of libraries and the like besides.
const CHECK_MAPPED: u64 = 256 << 20;

/// Both disks, while nobody else writes them.
///
/// Every process that writes them inherits this lock, so it outlives a killed supervisor exactly
/// until the last of them is gone. The file it is on is empty: a VMM has it as its standard input,
/// the one descriptor that also Firecracker's jailer leaves it, and Firecracker types what it reads there
/// into the guest's console.
#[derive(Debug)]
pub(crate) struct Disks(Flock<File>);

impl Disks {
    /// Waits until nobody of an earlier run is left.
    pub(crate) fn take() -> Result<Self> {
        let end = Instant::now() + VANISH_LIMIT;
        loop {
            let file =
                lock_file().with_context(|| format!("cannot open '{}'", place::VM_DISKS_LOCK))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self(lock)),
                Err((_, errno)) if Instant::now() >= end => {
                    return Err(Error::conflict("a process of the VM's last run does not end")
                        .because(errno));
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Returns a copy of the lock for a process that writes the disks.
    pub(crate) fn share(&self) -> Result<std::os::fd::OwnedFd> {
        self.0.as_fd().try_clone_to_owned().context("cannot share the lock of the disks")
    }

    /// Takes the disks back from the user that a root's VMM ran as.
    pub(crate) fn take_back(log: &mut CappedLog) {
        if !geteuid().is_root() {
            return;
        }
        for disk in [place::VM_OVERLAY, place::VM_WORK] {
            if let Err(errno) = chown(disk, Some(geteuid()), Some(getegid())) {
                log.say(&format!("cannot take '{disk}' back: {errno}"));
            }
        }
    }

    /// Says how the guest left the disks, then repairs what a sudden end left and gives freed space
    /// back to the host. Returns whether they are clean, and were left so.
    pub(crate) fn check(&self, log: &mut CappedLog) -> bool {
        let left_clean = [place::VM_OVERLAY, place::VM_WORK].map(|disk| match is_clean(disk) {
            Ok(clean) => clean,
            Err(error) => {
                log.say(&format!("cannot read '{disk}': {error}"));
                false
            }
        });
        let Some(e2fsck) = find_e2fsck() else {
            log.say("e2fsck is missing (package e2fsprogs): the disks were not checked");
            return left_clean == [true, true];
        };
        let lock = self.0.as_fd().as_raw_fd();
        let begin = |disk| (disk, check(&e2fsck, disk, lock));
        let checks = [place::VM_OVERLAY, place::VM_WORK].map(begin);
        let mut good = left_clean == [true, true];
        let end = Instant::now() + CHECK_LIMIT;
        for (disk, child) in checks {
            let mut status = child.and_then(|child| finish(child, end));
            // One that corrects something, such as a `lost+found` that is gone, gives nothing back.
            if matches!(status, Ok(Some(CORRECTED))) {
                status = begin(disk).1.and_then(|child| finish(child, end));
            }
            match status {
                Ok(Some(0 | CORRECTED)) => {}
                Ok(status) => {
                    good = false;
                    log.say(&format!("e2fsck of '{disk}' ended with {status:?}"));
                }
                Err(error) => {
                    good = false;
                    log.say(&format!("e2fsck of '{disk}': {}", error.chain()));
                }
            }
        }
        if let Some(why) = banger_jail::weaker() {
            log.say(&format!("e2fsck {why}"));
        }
        good
    }
}

/// Opens the file of the lock, for reading only; whatever is in it goes.
fn lock_file() -> std::io::Result<File> {
    let name = place::VM_DISKS_LOCK;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(name)?;
    File::open(name)
}

/// Reads the superblock (Documentation/filesystems/ext4/super.rst of Linux): unmounted in order,
/// no journal to replay.
fn is_clean(disk: &str) -> std::io::Result<bool> {
    let mut superblock = [0; 0x64];
    File::open(disk)?.read_exact_at(&mut superblock, 1024)?;
    let is_ext4 = superblock[0x38..0x3a] == [0x53, 0xef];
    let valid = superblock[0x3a] & 1 != 0;
    let needs_recovery = superblock[0x60] & 4 != 0;
    Ok(is_ext4 && valid && !needs_recovery)
}

/// Many distributions keep `/usr/sbin` out of a user's `PATH`.
fn find_e2fsck() -> Option<PathBuf> {
    which::which("e2fsck").ok().or_else(|| {
        ["/usr/sbin/e2fsck", "/sbin/e2fsck"].map(PathBuf::from).into_iter().find(|p| p.is_file())
    })
}

/// Starts a check in a jail, in which the disk is all that it sees. It holds the lock of the disks as long
/// as it runs.
fn check(e2fsck: &Path, disk: &str, lock: RawFd) -> Result<std::process::Child> {
    let disk = std::env::current_dir().context("cannot tell where the disk lies")?.join(disk);
    let size = disk.metadata().context("cannot look at it")?.len();
    let limits = Limits {
        memory: CHECK_MEMORY + size / CHECK_PART,
        mapped: CHECK_MAPPED,
        file: size,
        time: CHECK_LIMIT,
    };
    let tool = Tool::new(e2fsck, limits)?.sees(&disk, true);
    let mut command = tool.command();
    command
        .args(["-fp", "-E", "discard"])
        .arg(&disk)
        .envs(std::env::var_os(place::MARK).map(|mark| (place::MARK, mark)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let keep = move || {
        // SAFETY: the descriptor is open; only its close-on-exec flag changes.
        nix::errno::Errno::result(unsafe { libc::fcntl(lock, libc::F_SETFD, 0) })?;
        Ok(())
    };
    // SAFETY: the closure makes only a system call.
    unsafe { command.pre_exec(keep) };
    tool.spawn(command, Path::new("/"))
}

/// Waits for a check. One that takes too long is asked to stop, which e2fsck does between two
/// changes.
fn finish(mut child: std::process::Child, end: Instant) -> Result<Option<i32>> {
    let said = "cannot wait for it";
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().context(said)? {
            return Ok(status.code());
        }
        if Instant::now() >= end {
            let pid = nix::unistd::Pid::from_raw(child.id() as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            thread::sleep(Duration::from_secs(2));
            child.kill().context("cannot end it")?;
            return Ok(child.wait().context(said)?.code());
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SUPERVISE_LIMIT;
    use std::{os::unix::fs::MetadataExt, process::Command};

    fn run(program: &str, words: &[&str]) {
        let output = Command::new(program).args(words).output().unwrap();
        assert!(output.status.success(), "{program} {words:?}: {output:?}");
    }

    /// The only test of this program that enters a folder, so nobody else's paths change.
    #[test]
    fn what_was_removed_is_the_host_s_again() {
        let dir = tempfile::tempdir().unwrap();
        std::env::set_current_dir(dir.path()).unwrap();
        let sbin = |name: &str| format!("/usr/sbin/{name}");
        std::fs::write("filled", vec![1; 40 << 20]).unwrap();
        for disk in [place::VM_OVERLAY, place::VM_WORK] {
            File::create(disk).unwrap().set_len(256 << 20).unwrap();
            run(&sbin("mke2fs"), &["-q", "-F", "-t", "ext4", disk]);
            run(&sbin("debugfs"), &["-w", "-R", "write filled filled", disk]);
            run(&sbin("debugfs"), &["-w", "-R", "rm filled", disk]);
        }
        // What a guest takes away and e2fsck brings back.
        run(&sbin("debugfs"), &["-w", "-R", "rmdir lost+found", place::VM_WORK]);
        let mib = |disk: &str| (std::fs::metadata(disk).unwrap().blocks() * 512) >> 20;
        assert!(mib(place::VM_OVERLAY) >= 40 && mib(place::VM_WORK) >= 40);
        let mut log = CappedLog::append("log", SUPERVISE_LIMIT).unwrap();
        let disks = Disks::take().unwrap();
        assert!(disks.check(&mut log), "{}", std::fs::read_to_string("log").unwrap());
        for disk in [place::VM_OVERLAY, place::VM_WORK] {
            assert!(mib(disk) < 20, "'{disk}' takes {} MiB", mib(disk));
        }
    }
}
