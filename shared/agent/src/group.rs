//! A control group for each command, so that one that starts processes without end leaves room for the
//! agent and for the next.

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::statfs::{CGROUP2_SUPER_MAGIC, statfs},
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Where an init mounts version 2, and version 1's hierarchy that counts processes.
const PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"];
/// The group of all commands, beside those of the image's init.
const NAME: &str = "banger";
/// Of the processes that the kernel can have, all commands together get this share ...
const SHARE: u64 = 2;
/// ... and no fewer.
const FEWEST: u64 = 64;

static NEXT: AtomicU64 = AtomicU64::new(1);
/// Groups of commands that have not ended.
static LIVE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A group that is there for one command, and for what that leaves running.
#[derive(Debug)]
pub(crate) struct Group {
    dir: PathBuf,
    /// Its `cgroup.procs`.
    procs: File,
}

impl Group {
    /// Makes one; `None` where the guest has no control groups yet, or none that counts processes.
    pub(crate) fn new() -> Option<Self> {
        let place = PLACES.iter().map(Path::new).find(|place| counts(place))?;
        make(&place.join(NAME), most()).ok()
    }

    /// What a process that is yet to run its program needs to join.
    pub(crate) fn entry(&self) -> i32 {
        self.procs.as_raw_fd()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.dir);
        if let Some(all) = self.dir.parent() {
            sweep(all);
        }
    }
}

/// Joins the group of a descriptor, between fork and exec: no memory is asked for.
pub(crate) fn join(entry: i32) {
    // One that cannot be joined is done without.
    // SAFETY: the call writes one byte that lives for ever to an open descriptor.
    let _ = unsafe { nix::libc::write(entry, b"0".as_ptr().cast(), 1) };
}

/// Says whether a hierarchy is mounted there that can count processes.
fn counts(place: &Path) -> bool {
    let is_second = statfs(place).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    let controllers = fs::read_to_string(place.join("cgroup.controllers")).unwrap_or_default();
    if is_second {
        return controllers.split_whitespace().any(|name| name == "pids");
    }
    place.ends_with("pids") && place.join("cgroup.procs").exists()
}

/// Returns how many processes all commands may have: enough are left for the agent, the init, and its
/// services. Both limits count threads (proc_sys_kernel(5)).
fn most() -> u64 {
    let read = |name: &str| {
        let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let threads = read("threads-max").unwrap_or(u64::MAX).min(read("pid_max").unwrap_or(u64::MAX));
    (threads / SHARE).max(FEWEST)
}

fn make(all: &Path, most: u64) -> io::Result<Group> {
    if !all.exists() {
        // Whoever was faster has done the rest too, or does it.
        fs::create_dir(all).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })?;
    }
    sweep(all);
    let parent = all.parent().unwrap_or(all);
    for controller in ["+pids", "+cpu"] {
        // The second gives each command its share of the processors; without it, it is slower beside
        // others. Version 1 has no such file, and counts all the same.
        for dir in [parent, all] {
            let _ = write(&dir.join("cgroup.subtree_control"), controller);
        }
    }
    let _ = write(&all.join("pids.max"), &most.to_string());
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = all.join(format!("exec-{}-{number}", std::process::id()));
    LIVE.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.clone());
    let made = fs::create_dir(&dir);
    // Another command is to find room beside this one.
    let own = (most - most / 4).to_string();
    let limited = made.and_then(|()| write(&dir.join("pids.max"), &own));
    limited.and_then(|()| open(&dir.join("cgroup.procs"))).and_then(above_streams).map_or_else(
        |error| {
            LIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&dir);
            let _ = fs::remove_dir(&dir);
            Err(error)
        },
        |procs| Ok(Group { dir: dir.clone(), procs }),
    )
}

/// Removes the groups of commands that have ended in which nothing runs any more; the kernel keeps the
/// others.
fn sweep(all: &Path) {
    let live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().as_bytes().starts_with(b"exec-");
        if is_ours && !live.contains(&entry.path()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Moves a descriptor out of the way of a command's streams, which come before it is used.
fn above_streams(file: File) -> io::Result<File> {
    if file.as_raw_fd() > 2 {
        return Ok(file);
    }
    let fd = fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Writes to a file of the kernel's.
fn write(path: &Path, text: &str) -> io::Result<()> {
    open(path)?.write_all(text.as_bytes())
}

fn open(path: &Path) -> io::Result<File> {
    File::options().write(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_go_when_nothing_runs_in_them_and_not_before() {
        // Folders stand in for groups: both go only when they are empty.
        let dir = tempfile::tempdir().unwrap();
        let all = dir.path().join(NAME);
        fs::create_dir(&all).unwrap();
        let group = |name: &str| {
            let dir = all.join(name);
            fs::create_dir(&dir).unwrap();
            LIVE.lock().unwrap().insert(dir.clone());
            let procs = File::create(all.join("procs")).unwrap();
            Group { dir, procs }
        };
        let (one, two) = (group("exec-1-1"), group("exec-1-2"));
        sweep(&all);
        assert!(one.dir.exists() && two.dir.exists());
        // What runs on holds the group of an ended command.
        let left = one.dir.join("left");
        fs::create_dir(&left).unwrap();
        let kept = one.dir.clone();
        drop(one);
        assert!(kept.exists());
        fs::remove_dir(left).unwrap();
        drop(two);
        assert!(!kept.exists());
    }

    #[test]
    fn room_is_left_for_others() {
        let read = |name: &str| -> u64 {
            let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).unwrap();
            text.trim().parse().unwrap()
        };
        let all = read("threads-max").min(read("pid_max"));
        assert_eq!(most(), (all / 2).max(64));
    }
}
