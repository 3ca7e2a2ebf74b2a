//! The writable disks of a VM: who uses them, how they were left.
//!
//! Whoever writes them holds `disks.lock` alone, whoever reads them shares it. What a sudden end left of
//! them is repaired by e2fsck, in the jail, before anybody reads.

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
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
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

/// Where they lie in the folder of a VM.
const DISKS: [&str; 2] = [place::VM_OVERLAY, place::VM_WORK];
/// How long an earlier VMM may take to vanish after its supervisor was killed.
const VANISH_LIMIT: Duration = Duration::from_secs(20);
/// What e2fsck ends with when it corrected errors, which a journal's replay counts as (e2fsck(8)).
const CORRECTED: i32 = 1;
/// How long checking one disk may take.
const CHECK_LIMIT: Duration = Duration::from_mins(2);
/// What is left to try with disks that e2fsck gives up.
const START: &str =
    "'banger vm start' may start it all the same: a kernel mounts what e2fsck does not repair";
/// What e2fsck may have of memory, in bytes: so much, and a part of the disk's size for its maps of it.
const CHECK_MEMORY: u64 = 1 << 30;
const CHECK_PART: u64 = 512;
/// What it may have of libraries and the like besides.
const CHECK_MAPPED: u64 = 256 << 20;

/// What happens is told here.
pub type Say<'a> = &'a mut dyn FnMut(&str);

/// Both disks, as long as nobody else writes them.
///
/// Every process that writes them inherits this lock, so it outlives a killed supervisor exactly
/// until the last of them is gone. The file it is on is empty: a VMM has it as its standard input,
/// the one descriptor that also Firecracker's jailer leaves it, and Firecracker types what it reads there
/// into the guest's console.
#[derive(Debug)]
pub struct Disks {
    lock: Flock<File>,
    folder: PathBuf,
}

impl Disks {
    /// Takes the disks in a VM's folder to write them. Waits until nobody of an earlier run is left.
    pub fn take(folder: &Path) -> Result<Self> {
        Self::lock(folder, FlockArg::LockExclusiveNonblock, Instant::now() + VANISH_LIMIT)
    }

    /// Takes the disks in a VM's folder to read them, with others who do. Those that were not left clean
    /// are repaired first: a journal that was not played back holds the last of what was synced. All of it
    /// takes `limit` at most, but for the moment in which a repair ends that had to be broken off. To be
    /// called by who shares the VM's own lock, so that no run begins.
    pub fn read(folder: &Path, limit: Duration) -> Result<Self> {
        // Who has the lock may be another reader at its repair.
        let end = Instant::now() + limit.min(VANISH_LIMIT + CHECK_LIMIT);
        // Two who find them unclean repair them one after the other; the second finds them clean.
        loop {
            let disks = Self::lock(folder, FlockArg::LockSharedNonblock, end)?;
            if are_clean(folder)? {
                return Ok(disks);
            }
            drop(disks);
            let disks = Self::lock(folder, FlockArg::LockExclusiveNonblock, end)?;
            if !are_clean(folder)? {
                disks.repair(end)?;
            }
        }
    }

    fn repair(&self, end: Instant) -> Result<()> {
        if find_e2fsck().is_none() {
            return Err(Error::unavailable(
                "its disks were not left clean, and e2fsck, which repairs them, is missing",
            )
            .hint("install e2fsprogs"));
        }
        let mut said = Vec::new();
        let mut say = |words: &str| said.push(words.to_owned());
        self.take_back(&mut say);
        let left = end.saturating_duration_since(Instant::now());
        self.check_within(left.min(CHECK_LIMIT), &mut say);
        if are_clean(&self.folder)? {
            return Ok(());
        }
        let error = Error::failed("its disks were not left clean, and could not be repaired");
        let error = error.because(Error::failed(said.join(", ")));
        // More time may do; whoever asked knows how to give that.
        let is_over = Instant::now() >= end;
        Err(if is_over { error } else { error.hint(START) })
    }

