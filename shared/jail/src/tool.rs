//! Runs a tool of the host, which parses what a guest wrote, in a jail of its own.
//!
//! ```text
//! caller -> watcher -> tool       the watcher is a copy of the caller that waits and ends as the tool does
//! ```
//!
//! The tool is the first process of a PID namespace, so nothing that it starts outlives it; it ends with the
//! watcher, and the watcher with the caller's thread.

use crate::{
    End, Jail, Seen, User, confine,
    jail::{drop_powers, loaded, own_user, plain, program, weak_root},
    mapped::{Tree, owners},
    seccomp,
};
use banger_doc::{Context, Error, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, raise, sigaction},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, chdir, fork, getegid, geteuid, getppid, pipe2, read, write},
};
use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::Duration,
};

/// Where a jail is laid out: a folder that every host has, and that no tool needs.
const BASE: &str = "/proc";
/// The most bytes of an error that are passed on.
const WORDS: usize = 400;
/// Begin the words of one who failed: the host allows no namespaces; all else.
const NONE: u8 = b'N';
const FAILED: u8 = b'E';

/// Why this host allows no jail, once that has been found out.
static WEAKER: OnceLock<String> = OnceLock::new();
/// Why root's tools stay root here, likewise.
static ROOT: OnceLock<String> = OnceLock::new();
/// The process that a watcher waits for.
static WATCHED: AtomicI32 = AtomicI32::new(0);

/// What a tool may use of the host.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Memory of its own, in bytes.
    pub memory: u64,
    /// What it may map of files besides, in bytes.
    pub mapped: u64,
    /// The largest file that it may write, in bytes.
    pub file: u64,
    /// Time of a processor.
    pub time: Duration,
}

/// A program of the host that parses what a guest wrote.
#[derive(Clone, Debug)]
pub struct Tool {
    program: PathBuf,
    seen: Vec<(PathBuf, bool)>,
    limits: Limits,
}

/// What a tool is put into.
struct Fence {
    jail: Jail,
    limits: Limits,
    /// Where it begins.
    dir: PathBuf,
    /// Whether it takes a user namespace to make the others.
    as_user: bool,
    /// Whether the host allows none of them: what stands without them.
    alone: AtomicBool,
}

/// Returns how tools of this process run behind less than a whole jail and why, if they did: words that go on
/// after a tool's name.
pub fn weaker() -> Option<String> {
    if let Some(why) = WEAKER.get() {
        return Some(format!("ran without namespaces of its own: {why}"));
    }
    ROOT.get().map(|why| format!("ran as root in its jail, without capabilities: {why}"))
}

/// Says whether this is how a kernel, a file system or a container says that it has no such thing to give, for
/// which what is weaker stands in; the lack of memory, say, is none.
fn is_none(errno: Errno) -> bool {
    use Errno::{EACCES, EINVAL, ENOSPC, ENOSYS, EPERM};
    // The last is that of `max_user_namespaces` and its like (namespaces(7)).
    matches!(errno, EPERM | EACCES | ENOSYS | EINVAL | ENOSPC)
}

/// Returns what begins the words about a failure to make namespaces: only what the host has not to give is let pass.
fn tag_of(error: &Error) -> u8 {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let of_std = || error.downcast_ref::<io::Error>()?.raw_os_error().map(Errno::from_raw);
        if let Some(errno) = error.downcast_ref::<Errno>().copied().or_else(of_std) {
            return if is_none(errno) { NONE } else { FAILED };
        }
        cause = error.source();
    }
    FAILED
}

impl Tool {
    /// Takes a program. A script is refused: nobody knows what it needs.
    pub fn new(path: &Path, limits: Limits) -> Result<Self> {
        let program = program(path)?.ok_or_else(|| {
            Error::unavailable(format!("'{}' is a script, which no jail can hold", path.display()))
                .hint("have the program itself come first in PATH")
        })?;
        Ok(Self { program, seen: Vec::new(), limits })
    }

    /// Has it see a file or a folder where it lies, an absolute path.
    #[must_use]
    pub fn sees(mut self, path: impl Into<PathBuf>, writable: bool) -> Self {
        self.seen.push((path.into(), writable));
        self
    }

