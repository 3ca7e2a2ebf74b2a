//! The stub: PID 1 of a PID namespace that the VMM runs in, so that however the supervisor dies,
//! the kernel ends everything (pid_namespaces(7)).

use crate::network::{Wish, refuse_network};
use banger_doc::{Context, Error, Result};
use banger_machine::{BUSY, Launch, Way};
use banger_net::{Carrier, Network};
use banger_state::place;
use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, clone},
    sys::{
        prctl,
        signal::{Signal, kill},
        socket::{
            AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, send,
            setsockopt, socketpair, sockopt,
        },
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Pid, Uid, getegid, geteuid, getppid, pipe2},
};
use std::{
    cell::Cell,
    fs,
    io::{self, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// How long a process that was killed may take to be gone.
const REAP_LIMIT: Duration = Duration::from_secs(30);
/// How long after the start's end the stub may take to say what did not come in time.
const LAST_WORDS: Duration = Duration::from_secs(3);
const STACK: usize = 256 << 10;
/// The most bytes of an error that the stub passes on.
const WORDS: usize = 400;

/// How the VMM ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum VmmEnd {
    /// With an exit status.
    Status(i32),
    /// By a signal.
    Signal(i32),
    /// Unknown: the stub was killed.
    Unknown,
}

/// A live stub.
#[derive(Debug)]
pub(crate) struct Stub {
    pub(crate) pid: Pid,
    pub(crate) vmm: Pid,
    /// What the user is to know of fences that are not there.
    pub(crate) weaker: Vec<String>,
    /// Why there is no network namespace, if one was asked for and is not there: QEMU's own network stands
    /// in, which the user allowed.
    pub(crate) no_network: Option<String>,
    /// Whether it was waited for.
    gone: Cell<bool>,
    report: OwnedFd,
    /// Read-end closed only with the stub: a stub that begins after the supervisor's death sees it.
    _life: OwnedFd,
}

/// The VMM's process, not yet made.
struct Child<'a> {
    way: &'a Way,
    /// When it has to have begun.
    until: Instant,
    network: Option<&'a Wish>,
    /// What carries the guest's packets instead, and its end of the socket.
    carrier: Option<(&'a Carrier, &'a OwnedFd)>,
    inherit: &'a [OwnedFd],
    /// Says that the disks are in use, as long as anybody has it; there is nothing to read.
    stdin: &'a OwnedFd,
    stdout: &'a OwnedFd,
    stderr: &'a OwnedFd,
}

/// What the stub says first.
enum First {
    Begun(Pid),
    Failed(String),
    /// There is no network that the user allowed.
    Refused(String),
    NoNamespace(String),
    NoNetwork(String),
}

impl Stub {
    /// Starts the VMM, which has to begin by then; its output goes to `output`, and `disks`, an empty
    /// file, is what says that the disks are in use.
    pub(crate) fn start(
        launch: &Launch,
        (network, carrier): (Option<&Wish>, Option<&Carrier>),
        output: &OwnedFd,
        disks: &OwnedFd,
        until: Instant,
    ) -> Result<Self> {
        let mut namespace = CloneFlags::CLONE_NEWPID;
        if !geteuid().is_root() {
            namespace |= CloneFlags::CLONE_NEWUSER;
        }
        let child = |way| Child {
            way,
            until,
            network,
            carrier: carrier.zip(launch.carried.as_ref()),
            inherit: &launch.inherit,
            // The one descriptor that every VMM keeps, Firecracker's jailer included.
            stdin: disks,
            stdout: launch.stdout.as_ref().unwrap_or(output),
            stderr: output,
        };
        let mut weaker = Vec::new();
        let mut failed = None;
        for way in &launch.ways {
            if let Some(why) = failed.take() {
                weaker.push(format!("the VMM runs without its jail ({why}): it sees what you see"));
            }
            match attempt(&child(way), namespace)? {
                Ok(mut stub) => {
                    stub.weaker = weaker;
                    return Ok(stub);
                }
                Err(why) => failed = Some(why),
            }
        }
        let why = failed.unwrap_or_default();
        let last = launch.ways.last().filter(|way| way.jail.is_none()).ok_or_else(|| {
            Error::unavailable("cannot make the VMM's jail")
                .because(io::Error::other(why.clone()))
                .hint("'banger doctor' says how to allow it; '--vmm qemu' does without")
        })?;
        weaker.push(format!("no PID namespace ({why}): a parent-death signal stands in"));
        let mut stub = attempt(&child(last), CloneFlags::empty())?.map_err(Error::failed)?;
        stub.weaker = weaker;
        Ok(stub)
    }

