//! Opens a shell in a VM over ssh, or runs a command there.
//!
//! Waits until the guest's ssh server answers, then becomes the host's `ssh` with banger's key, the
//! VM's own host key, and `banger-ssh-proxy` as the way; a shell on a terminal it runs to its end, to
//! say then that the VM runs on. Reads the VM's folder; writes banger's key if
//! there is none yet.

mod login;
mod stay;

use banger_cli::{Out, find, runs_on};
use banger_config::Config;
use banger_doc::{Error, Name, Result};
use banger_ssh::{
    LIMIT, Programs, STAND_IN, ensure_user_key, host_name, is_known_terminal, known_host, late,
    reach_until, ssh_words,
};
use banger_stages::{Line, Stages};
use banger_state::{State, VmFolder};
use login::{Login, Try};
use std::{
    ffi::{OsStr, OsString},
    io::{IsTerminal, stdin, stdout},
    os::unix::{ffi::OsStrExt, ffi::OsStringExt, process::CommandExt},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

/// The status of ssh where ssh failed, not the command.
const SSH_FAILED: u8 = 255;
/// How often a server that lets nobody in is asked again: its user's files may be on their way.
const REFUSALS: u32 = 3;
/// How long between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Open a shell in a VM over ssh
///
/// A single word after '--' is a line for the guest's shell; several are one command and its words,
/// passed on exactly. The status is the command's; 125 if banger itself failed, 255 if ssh did.
#[derive(clap::Parser)]
#[command(name = "banger-vm-ssh", version)]
struct Args {
    /// Name of the VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// Option for ssh, such as 'ForwardAgent=yes'; repeat as needed
    #[arg(short = 'o', long = "option", value_name = "OPTION")]
    options: Vec<OsString>,
    /// Forward a port of this host to the guest, as ssh -L does; repeat as needed
    #[arg(short = 'L', long = "forward", value_name = "SPEC")]
    forwards: Vec<OsString>,
    /// Log in as this user [default: the guest's own, else root]
    #[arg(short = 'l', long = "user", value_name = "USER")]
    user: Option<String>,
    /// Let the guest use the keys of this host's ssh agent, as ssh -A does: only a guest you trust
    #[arg(short = 'A', long)]
    forward_agent: bool,
    /// Leave stdin alone, as ssh -n does: in a loop that reads its own
    #[arg(short = 'n', long)]
    no_stdin: bool,
    /// Give a command a terminal too
    #[arg(short = 't', long)]
    tty: bool,
    /// How long the ssh server may take to come up, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = LIMIT.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Command to run in the VM, and its words
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    banger_cli::main_raw(run)
}

fn run(args: Args, out: &mut Out) -> Result<ExitCode> {
    let config = Config::load()?;
    let folder = State::open_read_only()?.vm(&args.vm)?;
    if let Some(words) = folder.boots_on() {
        out.note(&words);
    }
    let state = State::open()?;
    let key = ensure_user_key(&state)?;
    let known = known_host(&folder)?;
    let ssh = match &config.binaries.ssh {
        Some(path) => path.clone().into_os_string(),
        None => "ssh".into(),
    };
    let programs = Programs { proxy: find("banger-ssh-proxy")?, state: None };
    folder.must_run()?;
    let own = banger_ssh::Login::ask(&folder);
    let user = args.user.as_deref().unwrap_or(&own.user);
    if let (Some(why), None) = (&own.instead, &args.user) {
        let vm = &args.vm;
        out.note(&format!("note: {why}: this is root; 'banger vm exec {vm}' is that user"));
    }
    let login = Login {
        host: &host_name(&args.vm),
        known: &known,
        user: Some(user).filter(|user| *user == "root" || *user == own.user),
        key: &key,
    };
    wait_until_ready(&folder, login, Duration::from_secs(args.timeout), out)?;
    let mut command = Command::new(&ssh);
    // What ssh is told first counts: the user is told below.
    for (key, value) in ssh_words(&state, &programs).into_iter().filter(|(key, _)| *key != "User") {
        command.arg("-o").arg(format!("{key}={value}"));
    }
    for option in &args.options {
        command.arg("-o").arg(option);
    }
    for forward in &args.forwards {
        command.arg("-L").arg(forward);
    }
    for (asked, option) in [(args.tty, "-t"), (args.forward_agent, "-A"), (args.no_stdin, "-n")] {
        command.args(asked.then_some(option));
    }
    // The guest may not know the user's terminal, and then nothing works that moves the cursor.
    if std::env::var("TERM").is_ok_and(|term| !is_known_terminal(&term)) {
        command.env("TERM", STAND_IN);
    }
    command.args(["-F", "none", "-o", "LogLevel=ERROR", "-l", user]);
    command.arg(host_name(&args.vm)).args(for_shell(&args.command));
    let terminal = stdin().is_terminal() && stdout().is_terminal();
    let is_left = args.command.is_empty() && terminal && out.is_live();
    let ended = if is_left { stay::to_the_end(&mut command) } else { Err(command.exec()) };
    let status = ended.map_err(|error| {
        Error::unavailable(format!("cannot run '{}'", ssh.display()))
            .because(error)
            .hint("install an ssh client (Debian, Ubuntu: openssh-client; Fedora: openssh-clients)")
    })?;
    // ssh says by this status that it failed itself.
    if status != SSH_FAILED && folder.is_live().unwrap_or(false) {
        out.note(&runs_on(&args.vm, "ssh"));
    }
    Ok(ExitCode::from(status))
}

/// Waits for the server. One that is there at once is left to ssh; one that comes up meanwhile has to
/// let banger's key in first, since what greets is not always what serves.
fn wait_until_ready(folder: &VmFolder, login: Login<'_>, limit: Duration, out: &Out) -> Result<()> {
    let end = Instant::now() + limit;
    let stages = Stages::new(out, false);
    let mut waits: Option<Line> = None;
    let mut refusals = 0;
    loop {
        let stream = reach_until(folder, end, limit, || {
            waits.get_or_insert_with(|| {
                let line = stages.line(folder.name());
                line.enter("waiting for its ssh server");
                if !out.is_live() {
                    line.note("waiting for its ssh server");
                }
                line
            });
        })?;
        let Some(line) = &waits else { return Ok(()) };
        match login.attempt(stream) {
            Try::In => {
                line.done("its ssh server came up");
                return Ok(());
            }
            Try::Refused(error) => {
                refusals += 1;
                if refusals >= REFUSALS {
                    let name = folder.name();
                    return Err(error.hint(format!(
                        "'banger vm exec {name}' works without ssh; '.ssh' in the user's home and \
                         the configuration of the guest's server say who gets in"
                    )));
                }
            }
            Try::NotYet(error) if Instant::now() + PAUSE >= end => {
                return Err(late(folder, limit, error));
            }
            Try::NotYet(_) => {}
        }
        thread::sleep(PAUSE);
    }
}

/// Returns what ssh passes to the guest's shell: it joins words by spaces, so several are quoted.
fn for_shell(words: &[OsString]) -> Vec<OsString> {
    match words {
        [] | [_] => words.to_vec(),
        _ => words.iter().map(|word| quoted(word)).collect(),
    }
}

fn quoted(word: &OsStr) -> OsString {
    let mut text = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => text.extend(b"'\\''"),
            other => text.push(*other),
        }
    }
    text.push(b'\'');
    OsString::from_vec(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_words_reach_the_command_as_they_are() {
        let words = |all: &[&str]| for_shell(&all.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(words(&["ls | wc"]), ["ls | wc"]);
        assert_eq!(words(&["sh", "-c", "exit 42"]), ["'sh'", "'-c'", "'exit 42'"]);
        assert_eq!(words(&["echo", "it's"]), ["'echo'", "'it'\\''s'"]);
        assert!(words(&[]).is_empty());
    }
}