    /// Returns a command of it, without anything of the caller's environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear();
        command
    }

    /// Starts the command in a jail, in `dir`. To be called by the thread that waits for it, since it ends
    /// with that. On a host that allows no namespaces it runs behind what is left, and [`weaker`] says why.
    pub fn spawn(&self, command: Command, dir: &Path) -> Result<Child> {
        self.start(command, dir)
            .map_err(|error| error.or_hint("'banger doctor' looks at namespaces"))
    }

    fn start(&self, mut command: Command, dir: &Path) -> Result<Child> {
        let said = || format!("cannot run '{}' in a jail", self.program.display());
        let (words, words_end) = pipe2(OFlag::O_CLOEXEC).with_context(said)?;
        fcntl(&words, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).with_context(said)?;
        let fence = Arc::new(self.fence(dir).with_context(said)?);
        let inner = Arc::clone(&fence);
        let parent = std::process::id();
        let begin = move || {
            inner.begin(parent).map_err(|(tag, error)| {
                let chain = error.chain();
                let chain = &chain.as_bytes()[..chain.len().min(WORDS)];
                let _ = write(&words_end, &[&[tag], chain].concat());
                io::Error::from_raw_os_error(libc::EPERM)
            })
        };
        // SAFETY: glibc's fork leaves the heap usable in the child, which takes no other lock of its
        // parent's: it formats paths and makes system calls.
        unsafe { command.pre_exec(begin) };
        loop {
            let error = match command.spawn() {
                Ok(child) => return Ok(child),
                Err(error) => error,
            };
            let mut bytes = [0; WORDS + 1];
            let count = read(&words, &mut bytes).unwrap_or(0);
            let why = String::from_utf8_lossy(&bytes[1..count.max(1)]).into_owned();
            if count > 0 && bytes[0] == NONE && !fence.alone.swap(true, Ordering::Relaxed) {
                let _ = WEAKER.set(why);
                continue;
            }
            let error = if count == 0 { error } else { io::Error::other(why) };
            return Err(error).with_context(said);
        }
    }

    fn fence(&self, dir: &Path) -> Result<Fence> {
        let mut files = loaded(&self.program, &[]);
        files.push(Seen { writable: true, ..Seen::as_it_is(Path::new("/dev/null")) });
        files.push(Seen::as_it_is(Path::new("/dev/urandom")));
        let real = geteuid().is_root() && weak_root().is_ok();
        let mut end = End::Own(None);
        let mut trees = Vec::new();
        let mapped = match real.then(|| self.mapped()).transpose() {
            Err(error) if tag_of(&error) == NONE => {
                let _ = ROOT.set(error.chain());
                None
            }
            mapped => mapped?,
        };
        if let Some(mapped) = mapped {
            end = End::Own(Some(own_user(User::Tool)));
            trees = mapped;
        } else {
            // Whoever is root in here then is so without any capability.
            files.extend(
                self.seen
                    .iter()
                    .map(|(path, writable)| Seen { writable: *writable, ..Seen::as_it_is(path) }),
            );
        }
        let mut jail = Jail::new(files, BASE, end);
        jail.trees = trees;
        Ok(Fence {
            jail,
            limits: self.limits,
            dir: dir.to_owned(),
            as_user: !geteuid().is_root(),
            alone: AtomicBool::new(WEAKER.get().is_some()),
        })
    }

    /// Returns what it sees as the user that it becomes has it.
    fn mapped(&self) -> Result<Vec<Tree>> {
        static OWNERS: OnceLock<OwnedFd> = OnceLock::new();
        let owners = match OWNERS.get() {
            Some(owners) => owners,
            None => OWNERS.get_or_init({
                let made = owners(own_user(User::Tool)).context("no user namespace for mounts")?;
                || made
            }),
        };
        let tree = |(path, writable): &(PathBuf, bool)| {
            Tree::of(path, *writable, owners)
                .with_context(|| format!("cannot map '{}' to another user", path.display()))
        };
        self.seen.iter().map(tree).collect()
    }
}

