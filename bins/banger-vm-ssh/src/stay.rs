//! Running ssh on a terminal to its end, as if this program had become it.

use nix::{
    libc,
    sys::{
        prctl::set_pdeathsig,
        signal::{SigHandler, Signal, raise, signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

/// Runs a command in our place on the terminal and returns its status as a shell counts. Keys that end
/// or stop are its affair; where it is stopped, so is this program, for the shell to see.
pub(crate) fn to_the_end(command: &mut Command) -> io::Result<u8> {
    // SAFETY: in the child both calls are system calls that are allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            set_pdeathsig(Signal::SIGHUP)?;
            signal(Signal::SIGINT, SigHandler::SigDfl)?;
            signal(Signal::SIGQUIT, SigHandler::SigDfl)?;
            Ok(())
        });
    }
    for ignored in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: no handler is set.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    let child = command.stdin(Stdio::inherit()).spawn()?;
    let child = Pid::from_raw(child.id() as libc::pid_t);
    loop {
        match waitpid(child, Some(WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(u8::try_from(status).unwrap_or(u8::MAX)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as u8),
            Ok(WaitStatus::Stopped(..)) => raise(Signal::SIGSTOP)?,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
