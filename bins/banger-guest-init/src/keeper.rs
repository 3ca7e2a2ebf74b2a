//! The agent and its parent, who starts it again should it end.

use banger_doc::{Context, Result};
use banger_guest::place;
use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A run at least this long is no failure to start.
const LONG: Duration = Duration::from_secs(10);
/// The longest pause before the next start.
const PAUSE: Duration = Duration::from_secs(8);

/// Starts the parent of the agent. Its name begins with `@`, so that systemd's last kill spares it
/// (systemd, "The initrd Interface of systemd").
pub(crate) fn start() -> Result<()> {
    let mut command = Command::new(place::INIT);
    command.arg0("@banger-guest-keeper").env_clear().stdin(Stdio::null());
    command.spawn().map(drop).context("cannot start the parent of the agent")
}

/// Keeps the agent running.
pub(crate) fn run() {
    let _ = nix::unistd::setsid();
    let mut pause = Duration::from_millis(100);
    loop {
        let begin = Instant::now();
        let mut command = Command::new(place::AGENT);
        command.arg0("@banger-guest-agent").env_clear().stdin(Stdio::null());
        match command.status() {
            Ok(status) => crate::say::console(&format!("the agent ended with {status}")),
            Err(error) => crate::say::console(&format!("cannot start the agent: {error}")),
        }
        pause = if begin.elapsed() > LONG { Duration::from_millis(100) } else { pause * 2 };
        thread::sleep(pause.min(PAUSE));
    }
}
