//! The agent, and who starts it again should it end.

use banger_doc::{Context, Result};
use banger_guest::place;
use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    io,
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A run at least this long is no failure to start.
const LONG: Duration = Duration::from_secs(10);
/// The longest pause before the next start.
const PAUSE: Duration = Duration::from_secs(8);

/// The agent's process (pidfd_open(2)).
#[derive(Debug)]
pub(crate) struct Agent(OwnedFd);

/// Starts the agent for the first time: somebody waits for it, so its parent-to-be comes later. Their
/// names begin with `@`, so that systemd's last kill spares them (systemd, "The initrd Interface of
/// systemd").
pub(crate) fn start_agent() -> Result<Agent> {
    let agent = agent().spawn().context("cannot start the agent")?;
    // SAFETY: the call takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, agent.id(), 0) };
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

fn agent() -> Command {
    let mut command = Command::new(place::AGENT);
    command.arg0("@banger-guest-agent").env_clear().stdin(Stdio::null());
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
