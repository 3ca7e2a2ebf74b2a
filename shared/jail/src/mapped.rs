//! Files of a root's that another user sees as its own (mount_setattr(2), ID-mapped mounts, of Linux
//! 5.12): nothing on the disk changes hands, so nothing has to be taken back.

use banger_doc::{Context, Result};
use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, unshare},
    sys::{
        stat::{Mode, SFlag, fstat},
        wait::waitpid,
    },
    unistd::{ForkResult, Uid, fork, mkdir, pipe2, read, write},
};
use std::{
    ffi::CString,
    fs::{self, File},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::Arc,
};

/// `OPEN_TREE_CLONE` and `MOVE_MOUNT_F_EMPTY_PATH` of Linux's `include/uapi/linux/mount.h`.
const CLONE: libc::c_uint = 1;
const EMPTY_PATH: libc::c_uint = 4;

/// A file or a folder of root's as another user is to see it, not yet to be seen anywhere.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    mount: Arc<OwnedFd>,
    /// Where it is seen, below `/`.
    pub(crate) inside: String,
    /// Whether it may be written.
    pub(crate) writable: bool,
}

impl Tree {
    /// Takes what lies at `host`, an absolute path, for the user that `owners` makes of root. Fails where
    /// the kernel or the file system knows no such mounts.
    pub(crate) fn of(host: &Path, writable: bool, owners: &OwnedFd) -> nix::Result<Self> {
        let path = CString::new(host.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
        let flags = CLONE | libc::O_CLOEXEC as libc::c_uint;
        // SAFETY: the path lives through the call, which only reads it.
        let mount =
            unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
        let mount = Errno::result(mount)? as i32;
        // SAFETY: the kernel has just made this for us alone.
        let mount = unsafe { OwnedFd::from_raw_fd(mount) };
        let mut attr_set =
            libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        if !writable {
            attr_set |= libc::MOUNT_ATTR_RDONLY;
        }
        let userns_fd = owners.as_raw_fd() as u64;
        let wanted = libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd };
        // SAFETY: path and attributes live through the call, which only reads them.
        let done = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                mount.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                &raw const wanted,
                size_of::<libc::mount_attr>(),
            )
        };
        Errno::result(done)?;
        let inside = host.strip_prefix("/").unwrap_or(host).to_string_lossy().into_owned();
        Ok(Self { mount: Arc::new(mount), inside, writable })
    }

    /// Puts it to its place below `root`.
    pub(crate) fn show(&self, root: &Path) -> Result<()> {
        let to = root.join(&self.inside);
        let parent = to.parent().expect("because it is below the root");
        fs::create_dir_all(parent).context("no folder for it")?;
        let mode = fstat(&*self.mount).context("it cannot be looked at")?.st_mode;
        if SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR {
            match mkdir(&to, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).context("no folder for it"),
            }
        } else {
            File::create_new(&to).context("no place for it")?;
        }
        let to = CString::new(to.as_os_str().as_bytes()).context("its path has a zero")?;
        // SAFETY: both paths live through the call, which only reads them.
        let done = unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.mount.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                to.as_ptr(),
                EMPTY_PATH,
            )
        };
        Errno::result(done).map(drop).context("it cannot be mounted")
    }
}

/// Makes a user namespace that says who sees root's files as its own: `user`. To be called as root.
pub(crate) fn owners(user: Uid) -> nix::Result<OwnedFd> {
    let pipe = || pipe2(nix::fcntl::OFlag::O_CLOEXEC);
    let ((made, made_end), (hold, hold_end)) = (pipe()?, pipe()?);
    // SAFETY: the child only makes system calls, and never returns from here.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop(hold_end);
            let done = unshare(CloneFlags::CLONE_NEWUSER);
            let number = done.map_or_else(|errno| errno as i32, |()| 0);
            let _ = write(&made_end, &number.to_ne_bytes());
            let _ = hear(&hold, &mut [0]);
            // SAFETY: ends this process without running what its parent registered for its own end.
            unsafe { libc::_exit(0) }
        }
    };
    drop((made_end, hold));
    let map = || -> nix::Result<OwnedFd> {
        let mut number = [0; size_of::<i32>()];
        if hear(&made, &mut number)? != number.len() {
            return Err(Errno::ECHILD);
        }
        match i32::from_ne_bytes(number) {
            0 => {}
            number => return Err(Errno::from_raw(number)),
        }
        let errno = |error: std::io::Error| {
            error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
        };
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{child}/{file}"), format!("0 {user} 1")).map_err(errno)?;
        }
        Ok(File::open(format!("/proc/{child}/ns/user")).map_err(errno)?.into())
    };
    let owners = map();
    drop(hold_end);
    while waitpid(child, None) == Err(Errno::EINTR) {}
    owners
}

/// Reads from a pipe, however many signals come meanwhile.
fn hear(pipe: &OwnedFd, bytes: &mut [u8]) -> nix::Result<usize> {
    loop {
        match read(pipe, bytes) {
            Err(Errno::EINTR) => {}
            heard => return heard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    static COUNT: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn count(_: libc::c_int) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn a_signal_is_no_answer() {
        let action = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler only counts.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
        let (from, to) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        // SAFETY: it has no conditions.
        let reader = unsafe { libc::pthread_self() };
        thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..5 {
                    thread::sleep(Duration::from_millis(40));
                    // SAFETY: the reader waits for this thread.
                    assert_eq!(unsafe { libc::pthread_kill(reader, libc::SIGUSR1) }, 0);
                }
                write(&to, &[7]).unwrap();
            });
            let mut byte = [0];
            assert_eq!(hear(&from, &mut byte), Ok(1));
            assert_eq!(byte, [7]);
        });
        assert!(COUNT.load(Ordering::Relaxed) > 0);
    }
}