    /// Returns what is readable when the VMM has ended.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// Ends everything at once.
    pub(crate) fn kill(&self) {
        // Once waited for, the number may be another process's.
        if !self.gone.get() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    fn reap(&self, limit: Duration) {
        if !self.gone.get() {
            self.gone.set(reap(self.pid, limit));
        }
    }

    /// Reads how the VMM ended, once [`Stub::fd`] is readable, and waits until all is gone.
    pub(crate) fn end(&self, limit: Duration) -> VmmEnd {
        let mut bytes = [0; 8];
        let said = nix::unistd::read(&self.report, &mut bytes);
        let end = match said {
            Ok(8) if bytes[0] == b'S' => VmmEnd::Status(number(bytes)),
            Ok(8) if bytes[0] == b'K' => VmmEnd::Signal(number(bytes)),
            _ => VmmEnd::Unknown,
        };
        self.kill();
        self.reap(limit);
        end
    }
}

impl Drop for Stub {
    /// Whatever made its holder give up: nothing may write the disks any more.
    fn drop(&mut self) {
        self.kill();
        self.reap(REAP_LIMIT);
    }
}

fn number(bytes: [u8; 8]) -> i32 {
    i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// Waits for a child, bounded, without minding how it ended; says whether it is gone.
fn reap(pid: Pid, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    while matches!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive)) {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    true
}

/// Starts a stub; the inner error says why it has no namespace.
fn attempt(vmm: &Child<'_>, flags: CloneFlags) -> Result<std::result::Result<Stub, String>> {
    let (report, report_end) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .context("cannot make a socket for the stub")?;
    // The kernel then translates the VMM's number into one of this namespace.
    setsockopt(&report, sockopt::PassCred, &true).context("cannot ask for process numbers")?;
    let (life_end, life) =
        pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("cannot make a pipe for the stub")?;
    let mut stack = vec![0; STACK];
    let ids = (geteuid(), getegid());
    let child = || {
        let mut keep = vec![report_end.as_raw_fd(), life_end.as_raw_fd()];
        keep.extend([vmm.stdin, vmm.stdout, vmm.stderr].map(AsRawFd::as_raw_fd));
        keep.extend(vmm.inherit.iter().map(AsRawFd::as_raw_fd));
        keep.extend(vmm.carrier.map(|(_, end)| end.as_raw_fd()));
        close_others(&keep);
        be_stub(vmm, &report_end, &life_end, flags, ids)
    };
    // SAFETY: this process has one thread, so its copy may do all it may do; the stack is large
    // enough for starting a process, the most that is done on it.
    let cloned = unsafe { clone(Box::new(child), &mut stack, flags, Some(Signal::SIGCHLD as i32)) };
    drop((report_end, life_end));
    let pid = match cloned {
        Ok(pid) => pid,
        Err(errno) if flags.is_empty() => return Err(errno).context("cannot make a process"),
        Err(errno) => return Ok(Err(errno.desc().to_owned())),
    };
    let mut no_network = None;
    loop {
        match first(&report, vmm.until)? {
            First::Begun(vmm) => {
                return Ok(Ok(Stub {
                    pid,
                    vmm,
                    weaker: Vec::new(),
                    no_network,
                    gone: Cell::new(false),
                    report,
                    _life: life,
                }));
            }
            First::NoNetwork(why) => no_network = Some(why),
            First::NoNamespace(why) => {
                reap(pid, REAP_LIMIT);
                return Ok(Err(why));
            }
            First::Refused(why) => {
                reap(pid, REAP_LIMIT);
                return Err(refuse_network(&why, None));
            }
            First::Failed(why) => {
                let _ = kill(pid, Signal::SIGKILL);
                reap(pid, REAP_LIMIT);
                let program = vmm.way.command.get_program().display();
                let (why, hint) = why.split_once('\n').unwrap_or((&why, ""));
                let error = Error::failed(format!("cannot start '{program}'"))
                    .because(io::Error::other(why.to_owned()));
                return Err(if hint.is_empty() { error } else { error.hint(hint) });
            }
        }
    }
}

fn first(report: &OwnedFd, until: Instant) -> Result<First> {
    let left = until.saturating_duration_since(Instant::now()) + LAST_WORDS;
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    let heard = poll(&mut [PollFd::new(report.as_fd(), PollFlags::POLLIN)], timeout);
    if heard.context("cannot wait for the stub")? == 0 {
        return Ok(First::Failed(format!("it does not begin in time\n{BUSY}")));
    }
    let mut bytes = [0; 512];
    let mut space = cmsg_space!(libc::ucred);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message =
        recvmsg::<()>(report.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
            .context("cannot hear the stub")?;
    let sender = message.cmsgs().ok().and_then(|mut all| {
        all.find_map(|one| match one {
            ControlMessageOwned::ScmCredentials(who) => Some(Pid::from_raw(who.pid())),
            _ => None,
        })
    });
    let size = message.bytes;
    let text = || String::from_utf8_lossy(&bytes[1..size]).into_owned();
    Ok(match (bytes.first(), sender) {
        (Some(b'V'), Some(pid)) if size > 0 => First::Begun(pid),
        (Some(b'E'), _) if size > 0 => First::Failed(text()),
        (Some(b'U'), _) if size > 0 => First::Refused(text()),
        (Some(b'N'), _) if size > 0 => First::NoNamespace(text()),
        (Some(b'W'), _) if size > 0 => First::NoNetwork(text()),
        _ => First::Failed("its stub ended".into()),
    })
}

/// The stub's life. Returns its exit status, which nobody reads.
fn be_stub(
    vmm: &Child<'_>,
    report: &OwnedFd,
    life: &OwnedFd,
    flags: CloneFlags,
    ids: (Uid, Gid),
) -> isize {
    let say = |tag: u8, bytes: &[u8]| {
        let _ = send(report.as_raw_fd(), &[&[tag], bytes].concat(), MsgFlags::MSG_NOSIGNAL);
    };
    if let Err(errno) = prctl::set_pdeathsig(Signal::SIGKILL) {
        say(b'E', errno.desc().as_bytes());
        return 1;
    }
    // A parent that died before that call is seen by its end of the pipe.
    if poll(&mut [PollFd::new(life.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) != Ok(0) {
        return 1;
    }
    if flags.contains(CloneFlags::CLONE_NEWUSER)
        && let Err(error) = map_user(ids)
    {
        say(b'N', format!("cannot map the user: {error}").as_bytes());
        return 1;
    }
    let streams = || Ok((vmm.stdin.try_clone()?, vmm.stdout.try_clone()?, vmm.stderr.try_clone()?));
    let (stdin, stdout, stderr) = match streams() {
        Ok(three) => three,
        Err(error) => {
            let error: io::Error = error;
            say(b'E', error.to_string().as_bytes());
            return 1;
        }
    };
    let network = vmm.network.map(|wish| wish.grant(vmm.stderr, vmm.until)).transpose();
    let (network, plan, jail) = match (network, &vmm.way.without_tap) {
        (Ok(network), _) => (network, &vmm.way.command, &vmm.way.jail),
        (Err(error), Some(_)) if !vmm.network.is_some_and(|wish| wish.options.allow_host) => {
            let words = error.chain();
            say(b'U', &words.as_bytes()[..words.len().min(WORDS)]);
            return 1;
        }
        (Err(error), Some((without_tap, jail))) => {
            let words = error.chain();
            say(b'W', &words.as_bytes()[..words.len().min(WORDS)]);
            (None, without_tap, jail)
        }
        (Err(error), None) => {
            let (chain, hint) = (error.chain(), error.hint_text().unwrap_or_default());
            // The hint is to come through whole: room for it is taken from the reason.
            let room = WORDS.saturating_sub(hint.len() + 1);
            let reason = &chain[..chain.floor_char_boundary(room)];
            say(b'E', format!("{reason}\n{hint}").as_bytes());
            return 1;
        }
    };
    if let Some((carrier, end)) = vmm.carrier
        && let Err(error) = carrier.start(end.as_fd(), vmm.stderr.as_fd())
    {
        let words = error.chain();
        say(b'U', &words.as_bytes()[..words.len().min(WORDS)]);
        return 1;
    }
    let mut command = Command::new(plan.get_program());
    command.args(plan.get_args()).env_clear().stdin(stdin).stdout(stdout).stderr(stderr);
    command.envs(std::env::var_os(place::MARK).map(|mark| (place::MARK, mark)));
    let mut die = end_with_parent(std::process::id());
    let inherited: Vec<RawFd> = vmm.inherit.iter().map(AsRawFd::as_raw_fd).collect();
    let report_fd = report.as_raw_fd();
    let jail = jail.clone();
    let begin = move || {
        let fenced = match &jail {
            Some(jail) => jail.enter(),
            None => banger_jail::plain(),
        };
        if let Err(error) = fenced {
            let words = error.chain();
            let words = &words.as_bytes()[..words.len().min(WORDS)];
            let _ = send(report_fd, &[b"N", words].concat(), MsgFlags::MSG_NOSIGNAL);
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        die()?;
        for fd in &inherited {
            // SAFETY: the descriptor is open; only its close-on-exec flag changes.
            Errno::result(unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) })?;
        }
        send(report_fd, b"V", MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    };
    if let Some(network) = &network {
        network.enter(&mut command);
        if let Some(user) = vmm.way.user {
            network.give(&mut command, user);
        }
    }
    // SAFETY: this process is a copy with one thread, so its child may do all it may do.
    unsafe { command.pre_exec(begin) };
    let vmm = match command.spawn() {
        Ok(child) => Pid::from_raw(child.id() as i32),
        Err(error) => {
            say(b'E', error.to_string().as_bytes());
            return 1;
        }
    };
    drop(command);
    let line = network.as_ref().and_then(Network::line);
    close_others(&[&[report.as_raw_fd()][..], line.as_slice()].concat());
    // All else of it is closed, and what it started ends with this process.
    std::mem::forget(network);
    loop {
        let (tag, number) = match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, status)) if pid == vmm => (b'S', status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == vmm => (b'K', signal as i32),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => return 1,
        };
        say(tag, &[&[0; 3][..], &number.to_le_bytes()].concat());
        return 0;
    }
}

impl Wish {
    /// Makes the namespace and its way out, whose complaints go to `log`.
    fn grant(&self, log: &OwnedFd, until: Instant) -> Result<Network> {
        let (tools, plan) = (self.tools.clone(), self.plan.clone());
        let mut network = Network::make(tools, plan, self.options, until)?;
        network.lead_out(log.as_fd())?;
        Ok(network)
    }
}

/// Gives a new user namespace one user and group, those of the supervisor, so files keep their
/// owners (user_namespaces(7)).
fn map_user((uid, gid): (Uid, Gid)) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Returns what a child does before its program begins, so that it ends with its parent.
fn end_with_parent(parent: u32) -> impl FnMut() -> io::Result<()> + Send + Sync {
    move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid().as_raw() as u32 == parent {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    }
}

/// Closes what a copy of a process has open, but for the standard streams and `keep`.
fn close_others(keep: &[RawFd]) {
    let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open {
        if fd > 2 && !keep.contains(&fd) {
            // SAFETY: this copy of the process uses only what is kept; the listing's own
            // descriptor is closed already, and closing it again is an error without effect.
            unsafe { libc::close(fd) };
        }
    }
}
