//! The agent, and who starts it again should it end.
//!
//! Their names begin with `@`, so that systemd's last kill spares them (systemd, "The initrd Interface
//! of systemd").

use banger_doc::{Context, Guest, Result};
use banger_guest::place;
use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::prctl::set_name,
    unistd::{ForkResult, dup2_stdin, fork},
};
use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io,
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const AGENT: &CStr = c"@banger-guest-agent";
/// A run at least this long is no failure to start.
const LONG: Duration = Duration::from_secs(10);
/// The longest pause before the next start.
const PAUSE: Duration = Duration::from_secs(8);

/// The agent's process (pidfd_open(2)).
#[derive(Debug)]
pub(crate) struct Agent(OwnedFd);

/// Starts the agent for the first time: somebody waits for it, so its parent-to-be comes later, and no
/// program is loaded for it: an emulated guest would have to translate it anew.
pub(crate) fn start_agent(guest: &Guest) -> Result<Agent> {
    // SAFETY: this process has one thread, so its copy may do all that it may.
    let agent = match unsafe { fork() }.context("cannot start the agent")? {
        ForkResult::Child => {
            let _ = std::panic::catch_unwind(|| become_agent(guest));
            // SAFETY: the call ends this process; what the other one still has to do is left to it.
            unsafe { libc::_exit(1) }
        }
        ForkResult::Parent { child } => child,
    };
    // SAFETY: the call takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, agent.as_raw(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("cannot watch the agent");
    }
    // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
    Ok(Agent(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// Starts who keeps the agent running. The agent's process is its standard input.
pub(crate) fn start(agent: Agent) -> Result<()> {
    let mut command = Command::new(place::INIT);
    command.arg0("@banger-guest-keeper").env_clear().stdin(Stdio::from(agent.0));
    command.spawn().map(drop).context("cannot start the keeper of the agent")
}

fn become_agent(guest: &Guest) {
    if !take_arguments() {
        crate::say::console(&format!("cannot start the agent: {}", agent().exec()));
        return;
    }
    // SAFETY: this process has one thread, so nobody reads the environment meanwhile.
    unsafe { libc::clearenv() };
    if let Ok(null) = File::open("/dev/null") {
        let _ = dup2_stdin(null);
    }
    run_agent(Some(guest));
}

/// Gives this process the agent's name where systemd looks for the `@`: in its arguments, which the
/// kernel reads in memory that is of no file (PR_SET_MM in prctl(2)).
fn take_arguments() -> bool {
    let words = CString::from(AGENT).into_raw() as usize;
    let (begin, end) = (words, words + AGENT.to_bytes_with_nul().len());
    let set = |what: i32, address: usize| {
        // SAFETY: the call takes numbers; what it points to is never freed.
        unsafe { libc::prctl(libc::PR_SET_MM, what, address, 0, 0) == 0 }
    };
    // At no moment may the beginning lie behind the end.
    if set(libc::PR_SET_MM_ARG_START, begin) {
        set(libc::PR_SET_MM_ARG_END, end)
    } else {
        set(libc::PR_SET_MM_ARG_END, end) && set(libc::PR_SET_MM_ARG_START, begin)
    }
}

/// Serves the host for ever; reads what the guest was told, if it is not given.
pub(crate) fn run_agent(guest: Option<&Guest>) {
    let _ = set_name(AGENT);
    let guest = guest.cloned().or_else(|| banger_agent::read_guest(Path::new(place::DOCUMENT)));
    if let Err(error) = banger_agent::serve(guest) {
        crate::say::console(&error.chain());
    }
}

fn agent() -> Command {
    let mut command = Command::new(place::INIT);
    let name = OsStr::from_bytes(AGENT.to_bytes());
    command.arg0(name).env_clear().stdin(Stdio::null());
    command
}

/// Keeps the agent running, from the end of the first on.
pub(crate) fn run() {
    let _ = nix::unistd::setsid();
    await_first();
    crate::say::console("the agent ended");
    let mut pause = Duration::from_millis(100);
    loop {
        let begin = Instant::now();
        match agent().status() {
            Ok(status) => crate::say::console(&format!("the agent ended with {status}")),
            Err(error) => crate::say::console(&format!("cannot start the agent: {error}")),
        }
        pause = if begin.elapsed() > LONG { Duration::from_millis(100) } else { pause * 2 };
        thread::sleep(pause.min(PAUSE));
    }
}

fn await_first() {
    let agent = io::stdin();
    let mut fds = [PollFd::new(agent.as_fd(), PollFlags::POLLIN)];
    while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
}
