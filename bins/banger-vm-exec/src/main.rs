//! Runs a command in a VM and passes its bytes, signals and status on.
//!
//! Reads the VM's folder, talks to its agent over `run/channel.sock`; writes `workspaces/ID/told`, so that
//! what it said is said once. Its stdout is the command's, also on failure.

mod carry;
mod terminal;
mod workspace;

use banger_channel::{
    connect,
    exec::{Failure, Request, Why},
    port, write_line,
};
use banger_cli::{Out, is_called, is_shell, note, runs_on};
use banger_doc::{Context, Error, Name, Result, visible};
use banger_state::{State, place};
use carry::{Ended, carry};
use nix::unistd::dup2_stdin;
use std::{
    env::VarError,
    fs::File,
    io::IsTerminal,
    process::ExitCode,
    time::{Duration, Instant},
};
use terminal::Raw;

/// How long the agent of a running VM may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Run a command in a running VM
///
/// The command starts as the image says (environment, directory, user) unless options say otherwise,
/// in the workspace if the VM has one.
/// Without a command it is the user's shell. The exit status is the command's: 128 and the signal's
/// number if a signal ended it, 127 if it is not there, 126 if it cannot be executed, 125 if banger
/// itself failed.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-vm-exec", version)]
struct Args {
    /// Give the command a terminal, also when this is not run from one
    #[arg(short, long, overrides_with = "no_tty")]
    tty: bool,
    /// Give the command no terminal: stdout and stderr stay apart, bytes stay as they are
    #[arg(short = 'T', long, overrides_with = "tty")]
    no_tty: bool,
    /// Pass stdin on to the command; a terminal's, and a shell's, is passed on anyway
    #[arg(short, long)]
    interactive: bool,
    /// Leave the command running in the guest and go on; what it says is thrown away
    #[arg(short, long, conflicts_with_all = ["tty", "interactive"], requires = "command")]
    detach: bool,
    /// Whom the command runs as: user, uid, user:group, uid:gid
    #[arg(short, long)]
    user: Option<String>,
    /// Set a variable; without a value, to the one it has here, if it has one
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// The directory the command starts in
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// The command and its words
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn main() -> ExitCode {
    banger_cli::main_raw(run)
}

fn run(args: Args, out: &mut Out) -> Result<ExitCode> {
    let at_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let tty = (args.tty || (at_terminal && !args.no_tty)) && !args.detach;
    let typed = std::io::stdin().is_terminal() && !args.detach;
    if !tty && !args.interactive && !args.command.is_empty() && !typed {
        // It is somebody else's: a loop in a shell script reads the next line from it.
        let nothing = File::open("/dev/null").context("cannot open '/dev/null'")?;
        dup2_stdin(nothing).context("cannot leave stdin alone")?;
    }
    let mut env = Vec::new();
    for entry in &args.env {
        env.extend(variable(entry)?);
    }
    let folder = State::open()?.vm(&args.vm)?;
    folder.must_run()?;
    if let Some(words) = folder.boots_on() {
        out.note(&words);
    }
    // Somebody who thinks of a shell quotes it all.
    let is_line = args.command.len() == 1 && args.command[0].contains(' ');
    let hint = if is_line {
        Some("each word stands alone, without quotes; 'sh -c' takes a whole line of a shell")
    } else if args.command.first().is_some_and(|name| !name.contains('/')) {
        Some("install it in the guest, or use an image that has it: '--image debian-bookworm-dev'")
    } else {
        None
    };
    let is_left = tty && out.is_live() && is_shell(&args.command) && !is_called();
    let request = Request {
        argv: if args.detach { detached(args.command) } else { args.command },
        env,
        cwd: args.workdir.clone().or_else(|| workspace::dir(&folder, out)),
        user: args.user,
        tty: tty.then(terminal::window),
        term: std::env::var("TERM").ok().filter(|term| tty && !term.is_empty()),
    };

    let (_dir, channel) = folder.short_path(place::VM_CHANNEL)?;
    let name = folder.name();
    let mut stream = connect(&channel, port::EXEC, ANSWER_LIMIT)
        .with_context(|| format!("cannot run a command in VM '{name}'"))
        .map_err(|error| error.hint(format!("'banger vm logs {name}' shows what it is at")))?;
    write_line(&mut stream, &request, Instant::now() + ANSWER_LIMIT)
        .context("cannot send the command to the guest")
        .map_err(|error| error.hint(format!("'banger vm logs {name}' shows what it is at")))?;
    let raw = tty.then(Raw::enter).transpose()?;
    let ended = carry(&stream, tty);
    drop(raw);
    match ended? {
        Ended::Exit(status) => {
            // One who shut it down from inside knows.
            if is_left && folder.is_live().unwrap_or(false) {
                out.note(&runs_on(name, "exec"));
            }
            Ok(ExitCode::from(status))
        }
        Ended::NotStarted(failure) if args.workdir.is_none() && request.cwd.is_some() => {
            not_started(failure, hint).map_err(|error| {
                error.hint("'--workdir DIR' starts elsewhere than in the workspace")
            })
        }
        Ended::NotStarted(failure) => not_started(failure, hint),
        Ended::GivenUp(signal, why) => {
            note(&format!("banger-vm-exec: {why}: it may still run in VM '{name}'"));
            note(&format!("hint: 'banger vm kill {name}' ends the VM"));
            Ok(ExitCode::from(signal.saturating_add(128)))
        }
        Ended::Unwritten(place, error) => {
            Err(Error::failed(format!("cannot write what the command says to {place}"))
                .because(error)
                .hint("the command was ended; free some room, or write elsewhere"))
        }
        Ended::Broken => Err(Error::failed(format!("the connection to VM '{name}' broke"))
            .hint(format!("'banger vm show {name}' shows how it stands"))),
    }
}

/// Returns the words that have a shell of the guest start a command and leave it running.
fn detached(command: Vec<String>) -> Vec<String> {
    let script = "command -v -- \"$1\" >/dev/null || {
        echo \"banger-vm-exec: cannot find the command '$1' in the guest\" >&2; exit 127; }
        (trap '' HUP; exec \"$@\") </dev/null >/dev/null 2>&1 &";
    ["sh", "-c", script, "sh"].map(str::to_owned).into_iter().chain(command).collect()
}

/// Reads `NAME=VALUE`, or `NAME` with the value it has here; nothing of one that has none.
fn variable(entry: &str) -> Result<Option<String>> {
    let name = entry.split('=').next().unwrap_or_default();
    if name.is_empty() {
        return Err(Error::usage(format!("'{entry}' names no variable")));
    }
    if entry.contains('=') {
        return Ok(Some(entry.to_owned()));
    }
    match std::env::var(name) {
        Ok(value) => Ok(Some(format!("{name}={value}"))),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => {
            Err(Error::usage(format!("cannot pass '{name}' on: its value is not UTF-8"))
                .hint("put it into a file and 'banger vm cp' that"))
        }
    }
}

/// Says why the command did not start, in the statuses that shells use.
fn not_started(failure: Failure, hint: Option<&str>) -> Result<ExitCode> {
    let message = visible(&failure.message, 1000);
    let status = match failure.kind {
        Why::NotFound => 127,
        Why::NotExecutable => 126,
        Why::Refused | Why::Failed => return Err(Error::failed(message)),
    };
    note(&format!("banger-vm-exec: {message}"));
    if let (127, Some(hint)) = (status, hint) {
        note(&format!("hint: {hint}"));
    }
    Ok(ExitCode::from(status))
}
