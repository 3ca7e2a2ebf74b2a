//! The agent, and who starts it again should it end.
//!
//! Their names begin with `@`, so that systemd's last kill spares them (systemd, "The initrd Interface
//! of systemd").

use banger_doc::{Context, Guest, Result};
use banger_guest::place;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::prctl::set_name,
    unistd::{ForkResult, dup2_stdin, fork, pipe2},
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

/// How long the boot gives way to the host's first questions.
const FIRST: Duration = Duration::from_millis(200);

/// The agent's process (pidfd_open(2)), and what it closes when it has answered the host's first questions.
#[derive(Debug)]
pub(crate) struct Agent {
    process: OwnedFd,
    first: OwnedFd,
}

impl Agent {
    /// Waits until the host knows what it asks first, or has not asked in time: whatever the machine does
    /// meanwhile, its disks and its exits too, would be in the way of that.
    pub(crate) fn give_way(&self) {
        let mut fds = [PollFd::new(self.first.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(FIRST).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut fds, limit);
    }
}

/// Starts the agent for the first time: somebody waits for it, so its parent-to-be comes later, and no
/// program is loaded for it: an emulated guest would have to translate it anew.
pub(crate) fn start_agent(guest: &Guest) -> Result<Agent> {
    let (first, answered) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    // SAFETY: this process has one thread, so its copy may do all that it may.
    let agent = match unsafe { fork() }.context("cannot start the agent")? {
        ForkResult::Child => {
            drop(first);
            let _ = std::panic::catch_unwind(|| become_agent(guest, answered));
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
    Ok(Agent { process: unsafe { OwnedFd::from_raw_fd(fd as i32) }, first })
}

/// Starts who keeps the agent running. The agent's process is its standard input.
pub(crate) fn start(agent: Agent) -> Result<()> {
    let mut command = Command::new(place::INIT);
    command.arg0("@banger-guest-keeper").env_clear().stdin(Stdio::from(agent.process));
    command.spawn().map(drop).context("cannot start the keeper of the agent")
}

fn become_agent(guest: &Guest, answered: OwnedFd) {
    if !take_arguments() {
        crate::say::console(&format!("cannot start the agent: {}", agent().exec()));
        return;
    }
    // SAFETY: this process has one thread, so nobody reads the environment meanwhile.
    unsafe { libc::clearenv() };
    if let Ok(null) = File::open("/dev/null") {
        let _ = dup2_stdin(null);
    }
    run_agent(Some(guest), Some(answered));
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

/// Serves the host for ever; reads what the guest was told, if it is not given. `answered` is closed when the
/// host has its first answers.
pub(crate) fn run_agent(guest: Option<&Guest>, answered: Option<OwnedFd>) {
    let _ = set_name(AGENT);
    let guest = guest.cloned().or_else(|| banger_agent::read_guest(Path::new(place::DOCUMENT)));
    if let Err(error) = banger_agent::serve(guest, answered) {
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
