//! What every program of a guest begins with: three descriptors, and the limits of a machine.

use banger_doc::{Context, Result};
use nix::{
    libc,
    sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
};

/// Limits a program begins with, soft and hard. Open files and locked memory as systemd has them: programs
/// that use select(2) break with more than 1024 files unless they ask for them. As many processes as the
/// machine has room for, as Docker has it: the kernel's own limit is for machines that people share.
const LIMITS: &[(Resource, u64, u64)] = &[
    (Resource::RLIMIT_NOFILE, 1024, 512 << 10),
    (Resource::RLIMIT_MEMLOCK, 64 << 20, 64 << 20),
    (Resource::RLIMIT_NPROC, RLIM_INFINITY, RLIM_INFINITY),
];

/// Sets the limits of this process, which all that it starts inherit. A limit that is larger stays.
pub fn set_limits() -> Result<()> {
    for (resource, soft, hard) in LIMITS {
        let (own_soft, own_hard) = getrlimit(*resource).context("cannot read a limit")?;
        setrlimit(*resource, own_soft.max(*soft), own_hard.max(*hard))
            .with_context(|| format!("cannot set {resource:?}"))?;
    }
    Ok(())
}

/// Has the next program get descriptors 0, 1 and 2 only. Makes one system call, so it may be called
/// between fork and exec. A kernel before 5.11 cannot do it; there each descriptor has to be closed by
/// how it was opened, as all of banger's are.
pub fn keep_three() {
    let all = libc::c_uint::MAX;
    // SAFETY: the call takes numbers only, and closes nothing now.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3, all, libc::CLOSE_RANGE_CLOEXEC) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::{fd::AsRawFd, unix::process::CommandExt},
        process::Command,
    };

    #[test]
    fn a_program_gets_three_descriptors_whatever_is_open() {
        let file = std::fs::File::open("/").unwrap();
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
            .unwrap();
        let leaked = file.as_raw_fd();
        let script = format!("[ ! -e /proc/$$/fd/{leaked} ] || echo leaked");
        let said = |guarded: bool| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &script]);
            if guarded {
                // SAFETY: the hook makes one system call.
                unsafe {
                    command.pre_exec(|| {
                        keep_three();
                        Ok(())
                    });
                }
            }
            String::from_utf8(command.output().unwrap().stdout).unwrap()
        };
        assert_eq!(said(false), "leaked\n");
        assert_eq!(said(true), "");
    }
}
