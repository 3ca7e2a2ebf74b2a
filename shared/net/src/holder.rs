//! The holder: a process that makes the namespaces and keeps them open to `pasta`.

use crate::{
    Plan, RunAs, TAP, Tools,
    address::{MTU, PREFIX4, PREFIX6},
    keeper,
    link::Links,
    nft, pasta,
    process::{close_but, enter},
    rules::{self, Net},
    tools::TUN,
};
use banger_doc::{Context, Error, Result};
use nix::{
    cmsg_space,
    errno::Errno,
    fcntl::{OFlag, open},
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{Signal, kill},
        socket::{
            AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
            recvmsg, sendmsg, socketpair,
        },
        stat::Mode,
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, Uid, fork, getegid, geteuid},
};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{IoSlice, IoSliceMut, Read},
    net::IpAddr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    process::Command,
    time::Instant,
};

/// What the holder says when all is made; anything else is why it is not.
const READY: &[u8] = b"ready ";

nix::ioctl_write_ptr_bad!(
    /// Makes a tap or takes hold of one (`tun(4)`; Linux `Documentation/networking/tuntap.rst`).
    set_tap,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);
nix::ioctl_write_int_bad!(
    /// Lets a tap outlive its descriptor.
    set_persistent,
    nix::request_code_write!(b'T', 203, size_of::<libc::c_int>())
);
nix::ioctl_write_int_bad!(
    /// Lets a user take hold of a tap.
    set_owner,
    nix::request_code_write!(b'T', 204, size_of::<libc::c_int>())
);

/// What is asked of a namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Who `pasta` and the holder run as; needed as root, refused otherwise.
    pub run_as: Option<RunAs>,
    /// Whether the guest reaches the host's loopback, under its gateway's address.
    pub allow_host: bool,
    /// Whether the tap is left to be opened by name, [`TAP`], as Firecracker does.
    pub by_name: bool,
}

/// A VM's network namespace. It lasts until this is dropped, the process that made it dies, and
/// the last process in it has ended.
#[derive(Debug)]
pub struct Network {
    plan: Plan,
    /// The addresses that the namespace was told to be the host's.
    host: BTreeSet<Net>,
    tools: Tools,
    options: Options,
    tap: Option<OwnedFd>,
    inside: OwnedFd,
    user: OwnedFd,
    /// The holder's number as `/proc` shows it.
    shown: u32,
    // Dropped before `holder` is waited for: its end tells the holder to end.
    line: Option<OwnedFd>,
    holder: Pid,
    keeper: Option<Pid>,
}

impl Network {
    /// Makes a namespace, which takes milliseconds and on a busy host seconds: it has to be there by
    /// `until`. It forks, so it is to be called while the process has one thread.
    ///
    /// The failure is of kind [`banger_doc::Kind::Unavailable`] and names the step.
    pub fn make(tools: Tools, plan: Plan, options: Options, until: Instant) -> Result<Self> {
        let host =
            Links::own(options.allow_host).context("cannot tell which addresses are the host's")?;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .context("cannot make a socket pair")?;
        // SAFETY: the process has one thread, by contract; the child never returns from here.
        let holder = match unsafe { fork() }.context("cannot start the network's holder")? {
            ForkResult::Child => {
                drop(ours);
                hold(theirs, &plan, &host, &tools, options)
            }
            ForkResult::Parent { child } => child,
        };
        drop(theirs);
        let answer = receive(&ours, until);
        match answer {
            Ok((shown, mut fds)) => {
                let missing = || Error::failed("the network's holder kept a descriptor back");
                let tap = if options.by_name { None } else { Some(fds.pop().ok_or_else(missing)?) };
                let user = fds.pop().ok_or_else(missing)?;
                let inside = fds.pop().ok_or_else(missing)?;
                let line = Some(ours);
                Ok(Self {
                    plan,
                    host,
                    tools,
                    options,
                    tap,
                    inside,
                    user,
                    shown,
                    line,
                    holder,
                    keeper: None,
                })
            }
            Err(error) => {
                let _ = kill(holder, Signal::SIGKILL);
                let _ = waitpid(holder, None);
                Err(error)
            }
        }
    }

