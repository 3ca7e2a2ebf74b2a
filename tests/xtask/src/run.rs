//! Running commands under a limit.

use crate::Result;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use std::{
    io::{IsTerminal, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitStatus},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Says something to the person.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Returns the root of the tree.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("because this crate lies two folders down").to_owned()
}

/// Returns the folder programs are built into.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Returns a command of cargo's, in the root of the tree.
pub(crate) fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root());
    // Set by the cargo that runs this; an inner one is to judge for itself.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION", "RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end, says what and how long, fails unless it ends with status 0 in time.
pub(crate) fn run(what: &str, command: &mut Command, limit: Duration) -> Result {
    say(&format!("== {what}"));
    let began = Instant::now();
    let status = status(command, limit)?;
    if !status.success() {
        return Err(format!("{what} failed: {status}"));
    }
    say(&format!("== {what}: {:.1} s", began.elapsed().as_secs_f64()));
    Ok(())
}

/// Runs a command to its end; one that takes longer than `limit` is killed with all it started.
pub(crate) fn status(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    let name = command.get_program().display().to_string();
    // On a terminal the child stays in our group, so that Ctrl-C reaches it.
    let apart = !std::io::stderr().is_terminal();
    if apart {
        command.process_group(0);
    }
    let mut child = command.spawn().map_err(|error| format!("cannot run '{name}': {error}"))?;
    let pid = Pid::from_raw(child.id() as i32);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait()));
    if let Ok(status) = receiver.recv_timeout(limit) {
        return status.map_err(|error| format!("cannot wait for '{name}': {error}"));
    }
    let _ = if apart { killpg(pid, Signal::SIGKILL) } else { kill(pid, Signal::SIGTERM) };
    Err(format!("'{name}' did not end within {} s", limit.as_secs()))
}