    fn lock(folder: &Path, how: FlockArg, end: Instant) -> Result<Self> {
        loop {
            let file = lock_file(folder)
                .with_context(|| format!("cannot open '{}'", place::VM_DISKS_LOCK))?;
            match Flock::lock(file, how) {
                Ok(lock) => return Ok(Self { lock, folder: folder.to_owned() }),
                Err((_, errno)) if Instant::now() >= end => {
                    return Err(Error::conflict("a process of the VM's last run does not end")
                        .because(errno)
                        .hint("it may still be writing to the disks: try again in a moment"));
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Returns a copy of the lock for a process that writes the disks.
    pub fn share(&self) -> Result<OwnedFd> {
        self.lock.as_fd().try_clone_to_owned().context("cannot share the lock of the disks")
    }

    /// Gives the lock away as a descriptor: it ends with the last copy of that, and with nothing before.
    pub fn hand_over(self) -> OwnedFd {
        let fd = self.lock.as_raw_fd();
        // Dropped, it would let go of the lock, whoever else has the descriptor.
        std::mem::forget(self.lock);
        // SAFETY: the descriptor is open, and what would have closed it is forgotten.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    /// Takes the disks back from the user that a root's VMM ran as.
    pub fn take_back(&self, say: Say<'_>) {
        if !geteuid().is_root() {
            return;
        }
        for disk in DISKS {
            if let Err(errno) = chown(&self.folder.join(disk), Some(geteuid()), Some(getegid())) {
                say(&format!("cannot take '{disk}' back: {errno}"));
            }
        }
    }

    /// Says how the guest left the disks, then repairs what a sudden end left and gives freed space
    /// back to the host. Returns whether they are clean, and were left so.
    pub fn check(&self, say: Say<'_>) -> bool {
        self.check_within(CHECK_LIMIT, say)
    }

    fn check_within(&self, limit: Duration, say: Say<'_>) -> bool {
        let left_clean = DISKS.map(|disk| match is_clean(&self.folder.join(disk)) {
            Ok(clean) => clean,
            Err(error) => {
                say(&format!("cannot read '{disk}': {error}"));
                false
            }
        });
        let Some(e2fsck) = find_e2fsck() else {
            say("e2fsck is missing (package e2fsprogs): the disks were not checked");
            return left_clean == [true, true];
        };
        let lock = self.lock.as_fd().as_raw_fd();
        let begin = |disk| (disk, check(&e2fsck, &self.folder.join(disk), lock));
        let checks = DISKS.map(begin);
        let mut good = left_clean == [true, true];
        let end = Instant::now() + limit;
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
                    say(&format!("e2fsck of '{disk}' ended with {status:?}"));
                }
                Err(error) => {
                    good = false;
                    say(&format!("e2fsck of '{disk}': {}", error.chain()));
                }
            }
        }
        if let Some(why) = banger_jail::weaker() {
            say(&format!("e2fsck {why}"));
        }
        good
    }
}

/// Says whether both disks were unmounted in order.
fn are_clean(folder: &Path) -> Result<bool> {
    let mut clean = true;
    for disk in DISKS {
        clean &= is_clean(&folder.join(disk)).with_context(|| format!("cannot read '{disk}'"))?;
    }
    Ok(clean)
}

/// Opens the file of the lock, for reading only; whatever is in it goes.
fn lock_file(folder: &Path) -> std::io::Result<File> {
    let path = folder.join(place::VM_DISKS_LOCK);
    File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    File::open(path)
}

/// Reads the superblock (Documentation/filesystems/ext4/super.rst of Linux): unmounted in order,
/// no journal to replay.
fn is_clean(disk: &Path) -> std::io::Result<bool> {
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
fn check(e2fsck: &Path, disk: &Path, lock: RawFd) -> Result<std::process::Child> {
    let disk = std::path::absolute(disk).context("cannot tell where the disk lies")?;
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
    use std::{os::unix::fs::MetadataExt, process::Command};

    fn run(program: &str, words: &[&str]) {
        let output = Command::new(program).args(words).output().unwrap();
        assert!(output.status.success(), "{program} {words:?}: {output:?}");
    }

    fn make(folder: &Path, size: u64) -> [String; 2] {
        DISKS.map(|disk| {
            let path = folder.join(disk).to_str().unwrap().to_owned();
            File::create(&path).unwrap().set_len(size).unwrap();
            run("/usr/sbin/mke2fs", &["-q", "-F", "-t", "ext4", &path]);
            path
        })
    }

    #[test]
    fn what_was_removed_is_the_host_s_again() {
        let dir = tempfile::tempdir().unwrap();
        let filled = dir.path().join("filled");
        std::fs::write(&filled, vec![1; 40 << 20]).unwrap();
        let disks = make(dir.path(), 256 << 20);
        for disk in &disks {
            let write = format!("write {} filled", filled.display());
            run("/usr/sbin/debugfs", &["-w", "-R", &write, disk]);
            run("/usr/sbin/debugfs", &["-w", "-R", "rm filled", disk]);
        }
        // What a guest takes away and e2fsck brings back.
        run("/usr/sbin/debugfs", &["-w", "-R", "rmdir lost+found", &disks[1]]);
        let mib = |disk: &str| (std::fs::metadata(disk).unwrap().blocks() * 512) >> 20;
        assert!(disks.iter().all(|disk| mib(disk) >= 40));
        let mut said = Vec::new();
        let taken = Disks::take(dir.path()).unwrap();
        assert!(taken.check(&mut |words| said.push(words.to_owned())), "{said:?}");
        for disk in &disks {
            assert!(mib(disk) < 20, "'{disk}' takes {} MiB", mib(disk));
        }
    }

    #[test]
    fn readers_share_the_disks_and_repair_what_was_not_left_clean() {
        let dir = tempfile::tempdir().unwrap();
        let disks = make(dir.path(), 32 << 20);
        let read = || Disks::read(dir.path(), CHECK_LIMIT);
        let first = read().unwrap();
        let second = read().unwrap();
        assert!(
            Flock::lock(lock_file(dir.path()).unwrap(), FlockArg::LockExclusiveNonblock).is_err()
        );
        let given = second.hand_over();
        drop(first);
        let lock = || lock_file(dir.path()).unwrap();
        assert!(Flock::lock(lock(), FlockArg::LockExclusiveNonblock).is_err());
        drop(given);
        // Nobody waits for another longer than was said, however the disks are.
        let other = Flock::lock(lock(), FlockArg::LockExclusiveNonblock).unwrap();
        let begun = Instant::now();
        let error = Disks::read(dir.path(), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("does not end"), "{}", error.chain());
        assert!(error.hint_text().is_some() && begun.elapsed() < Duration::from_secs(10));
        drop(other);
        run("/usr/sbin/debugfs", &["-w", "-R", "feature needs_recovery", &disks[1]]);
        assert!(!are_clean(dir.path()).unwrap());
        let slow = Flock::lock(lock(), FlockArg::LockExclusiveNonblock).unwrap();
        thread::scope(|scope| {
            // As long as another one is at its repair, it is waited for.
            let waiting = scope.spawn(read);
            thread::sleep(Duration::from_millis(200));
            assert!(!waiting.is_finished());
            drop(slow);
            drop(waiting.join().unwrap().unwrap());
        });
        assert!(are_clean(dir.path()).unwrap());
        // What is no file system at all is repaired by nobody.
        std::fs::write(&disks[0], vec![0; 1 << 20]).unwrap();
        let error = read().unwrap_err();
        assert!(error.hint_text().is_some_and(|hint| hint.contains("vm start")));
        let error = error.chain();
        assert!(error.contains("could not be repaired: e2fsck of 'overlay.ext4' ended"), "{error}");
        std::fs::remove_file(&disks[1]).unwrap();
        let error = read().unwrap_err().chain();
        assert!(error.contains("cannot read 'work.ext4': no such file"), "{error}");
    }
}