    /// Returns who has which address.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the tap, unless it is one to be opened by name. It has virtio-net headers.
    pub fn tap(&self) -> Option<RawFd> {
        self.tap.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Starts the way out and keeps it open as long as this lives; what `pasta` complains about
    /// goes to `output`. To be called once, from outside the namespace, with one thread.
    pub fn lead_out(&mut self, output: BorrowedFd<'_>) -> Result<()> {
        let (tools, options, shown) = (&self.tools, self.options, self.shown);
        let command = pasta::command(&tools.pasta, shown, options.run_as, options.allow_host);
        let watch = keeper::Watch {
            nft: tools.nft.clone(),
            user: self.user.as_raw_fd(),
            network: self.inside.as_raw_fd(),
            allow_host: options.allow_host,
            known: self.host.clone(),
        };
        self.keeper = Some(keeper::start(command, watch, output)?);
        Ok(())
    }

    /// Returns the descriptor whose closing ends the namespace, for a process that closes others.
    pub fn line(&self) -> Option<RawFd> {
        self.line.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Lets a command run inside the namespace.
    pub fn enter(&self, command: &mut Command) {
        let (user, network) = (self.user.as_raw_fd(), self.inside.as_raw_fd());
        // SAFETY: only system calls, which are safe between fork and exec, on descriptors that
        // are open as long as `self` is; a closed one is an error and nothing worse.
        unsafe { command.pre_exec(move || enter(user, network).map_err(Into::into)) };
    }

    /// Gives the tap to a user, whom a command becomes after it was let inside: to be called after
    /// [`Network::enter`], as root.
    pub fn give(&self, command: &mut Command, user: Uid) {
        // SAFETY: only system calls, which are safe between fork and exec.
        unsafe { command.pre_exec(move || give_tap(user).map_err(Into::into)) };
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.line.take();
        if let Some(keeper) = self.keeper {
            let _ = kill(keeper, Signal::SIGKILL);
            let _ = waitpid(keeper, None);
        }
        // A process that reaps whatever ends may have come first.
        let _ = waitpid(self.holder, None);
    }
}

/// Waits until there is something to read, however many signals come meanwhile.
fn has_news(line: BorrowedFd<'_>, until: Instant) -> nix::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(line, PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            heard => return heard.map(|count| count > 0),
        }
    }
}

