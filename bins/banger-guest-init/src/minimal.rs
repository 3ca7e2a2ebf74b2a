//! An init for images that have none: starts their program, reaps what ends, ends the guest when asked.

use crate::{mark, say};
use banger_doc::{Booted, Context, Error, Guest, Result};
use banger_guest::{power, user};
use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    convert::Infallible,
    fs::{self, OpenOptions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
    time::Duration,
};

/// How long processes have to end when the guest does.
const GRACE: Duration = Duration::from_secs(8);
/// Where programs are looked for if the image's configuration has no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Acts as init for good.
pub(crate) fn run(guest: &Guest) -> Result<()> {
    // Ctrl-Alt-Del becomes a signal to us.
    let _ = nix::sys::reboot::set_cad_enabled(false);
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPWR,
    ] {
        signals.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).context("cannot wait for signals")?;
    let mut main = None;
    let mut booted = Booted::Yes;
    if guest.run_entrypoint && !(guest.config.entrypoint.is_empty() && guest.config.cmd.is_empty())
    {
        match start(guest, &signals) {
            Ok(pid) => main = Some(pid),
            Err(error) => {
                say::console(&error.chain());
                say::warn(&error.chain());
                booted = Booted::Degraded;
            }
        }
    }
    mark::set(booted);
    loop {
        reap(&mut main);
        match signals.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(_) => return end(guest, main).map(|_| ()),
        }
    }
}

/// Buries what ended; a process whose parent ended is ours too.
fn reap(main: &mut Option<Pid>) {
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::EINTR) => continue,
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(status) => status,
        };
        if status.pid().is_some() && status.pid() == *main {
            *main = None;
            match status {
                WaitStatus::Exited(_, code) => {
                    say::console(&format!("the image's program ended with status {code}"));
                }
                WaitStatus::Signaled(_, signal, _) => {
                    say::console(&format!("the image's program was ended by {signal}"));
                }
                _ => {}
            }
        }
    }
}

/// Asks the image's program as the image says, then all others, and ends the machine.
fn end(guest: &Guest, main: Option<Pid>) -> Result<Infallible> {
    if let Some(pid) = main {
        let wanted = guest.config.stop_signal.as_deref().and_then(signal_of);
        let _ = kill(pid, wanted.unwrap_or(Signal::SIGTERM));
        let end = std::time::Instant::now() + GRACE;
        let mut main = Some(pid);
        while main.is_some() && std::time::Instant::now() < end {
            reap(&mut main);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    power::end_processes(GRACE);
    power::finish();
    Err(Error::failed("the machine does not end"))
}

/// Reads a signal as an image configuration has it: `SIGTERM`, `TERM` or `15`.
fn signal_of(text: &str) -> Option<Signal> {
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).ok();
    }
    let name = text.to_ascii_uppercase();
    Signal::from_str(&name).or_else(|_| Signal::from_str(&format!("SIG{name}"))).ok()
}

/// Starts the program of the image's configuration, its output on the console.
fn start(guest: &Guest, blocked: &SigSet) -> Result<Pid> {
    let config = &guest.config;
    let words: Vec<&String> = config.entrypoint.iter().chain(&config.cmd).collect();
    let user = user::find(Path::new("/"), config.user.as_deref().unwrap_or_default())?;
    let value = |name: &str| {
        config.env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    };
    let dir = config.working_dir.as_deref().filter(|dir| !dir.is_empty()).unwrap_or("/");
    let _ = fs::create_dir_all(dir);
    let program = find(words[0], value("PATH").unwrap_or(PATH), dir)?;
    let console = || {
        let console = OpenOptions::new().write(true).open("/dev/console");
        console.map_or_else(|_| Stdio::null(), Stdio::from)
    };
    let mut command = Command::new(&program);
    command.arg0(words[0]).args(&words[1..]).env_clear().current_dir(dir);
    command.env("PATH", PATH).env("HOME", &user.home);
    command.envs(config.env.iter().filter_map(|entry| entry.split_once('=')));
    command.stdin(Stdio::null()).stdout(console()).stderr(console());
    let blocked = *blocked;
    let groups: Vec<nix::unistd::Gid> =
        user.groups.iter().map(|gid| nix::unistd::Gid::from_raw(*gid)).collect();
    let (uid, gid) = (nix::unistd::Uid::from_raw(user.uid), nix::unistd::Gid::from_raw(user.gid));
    let before = move || {
        nix::unistd::setsid()?;
        sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&blocked), None)?;
        nix::unistd::setgroups(&groups)?;
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, and memory allocated before.
    unsafe { command.pre_exec(before) };
    let child = command
        .spawn()
        .with_context(|| format!("cannot run the image's program '{}'", words[0]))?;
    Ok(Pid::from_raw(child.id() as i32))
}

/// Finds a program as execvp(3) does.
fn find(word: &str, path: &str, dir: &str) -> Result<PathBuf> {
    if word.contains('/') {
        return Ok(Path::new(dir).join(word));
    }
    path.split(':')
        .map(|place| Path::new(dir).join(place).join(word))
        .find(|path| {
            fs::metadata(path)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| Error::not_found(format!("the image's program '{word}' is not in '{path}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_signal_is_read_as_images_write_it() {
        assert_eq!(signal_of("SIGQUIT"), Some(Signal::SIGQUIT));
        assert_eq!(signal_of("term"), Some(Signal::SIGTERM));
        assert_eq!(signal_of("3"), Some(Signal::SIGQUIT));
        assert_eq!(signal_of("SIGRTMIN+3"), None);
        assert_eq!(signal_of(""), None);
    }

    #[test]
    fn a_program_is_looked_for_in_path() {
        assert_eq!(find("sh", "/nowhere:/bin", "/").unwrap(), Path::new("/bin/sh"));
        assert_eq!(find("./x", "/bin", "/srv").unwrap(), Path::new("/srv/./x"));
        assert!(find("no-such-program", "/bin", "/").is_err());
    }
}