impl Fence {
    /// Puts the calling process, a copy of its parent with one thread, behind the fence. Returns in the tool
    /// alone; the copy itself stays as its watcher.
    fn begin(&self, parent: u32) -> std::result::Result<(), (u8, Error)> {
        let failed = |error| (FAILED, error);
        prctl::set_pdeathsig(Signal::SIGKILL)
            .context("cannot bind it to its parent")
            .map_err(failed)?;
        if getppid().as_raw() as u32 != parent {
            return Err(failed(Error::failed("its parent ended")));
        }
        if self.alone.load(Ordering::Relaxed) {
            return self.stand_alone().map_err(failed);
        }
        let none = |error| (tag_of(&error), error);
        let ids = (geteuid(), getegid());
        if self.as_user {
            unshare(CloneFlags::CLONE_NEWUSER).context("no user namespace").map_err(none)?;
            for (file, text) in [
                ("setgroups", "deny".to_owned()),
                ("uid_map", format!("{0} {0} 1", ids.0)),
                ("gid_map", format!("{0} {0} 1", ids.1)),
            ] {
                fs::write(format!("/proc/self/{file}"), text)
                    .context("cannot map the user")
                    .map_err(none)?;
            }
        }
        unshare(CloneFlags::CLONE_NEWPID).context("no PID namespace").map_err(none)?;
        let life = watch().context("cannot make a process").map_err(failed)?;
        self.jail.part().map_err(none)?;
        self.jail.settle().map_err(failed)?;
        chdir(&self.dir).context("cannot enter its folder").map_err(failed)?;
        // After the change of user, which takes this wish back.
        prctl::set_pdeathsig(Signal::SIGKILL)
            .context("cannot bind it to its watcher")
            .map_err(failed)?;
        if poll(&mut [PollFd::new(life.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) != Ok(0) {
            return Err(failed(Error::failed("its watcher ended")));
        }
        self.bound().map_err(failed)
    }

    /// What stands on a host without namespaces.
    fn stand_alone(&self) -> Result<()> {
        drop_powers(None)
            .or_else(|errno| if geteuid().is_root() { Err(errno) } else { Ok(()) })
            .context("cannot give up privileges")?;
        plain()?;
        chdir(&self.dir).context("cannot enter its folder")?;
        let seen = self.jail.files.iter().map(|file| (file.inside.as_str(), file.writable));
        let trees = self.jail.trees.iter().map(|tree| (tree.inside.as_str(), tree.writable));
        confine::restrict(seen.chain(trees), false).context("cannot restrict it with Landlock")?;
        self.bound()
    }

    /// Sets the limits, and refuses what it does not need.
    fn bound(&self) -> Result<()> {
        let Limits { memory, mapped, file, time } = self.limits;
        for (what, most) in [
            (Resource::RLIMIT_FSIZE, file),
            (Resource::RLIMIT_CPU, time.as_secs()),
            (Resource::RLIMIT_DATA, memory),
            (Resource::RLIMIT_AS, memory.saturating_add(mapped)),
        ] {
            // One that is lower already stays.
            let most = most.min(nix::sys::resource::getrlimit(what).map_or(most, |(_, hard)| hard));
            setrlimit(what, most, most).context("cannot set its limits")?;
        }
        seccomp::refuse().context("cannot restrict its system calls")
    }
}

/// Copies the calling process: the copy returns, with what is readable once the other ended; the other waits
/// for the copy and ends as it did.
fn watch() -> nix::Result<OwnedFd> {
    let (life, life_end) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => Ok(life),
        ForkResult::Parent { child } => {
            let keep = life_end.as_raw_fd() as u32;
            // SAFETY: this copy of the process uses nothing but the pipe.
            let close = |first, last| unsafe { libc::close_range(first, last, 0) };
            if close(0, keep - 1) != 0 || close(keep + 1, u32::MAX) != 0 {
                // The tool sees that its watcher ended and says so; with these open its caller would wait for ever.
                // SAFETY: ends this process without running what its parent registered for its own end.
                unsafe { libc::_exit(127) }
            }
            wait_for(child)
        }
    }
}

extern "C" fn pass_on(signal: libc::c_int) {
    let _ = kill(Pid::from_raw(WATCHED.load(Ordering::Relaxed)), Signal::try_from(signal).ok());
}

fn wait_for(child: Pid) -> ! {
    WATCHED.store(child.as_raw(), Ordering::Relaxed);
    let action = SigAction::new(SigHandler::Handler(pass_on), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only makes a system call.
    let _ = unsafe { sigaction(Signal::SIGTERM, &action) };
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let status = loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, status)) => break status,
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
                // SAFETY: the default is no handler.
                let _ = unsafe { sigaction(signal, &action) };
                let _ = raise(signal);
                break 128 + signal as i32;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break 127,
        }
    };
    // SAFETY: ends this process without running what its parent registered for its own end.
    unsafe { libc::_exit(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_host_has_not_to_give_is_done_without() {
        let tag = |errno: Errno| {
            let of_nix = Err::<(), _>(errno).context("no user namespace").unwrap_err();
            let of_std = io::Error::from_raw_os_error(errno as i32);
            let of_std = Err::<(), _>(of_std).context("cannot map the user").unwrap_err();
            let below = Err::<(), _>(of_nix).context("no jail").unwrap_err();
            assert_eq!(tag_of(&below), tag_of(&of_std));
            tag_of(&below)
        };
        for none in [Errno::EPERM, Errno::EACCES, Errno::ENOSYS, Errno::EINVAL, Errno::ENOSPC] {
            assert_eq!(tag(none), NONE, "{none}");
        }
        for failed in [Errno::ENOMEM, Errno::EMFILE, Errno::ENOENT, Errno::EAGAIN] {
            assert_eq!(tag(failed), FAILED, "{failed}");
        }
        assert_eq!(tag_of(&Error::failed("words")), FAILED);
    }
}