/// Takes the holder's answer: its number and its descriptors, or its error.
fn receive(line: &OwnedFd, until: Instant) -> Result<(u32, Vec<OwnedFd>)> {
    let begun = Instant::now();
    let unavailable = |why: String| {
        Error::unavailable(format!("cannot make a network namespace: {why}"))
            .hint("'banger doctor' says what the host lacks")
    };
    if !has_news(line.as_fd(), until).context("cannot wait for the holder")? {
        let took = begun.elapsed().as_secs();
        return Err(unavailable(format!("it is not there after {took} s")).hint(
            "the host may be too busy: 'banger vm start --timeout SECONDS' gives it longer",
        ));
    }
    let mut bytes = [0; 2048];
    let mut space = cmsg_space!([RawFd; 3]);
    let (length, fds) = {
        let mut words = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(
            line.as_raw_fd(),
            &mut words,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .context("cannot hear the network's holder")?;
        let mut fds = Vec::new();
        for part in message.cmsgs().context("the network's holder said too much")? {
            if let ControlMessageOwned::ScmRights(raw) = part {
                // SAFETY: the kernel has just made these for us alone.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        (message.bytes, fds)
    };
    let words = &bytes[..length];
    let number =
        words.strip_prefix(READY).and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
    match number {
        Some(number) => Ok((number, fds)),
        None if words.is_empty() => Err(unavailable("its holder died".to_owned())),
        None => Err(unavailable(String::from_utf8_lossy(words).into_owned())),
    }
}

/// Is the holder: makes everything, says so, and waits for the other end of the line to close.
fn hold(line: OwnedFd, plan: &Plan, host: &BTreeSet<Net>, tools: &Tools, options: Options) -> ! {
    let made = build(plan, host, tools, options).and_then(|(shown, fds)| {
        let mut kept: Vec<RawFd> = fds.iter().chain([&line]).map(AsRawFd::as_raw_fd).collect();
        kept.sort_unstable();
        close_but(&kept).context("the holder cannot close what is not its own")?;
        Ok((shown, fds))
    });
    let (words, fds) = match &made {
        Ok((shown, fds)) => ([READY, shown.to_string().as_bytes()].concat(), fds.as_slice()),
        Err(error) => (error.chain().into_bytes(), &[][..]),
    };
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let _ = sendmsg::<()>(
        line.as_raw_fd(),
        &[IoSlice::new(&words[..words.len().min(2048)])],
        if raw.is_empty() { &[] } else { &rights },
        MsgFlags::empty(),
        None,
    );
    if made.is_ok() {
        drop(made);
        let _ = File::from(line).read(&mut [0]);
    }
    // SAFETY: ends this process without running what its parent registered for its own end.
    unsafe { libc::_exit(0) }
}

/// Makes the namespaces and all that is in them; returns this process's number as `/proc` shows it
/// and descriptors: network namespace, user namespace, tap.
fn build(
    plan: &Plan,
    host: &BTreeSet<Net>,
    tools: &Tools,
    options: Options,
) -> Result<(u32, Vec<OwnedFd>)> {
    if let Some(user) = options.run_as {
        pasta::become_user(user).context("cannot become the user of the network")?;
        // A change of user hides a process from its own kind, which `pasta` is, now and whenever it is started
        // again; nothing else of the host is this user.
        prctl::set_dumpable(true).context("cannot become visible")?;
    }
    // After the change of user, which takes this wish back.
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot bind the holder to its parent")?;
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .context("the host allows no user namespace")?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        let path = format!("/proc/self/{file}");
        fs::write(&path, text).with_context(|| format!("cannot write '{path}'"))?;
    }
    let rules = rules::ruleset(plan, options.allow_host, host);
    let rules = nft::load(Command::new(&tools.nft), &rules, nft::LIMIT)?;
    let with_ipv6 = switch_routing_on()?;
    let tap = open_tap(options.by_name)?;
    let mut links = Links::open()?;
    links.up("lo", None)?;
    links.add_address(TAP, IpAddr::V4(plan.gateway), PREFIX4)?;
    links.add_address(TAP, IpAddr::V4(plan.dns), 32)?;
    if with_ipv6 {
        links.add_address(TAP, IpAddr::V6(plan.gateway6), PREFIX6)?;
    }
    links.up(TAP, Some(MTU))?;
    rules.finish()?;
    let own = |path: &str| -> Result<OwnedFd> {
        Ok(File::open(path).with_context(|| format!("cannot open '{path}'"))?.into())
    };
    let mut fds = vec![own("/proc/self/ns/net")?, own("/proc/self/ns/user")?];
    if !options.by_name {
        fds.push(tap);
    }
    let shown = fs::read_link("/proc/self")
        .ok()
        .and_then(|path| path.to_str()?.parse().ok())
        .ok_or_else(|| Error::failed("'/proc' is not mounted"))?;
    Ok((shown, fds))
}

/// Lets the kernel pass packets on; returns whether it knows IPv6.
fn switch_routing_on() -> Result<bool> {
    let set = |name: &str, value: &str| {
        let path = format!("/proc/sys/net/{name}");
        fs::write(&path, value).with_context(|| format!("cannot write '{path}'"))
    };
    set("ipv4/ip_forward", "1")?;
    if !fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
        return Ok(false);
    }
    set("ipv6/conf/all/forwarding", "1")?;
    // Nobody else is on either link, so an address can be used at once.
    set("ipv6/conf/default/accept_dad", "0")?;
    Ok(true)
}

/// Changes the owner of the tap of the namespace this process is in.
fn give_tap(user: Uid) -> nix::Result<()> {
    let tun = open(TUN, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    take_tap(tun.as_raw_fd())?;
    // SAFETY: it takes a number.
    unsafe { set_owner(tun.as_raw_fd(), user.as_raw() as libc::c_int) }.map(drop)
}

/// Makes the tap, or takes hold of the one that is there.
fn take_tap(tun: RawFd) -> nix::Result<()> {
    // SAFETY: an `ifreq` is plain numbers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(TAP.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    // SAFETY: the request lives through the call, and its name ends with a zero.
    unsafe { set_tap(tun, &raw const request) }.map(drop)
}

fn open_tap(by_name: bool) -> Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(TUN)
        .with_context(|| format!("cannot open '{TUN}'"))?;
    take_tap(file.as_raw_fd()).with_context(|| format!("cannot make the tap '{TAP}'"))?;
    if by_name {
        // Number 0 in here is the caller outside.
        // SAFETY: both take a number.
        unsafe { set_owner(file.as_raw_fd(), 0).and(set_persistent(file.as_raw_fd(), 1)) }
            .with_context(|| format!("cannot keep the tap '{TAP}'"))?;
    }
    Ok(file.into())
}
