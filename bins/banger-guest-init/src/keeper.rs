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
    io::{self, Read, Write},
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream, process::CommandExt},
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

/// How long the boot gives way to the host's first question.
const FIRST: Duration = Duration::from_millis(200);
/// How long it waits for the agent to enter the image's root.
const ENTER: Duration = Duration::from_secs(2);

/// The agent's process (pidfd_open(2)), and the way to it while it is not in the image's root.
#[derive(Debug)]
pub(crate) struct Agent {
    process: OwnedFd,
    way: UnixStream,
}

impl Agent {
    /// Waits until the host has its first answer, or has not asked in time: whatever the machine does
    /// meanwhile, its disks and its exits too, would be in the way of that.
    pub(crate) fn give_way(&mut self) {
        let _ = self.way.set_read_timeout(Some(FIRST));
        let _ = self.way.read(&mut [0]);
    }

    /// Has the agent come into the image's root, which is whole now, and waits until it has: what comes next may
    /// look for it there. One that has ended is started anew in that root.
    pub(crate) fn let_in(&mut self) {
        let _ = self.way.set_read_timeout(Some(ENTER));
        // It may say only now that it has answered; then comes the end.
        let _ = self.way.write_all(&[0]).and_then(|()| self.way.read_to_end(&mut Vec::new()));
    }
}

/// Starts the agent for the first time: somebody waits for it, so its parent-to-be comes later, and no
/// program is loaded for it: an emulated guest would have to translate it anew.
pub(crate) fn start_agent(guest: &Guest) -> Result<Agent> {
    let (way, boot) = UnixStream::pair().context("cannot make a socket")?;
    // SAFETY: this process has one thread, so its copy may do all that it may.
    let agent = match unsafe { fork() }.context("cannot start the agent")? {
        ForkResult::Child => {
            drop(way);
            let _ = std::panic::catch_unwind(|| become_agent(guest, boot));
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
    Ok(Agent { process: unsafe { OwnedFd::from_raw_fd(fd as i32) }, way })
}

/// Starts who keeps the agent running. The agent's process is its standard input.
pub(crate) fn start(agent: Agent) -> Result<()> {
    let mut command = Command::new(place::INIT);
    command.arg0("@banger-guest-keeper").env_clear().stdin(Stdio::from(agent.process));
    command.spawn().map(drop).context("cannot start the keeper of the agent")
}

fn become_agent(guest: &Guest, boot: UnixStream) {
    if !take_arguments() {
        // Then it has to be a program of that name, which lies in the image's root.
        if let Err(error) = banger_agent::enter_root(&boot) {
            return crate::say::console(&format!("cannot start the agent: {}", error.chain()));
        }
        crate::say::console(&format!("cannot start the agent: {}", agent().exec()));
        return;
    }
    // SAFETY: this process has one thread, so nobody reads the environment meanwhile.
    unsafe { libc::clearenv() };
    if let Ok(null) = File::open("/dev/null") {
        let _ = dup2_stdin(null);
    }
    run_agent(Some(guest), Some(boot));
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

/// Serves the host for ever; reads what the guest was told, if it is not given. `boot` leads to the process that
/// is yet to make the image's root.
pub(crate) fn run_agent(guest: Option<&Guest>, boot: Option<UnixStream>) {
    let _ = set_name(AGENT);
    let guest = guest.cloned().or_else(|| banger_agent::read_guest(Path::new(place::DOCUMENT)));
    if let Err(error) = banger_agent::serve(guest, boot) {
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
