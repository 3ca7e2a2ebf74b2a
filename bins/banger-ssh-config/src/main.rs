//! Tells ssh how to reach VMs by name: `ssh web.vm`, `scp`, `rsync`, editors that work over ssh.
//!
//! Prints the lines, or keeps them in `ssh/config` of the state and one fenced `Include` of that file
//! in `~/.ssh/config`. No byte outside the fence is ever changed. Writes banger's key if there is
//! none yet.

mod fence;
mod target;

use banger_cli::{Out, find};
use banger_doc::{Error, Result};
use banger_ssh::{
    FIRMLY, KNOWN_TERMINALS, PATTERN, Programs, STAND_IN, SUFFIX, ensure_user_key, ssh_words,
};
use banger_state::{State, place, replace};
use std::{
    env,
    fmt::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};
use target::Target;

/// The most lines of a configuration that are named.
const MOST: usize = 5;

/// Tell ssh how to reach VMs by name
///
/// Prints the lines for ~/.ssh/config. With --install they are included there, and 'ssh web.vm',
/// scp, sftp, rsync and editors over ssh work at once.
#[derive(clap::Parser)]
#[command(name = "banger-ssh-config", version)]
struct Args {
    /// Include the lines in ~/.ssh/config
    #[arg(long, conflicts_with = "uninstall")]
    install: bool,
    /// Take them out of ~/.ssh/config
    #[arg(long)]
    uninstall: bool,
}

fn main() -> ExitCode {
    banger_cli::main_raw(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    if args.uninstall {
        let target = Target::find(&home()?, None)?;
        let shown = target.shown().display();
        out.note(&if target.change(fence::without)? {
            format!("'{shown}' has nothing of banger in it now")
        } else {
            format!("'{shown}' is as it was: nothing of banger is in it")
        });
        return Ok(());
    }
    let state = State::open()?;
    ensure_user_key(&state)?;
    let text = lines(&state)?;
    if !args.install {
        return out.bytes(text.as_bytes());
    }
    let home = home()?;
    let config = state.path(place::SSH_CONFIG);
    replace(&config, text.as_bytes())?;
    let target = Target::find(&home, Some(&config))?;
    let include = fence::include(&config)?;
    let (shown, included) = (target.shown().display(), config.display());
    out.note(&if target.change(|text| fence::with(text, &include))? {
        format!("'{shown}' includes '{included}'; try 'ssh NAME{SUFFIX}'")
    } else {
        format!("'{shown}' is as it was: it includes '{included}'")
    });
    let more = added(target.shown());
    if !more.is_empty() {
        out.note(&format!(
            "note: what '{shown}' says of all hosts counts for VMs too where ssh adds it up: {}; write \
             'Host * !*{SUFFIX}' in place of 'Host *' to leave VMs out",
            more.join(", ")
        ));
    }
    Ok(())
}

/// Returns what a guest would get by a configuration although banger's lines come first: ssh adds these
/// up, and nothing takes them back.
fn added(config: &Path) -> Vec<String> {
    const ADDED: [&str; 4] = ["sendenv", "remoteforward", "localforward", "dynamicforward"];
    // The configuration may run commands to find out what counts.
    let asked = Command::new("timeout")
        .args(["10", "ssh", "-G", "-F"])
        .arg(config)
        .arg(format!("any{SUFFIX}"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let said = asked.map(|asked| asked.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said)
        .lines()
        .filter(|line| {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            // The language is no secret.
            let language = name == "sendenv" && (value == "LANG" || value.starts_with("LC_"));
            ADDED.contains(&name) && !language
        })
        .map(|line| format!("'{line}'"))
        .take(MOST)
        .collect()
}

fn home() -> Result<PathBuf> {
    env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from).ok_or_else(|| {
        Error::unavailable("cannot tell where your ssh configuration is: HOME is not set")
    })
}

/// The lines for all VMs at once: a VM's name is found in the state when ssh connects.
fn lines(state: &State) -> Result<String> {
    let told = env::var_os("BANGER_STATE").is_some_and(|value| !value.is_empty())
        || env::var_os("XDG_STATE_HOME").is_some_and(|value| !value.is_empty());
    let programs = Programs {
        proxy: find("banger-ssh-proxy")?,
        // ssh may run later, from an environment that does not say where the state lies.
        state: told.then(|| state.root().to_owned()),
    };
    let mut text = format!("# Written by banger ssh-config.\nHost {PATTERN}\n");
    // Each running VM's own user, before the one of all others: ssh takes what it meets first.
    let logins = state.root().join("vms/*").join(place::VM_SSH_LOGIN);
    let root = state.root().to_string_lossy();
    if !root.contains(['"', '\\', '*', '?', '[', '%', '$', '\n']) {
        let _ = writeln!(text, "    Include \"{}\"", logins.display());
    }
    let firmly = FIRMLY.iter().map(|(key, value)| (*key, (*value).to_owned()));
    for (key, value) in ssh_words(state, &programs).into_iter().chain(firmly) {
        let _ = writeln!(text, "    {key} {value}");
    }
    // A terminal the guest may not know goes by a name that it knows.
    let _ = writeln!(
        text,
        "Match host *{SUFFIX} exec \"sh -c 'case ${{TERM:-dumb}} in {KNOWN_TERMINALS}) exit 1;; esac'\"\n    SetEnv TERM={STAND_IN}"
    );
    // ssh takes the first of these only, so no value that is meant for other hosts comes along.
    let _ = writeln!(text, "Host {PATTERN}\n    SetEnv BANGER=1");
    Ok(text)
}
