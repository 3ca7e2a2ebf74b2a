//! The keeper: a process that starts `pasta`, and starts it again when that helps.

use crate::{
    link::{Changes, Links},
    nft,
    process::{close_but, enter},
    rules::{Net, renewed},
};
use banger_doc::{Context, Result};
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{ForkResult, Pid, dup2_stderr, dup2_stdout, fork, getpid, getppid},
};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, RawFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command},
    time::{Duration, Instant},
};

/// A `pasta` that ended sooner than this cannot work now: the host may have no network.
const SOON: Duration = Duration::from_secs(3);
/// How long to wait for the host's network to change before trying again all the same.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the host may take to write down new name servers after its routes changed.
const SETTLING: Duration = Duration::from_secs(2);

/// What it takes to tell a namespace of the host's addresses as they change.
pub(crate) struct Watch {
    pub(crate) nft: PathBuf,
    /// The namespaces.
    pub(crate) user: RawFd,
    pub(crate) network: RawFd,
    /// Whether the host's loopback is open, by the address of its router for `pasta`.
    pub(crate) allow_host: bool,
    /// The addresses that the namespace was told of.
    pub(crate) known: BTreeSet<Net>,
}

impl Watch {
    /// Tells the namespace of the addresses that are the host's by now, if they are others.
    fn renew(&mut self) -> Result<()> {
        let own = Links::own(self.allow_host)?;
        if own == self.known {
            return Ok(());
        }
        let (user, network) = (self.user, self.network);
        let mut command = Command::new(&self.nft);
        // SAFETY: only system calls, which are safe between fork and exec, on descriptors that are
        // open as long as this process lives.
        unsafe { command.pre_exec(move || enter(user, network).map_err(Into::into)) };
        nft::load(command, &renewed(&own), nft::LIMIT)?.finish()?;
        self.known = own;
        Ok(())
    }
}

/// Starts the keeper of `pasta`, both ending with the caller.
pub(crate) fn start(pasta: Command, watch: Watch, output: BorrowedFd<'_>) -> Result<Pid> {
    let parent = getpid();
    // SAFETY: the process has one thread, by contract; the child never returns from here.
    match unsafe { fork() }.context("cannot start the keeper of the way out")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
            if getppid() == parent && dup2_stdout(output).and(dup2_stderr(output)).is_ok() {
                let mut kept = [0, 1, 2, watch.user, watch.network];
                kept.sort_unstable();
                match close_but(&kept) {
                    Ok(()) => drop(keep(pasta, watch)),
                    Err(errno) => {
                        let words = "the way out cannot close what is not its own";
                        let _ = writeln!(io::stderr(), "{words}: {}", errno.desc());
                    }
                }
            }
            // SAFETY: ends this process without running what its parent registered for its own end.
            unsafe { libc::_exit(1) }
        }
    }
}

/// Keeps `pasta` running. It takes its addresses and name servers from the host as it starts, so
/// it is started when the host has a network, and anew when the host has other name servers. There is
/// no way out while the namespace does not know the host's addresses.
fn keep(mut pasta: Command, mut watch: Watch) -> io::Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let ended = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let changes = Changes::watch()?;
    loop {
        let begun = Instant::now();
        let names = name_servers();
        let mut renew = || told(watch.renew());
        let changed = match if renew() { pasta.spawn() } else { Err(io::ErrorKind::Other.into()) } {
            Ok(mut child) => attend(&mut child, &ended, &changes, &names, &mut renew)?,
            Err(_) => false,
        };
        // What changed while it started may be just what it lacked.
        if begun.elapsed() < SOON && !changed {
            wait(&[changes.as_fd()], Some(PATIENCE))?;
            changes.drain();
        }
    }
}

/// Returns when a `pasta` has ended, or was ended because the host's name servers are others; says
/// whether the host's network changed meanwhile.
fn attend(
    child: &mut Child,
    ended: &SignalFd,
    changes: &Changes,
    names: &[String],
    renew: &mut impl FnMut() -> bool,
) -> io::Result<bool> {
    let (mut settling, mut changed) = (None, false);
    loop {
        wait(&[ended.as_fd(), changes.as_fd()], settling)?;
        while matches!(ended.read_signal(), Ok(Some(_))) {}
        if child.try_wait()?.is_some() {
            return Ok(changed || changes.drain());
        }
        if changes.drain() {
            (settling, changed) = (Some(SETTLING), true);
            if !renew() {
                child.kill()?;
                child.wait()?;
                return Ok(false);
            }
        } else if settling.take().is_some() && name_servers() != names {
            child.kill()?;
            child.wait()?;
            return Ok(true);
        }
    }
}

/// Says a failure where `pasta` complains; returns whether there was none.
fn told(done: Result<()>) -> bool {
    if let Err(error) = &done {
        let _ = writeln!(
            io::stderr(),
            "cannot tell the guest's network of the host's addresses: {}",
            error.chain()
        );
    }
    done.is_ok()
}

fn wait(what: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<()> {
    let mut ready: Vec<_> = what.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    let limit =
        limit.map_or(PollTimeout::NONE, |t| PollTimeout::try_from(t).unwrap_or(PollTimeout::MAX));
    match poll(&mut ready, limit) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The host's name servers (resolv.conf(5)).
fn name_servers() -> Vec<String> {
    fs::read_to_string("/etc/resolv.conf")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| Some(line.strip_prefix("nameserver")?.trim().to_owned()))
        .collect()
}
