//! An init for images that have none: starts their program, reaps what ends, ends the guest when asked.

use crate::{choose, console, mark, say};
use banger_doc::{Booted, Context, Error, Guest, Result};
use banger_guest::{power, process, user};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    libc,
    mount::{MsFlags, mount},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Pid, Uid, fchown, pipe2},
};
use std::{
    convert::Infallible,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    str::FromStr,
    time::Duration,
};

/// How long processes have to end when the guest does.
const GRACE: Duration = Duration::from_secs(8);

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
    if !choose::program(guest).is_empty() {
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

/// Starts the program of the image's configuration; what it says goes to the console.
fn start(guest: &Guest, blocked: &SigSet) -> Result<Pid> {
    let config = &guest.config;
    let words = choose::program(guest);
    let root = Path::new("/");
    let user = user::find(root, config.user.as_deref().unwrap_or_default())?;
    let dir = config.working_dir.as_deref().filter(|dir| !dir.is_empty()).unwrap_or("/");
    let path = choose::search_path(guest);
    let program = choose::find(root, &words[0], &path, dir).ok_or_else(|| {
        Error::not_found(format!("the image's program '{}' is not in '{path}'", words[0]))
    })?;
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // Programs open `/dev/stdout` by its name, which asks whose the pipe is (proc_pid_fd(5)).
    fchown(&theirs, Some(uid), None).context("cannot give a pipe away")?;
    let out = theirs.try_clone().context("cannot share a pipe")?;
    let mut command = Command::new(&program);
    command.arg0(&words[0]).args(&words[1..]).env_clear().current_dir(dir);
    command.env("PATH", choose::PATH).env("HOME", &user.home);
    command.envs(config.env.iter().filter_map(|entry| entry.split_once('=')));
    command.stdin(Stdio::null()).stdout(out).stderr(theirs);
    let blocked = *blocked;
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let reaper = choose::is_reaper(&words);
    let before = move || {
        nix::unistd::setsid()?;
        if reaper {
            nix::sys::prctl::set_child_subreaper(true)?;
        }
        sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&blocked), None)?;
        nix::unistd::setgroups(&groups)?;
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
        process::keep_three();
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, and memory allocated before.
    unsafe { command.pre_exec(before) };
    let failed = || format!("cannot run the image's program '{}'", words[0]);
    let pid = if choose::wants_to_be_first(root, &words) {
        first_of_its_own(&mut command).with_context(failed)?
    } else {
        Pid::from_raw(command.spawn().with_context(failed)?.id() as i32)
    };
    // The last end that is not the program's: when that closes its own, there is no more to come.
    drop(command);
    console::copy(ours)?;
    Ok(pid)
}

/// Starts a program as the first process of a PID namespace, with a `/proc` of its own; its number here is
/// another one. All else it shares with the machine. One that cannot be run is an error.
fn first_of_its_own(command: &mut Command) -> io::Result<Pid> {
    // Closed by the program that runs; what cannot become it says here why.
    let (mut why, says) = io::pipe()?;
    let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::SIGCHLD;
    // SAFETY: without a stack of its own the child goes on as after fork(2); this process has one thread.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match child {
        0 => {
            let error = own_proc().map_or_else(io::Error::from, |()| command.exec());
            let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
            let _ = (&says).write_all(&errno.to_ne_bytes());
            // SAFETY: the call ends this process; what the other one still has to do is left to it.
            unsafe { libc::_exit(127) }
        }
        pid if pid > 0 => {
            drop(says);
            let pid = Pid::from_raw(pid as i32);
            let mut errno = [0; size_of::<i32>()];
            if why.read_exact(&mut errno).is_err() {
                return Ok(pid);
            }
            let _ = waitpid(pid, None);
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn own_proc() -> nix::Result<()> {
    let none: Option<&str> = None;
    // What is mounted there is nobody else's.
    mount(none, "/proc", none, MsFlags::MS_PRIVATE, none)?;
    let secure = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), secure, none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_its_own_namespace_that_cannot_be_run_is_an_error() {
        let start = |program: &str| first_of_its_own(&mut Command::new(program));
        match start("/bin/true") {
            // Without the rights to make a namespace there is nothing to see.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
            pid => {
                assert!(matches!(waitpid(pid.unwrap(), None).unwrap(), WaitStatus::Exited(_, 0)));
            }
        }
        for (program, wanted) in [
            ("/none/such", io::ErrorKind::NotFound),
            ("/etc/passwd", io::ErrorKind::PermissionDenied),
            ("a\0b", io::ErrorKind::InvalidInput),
        ] {
            assert_eq!(start(program).unwrap_err().kind(), wanted, "{program:?}");
        }
        assert_eq!(waitpid(None, None), Err(Errno::ECHILD));
    }

    #[test]
    fn a_stop_signal_is_read_as_images_write_it() {
        assert_eq!(signal_of("SIGQUIT"), Some(Signal::SIGQUIT));
        assert_eq!(signal_of("term"), Some(Signal::SIGTERM));
        assert_eq!(signal_of("3"), Some(Signal::SIGQUIT));
        assert_eq!(signal_of("SIGRTMIN+3"), None);
        assert_eq!(signal_of(""), None);
    }
}
