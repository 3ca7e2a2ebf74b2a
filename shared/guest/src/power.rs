//! The end of a guest: its disks whole, then the machine gone.

use crate::place;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{
        reboot::{RebootMode, reboot},
        signal::{Signal, kill},
    },
    unistd::{Pid, getpid},
};
use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

mod freeze {
    #![allow(missing_docs, reason = "the macro's function")]
    // linux/fs.h: FIFREEZE.
    nix::ioctl_readwrite!(fifreeze, b'X', 119, nix::libc::c_int);
}

/// How long processes may take to end after `SIGKILL`.
const AFTER_KILL: Duration = Duration::from_secs(2);

/// Says whether systemd is PID 1; it ends the guest by itself when asked with `SIGRTMIN+4`, and at the
/// end runs what guest-init left at [`place::SHUTDOWN_ROOT`].
pub fn is_systemd() -> bool {
    fs::read_to_string(place::INIT_KIND).is_ok_and(|kind| kind.trim() == "systemd")
}

/// Ends all processes of the guest but the guest programs and PID 1: `SIGTERM`, at most `grace`, then
/// `SIGKILL`.
pub fn end_processes(grace: Duration) {
    signal_others(Signal::SIGTERM);
    // Stopped processes hear SIGTERM only when they go on.
    signal_others(Signal::SIGCONT);
    if !wait_for_others(grace) {
        signal_others(Signal::SIGKILL);
        wait_for_others(AFTER_KILL);
    }
}

fn signal_others(signal: Signal) {
    for pid in others() {
        let _ = kill(pid, signal);
    }
}

fn wait_for_others(limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        if others().is_empty() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the processes that are neither PID 1, nor the kernel's, nor a guest program: those have a
/// name that begins with `@`, as systemd spares them too.
fn others() -> Vec<Pid> {
    let own = getpid().as_raw();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid > 1 && *pid != own)
        .filter(|pid| {
            // A process of the kernel, and one that has ended, have an empty command line.
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            !words.is_empty() && words[0] != b'@'
        })
        .map(Pid::from_raw)
        .collect()
}

/// Makes both writable disks whole and ends the machine. Does not return unless the caller lacks the
/// right to.
///
/// The VMM ends on a reset; a disk that is frozen has its journal written back, so it is clean.
pub fn finish() {
    nix::unistd::sync();
    for (number, device) in devices().iter().enumerate() {
        freeze_disk(device, number);
    }
    let _ = reboot(RebootMode::RB_AUTOBOOT);
}

/// Reads the devices of the writable disks, where guest-init or the end of systemd left them.
fn devices() -> Vec<String> {
    let text = fs::read_to_string(place::DEVICES).or_else(|_| fs::read_to_string("/devices"));
    text.unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Freezes a disk through a mount of our own: the ones at boot may be hidden, moved or gone, but a
/// second mount of a device is the same file system.
fn freeze_disk(device: &str, number: usize) {
    let place = [place::RUN, "/tmp", "/"]
        .iter()
        .map(|dir| Path::new(dir).join(format!(".end-{number}")))
        .find(|place| fs::create_dir_all(place).is_ok());
    let Some(place) = place else { return };
    let none: Option<&str> = None;
    if mount(Some(device), &place, Some("ext4"), MsFlags::empty(), none).is_err() {
        return;
    }
    let mut ignored = 0;
    if let Ok(dir) = File::open(&place) {
        // SAFETY: the request takes a pointer to an int that it does not use; the descriptor is open.
        let _ = unsafe { freeze::fifreeze(dir.as_raw_fd(), &raw mut ignored) };
    }
}

/// Unmounts all that lies below a folder, the deepest first, as far as it can be.
pub fn unmount_below(dir: &str) {
    // What is busy now may be free when another has gone.
    for _ in 0..4 {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut places: Vec<String> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .map(unescaped)
            .filter(|place| {
                place.strip_prefix(dir).is_some_and(|r| r.is_empty() || r.starts_with('/'))
            })
            .collect();
        if places.is_empty() {
            return;
        }
        places.reverse();
        for place in places {
            let _ = umount2(place.as_str(), MntFlags::UMOUNT_NOFOLLOW);
        }
    }
}

/// Reads a path of `/proc/self/mounts` (proc_pid_mounts(5)): `\040` is a space.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_paths_are_read() {
        assert_eq!(unescaped(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescaped(r"/a\9"), r"/a\9");
    }

    #[test]
    fn guest_programs_and_the_first_process_are_not_others() {
        let others = others();
        assert!(!others.contains(&Pid::from_raw(1)) && !others.contains(&getpid()));
    }
}
