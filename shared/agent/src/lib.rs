//! Answers the host inside the guest: control, exec, forward, files (`docs/agent-protocol.md`).
//!
//! It runs before the image's init and outlives it, links nothing of the image's, and believes nothing
//! the image says.

mod account;
mod boot;
mod command;
mod control;
mod exec;
mod forward;
mod group;
mod listen;
mod ports;
mod root;
mod stats;
mod term;

pub use root::enter_root;

use banger_channel::{SERIAL_PORT, files, guest, port, relay::Relay};
use banger_doc::{Channel, Context, Document, Guest, Result};
use banger_guest::{place, wait_prepared};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{Signal, raise},
};
use root::Root;
use std::{
    fs::{self, File},
    io::Read,
    os::unix::{net::UnixStream, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Largest document about the guest.
const DOCUMENT_BYTES: u64 = 16 << 20;
/// Most streams served at once.
const MOST_SERVED: usize = 1024;
/// Most connections that are carried to what listens here.
const MOST_CARRIED: usize = 2048;
/// Open files that so many take: three each.
const OPEN_FILES: u64 = 8192;
/// Enough for every service; only what is touched takes memory.
const STACK_BYTES: usize = 256 << 10;

/// How long services wait for the image's root: guest-init waits up to a minute for its disks, and at the first boot
/// it copies to them what the image has there.
const ROOT_LIMIT: Duration = Duration::from_mins(5);
/// How long they wait then for the rest of the boot; one that hangs is no reason not to look into it.
const BOOT_LIMIT: Duration = Duration::from_secs(10);

/// What every service knows.
#[derive(Debug)]
struct Agent {
    guest: Option<Guest>,
    /// Whether this is a machine whose clock and power are the agent's.
    real: bool,
    served: AtomicUsize,
    /// Made when the first stream is to be carried on.
    relay: OnceLock<Relay>,
    /// There once somebody asked for an ssh server.
    ssh: OnceLock<()>,
    /// The image's root, if that was not there when this began.
    root: Option<Root>,
}

/// Reads the document about the guest. Without one the agent still serves: a host that can ask may
/// help.
pub fn read_guest(path: &Path) -> Option<Guest> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(DOCUMENT_BYTES).read_to_end(&mut bytes).ok()?;
    Guest::from_slice(&bytes).ok()
}

/// Serves the host over the device that the document names, for ever. `boot` leads to the process that is yet to
/// make the image's root: it gets a byte when the host has its first answer, sends one when the root is there, and
/// sees the end when that is entered. Without it this is the root.
pub fn serve(guest: Option<Guest>, boot: Option<UnixStream>) -> Result<()> {
    let agent = Agent::new(guest, boot.map(Root::new), true);
    // Out of memory, the guest is to lose anything else first.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    agent.enter_root()?;
    match agent.guest.as_ref().map_or(Channel::VirtioSerial, |guest| guest.channel) {
        Channel::Vsock => listen::vsock(&agent),
        Channel::VirtioSerial => listen::serial(&agent, SERIAL_PORT),
    }
}

/// Serves over a Unix socket in place of a device, until the other side hangs up; clock and power are
/// left alone.
pub fn serve_socket(path: &Path, guest: Option<Guest>) -> Result<()> {
    let agent = Agent::new(guest, None, false);
    let device =
        UnixStream::connect(path).with_context(|| format!("cannot open '{}'", path.display()))?;
    guest::serve(device, |stream| agent.take(stream)).context("cannot carry streams")
}

impl Agent {
    /// Prepares this process, which has no other thread yet, and what all services know.
    fn new(guest: Option<Guest>, root: Option<Root>, real: bool) -> Arc<Self> {
        // One heap for all threads: memory that a stream took is there for the next.
        // SAFETY: mallopt only changes settings of the allocator, before any other thread runs.
        unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
        command::remember_open_files();
        let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(_, hard)| hard);
        // Where more is forbidden, fewer connections are carried.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, most.max(OPEN_FILES));
        Arc::new(Self {
            guest,
            real,
            served: AtomicUsize::new(0),
            relay: OnceLock::new(),
            ssh: OnceLock::new(),
            root,
        })
    }

    /// Enters the image's root when it is there, in a thread that does nothing else.
    fn enter_root(self: &Arc<Self>) -> Result<()> {
        if self.root.is_none() {
            return Ok(());
        }
        let agent = Arc::clone(self);
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            if agent.root.as_ref().is_some_and(|root| root.enter().is_err()) {
                // In its stead another begins, in the root that there is by then.
                let _ = raise(Signal::SIGKILL);
            }
        });
        thread.map(drop).context("cannot start a thread")
    }

    /// Waits for what is of the image: its root has to be entered.
    fn wait_root(&self) -> Result<()> {
        self.root.as_ref().map_or(Ok(()), |root| root.wait(ROOT_LIMIT))
    }

    /// Serves a stream in a thread of its own.
    fn take(self: &Arc<Self>, stream: UnixStream) {
        if self.served.fetch_add(1, Ordering::Relaxed) >= MOST_SERVED {
            self.served.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let agent = Arc::clone(self);
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            agent.serve(stream);
            agent.served.fetch_sub(1, Ordering::Relaxed);
        });
        if thread.is_err() {
            self.served.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns whom the image, or who made the VM, names as its user.
    fn user(&self) -> &str {
        self.guest.as_ref().and_then(|guest| guest.config.user.as_deref()).unwrap_or_default()
    }

    fn relay(&self) -> Result<&Relay> {
        if let Some(relay) = self.relay.get() {
            return Ok(relay);
        }
        let relay = Relay::start(Path::new(""), MOST_CARRIED)?;
        // Of two made at once, one ends with the last use of it.
        Ok(self.relay.get_or_init(|| relay))
    }

    /// Has a guest that somebody has a key for get the ssh server it lacks, once.
    fn want_ssh(&self) {
        let has_key = self.guest.as_ref().is_some_and(|guest| !guest.authorized_keys.is_empty());
        if !self.real || !has_key || self.ssh.set(()).is_err() {
            return;
        }
        let mut task = Command::new(place::INIT);
        task.arg0(place::SSH_TASK).arg(place::SSH_ASKED).env_clear().stdin(Stdio::null());
        if let Ok(mut task) = task.spawn() {
            // Nobody needs its status, but somebody has to take it.
            let _ = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || task.wait());
        }
    }

    fn serve(&self, mut stream: UnixStream) {
        let served = [port::CONTROL, port::EXEC, port::FORWARD, port::FILES];
        let Ok(port) = guest::greet(&mut stream, &served) else { return };
        // Whoever looks for a command, a file or a listener is to find what the boot makes. Elsewhere
        // than in a guest there is no boot to wait for.
        if self.real && port != port::CONTROL {
            // The host sees the end of the stream: whoever waited so long has waited for a boot that goes nowhere.
            if self.wait_root().is_err() {
                return;
            }
            wait_prepared(BOOT_LIMIT);
        }
        // A stream that breaks is the host's affair; it sees the end.
        match port {
            port::CONTROL => {
                drop(control::serve(stream, self.real, self.user(), &|| self.wait_root()));
                // Whoever made the first connection has what it asked for.
                self.root.as_ref().map(Root::greeted);
            }
            port::EXEC => {
                let config = self.guest.as_ref().map(|guest| guest.config.clone());
                drop(exec::serve(stream, &config.unwrap_or_default(), self.real));
            }
            port::FORWARD => drop(
                self.relay().and_then(|relay| forward::serve(stream, relay, || self.want_ssh())),
            ),
            port::FILES => {
                drop(files::serve_for(stream, &|user| account::owner(user, self.user())));
            }
            _ => {}
        }
    }
}

/// Waits between attempts, longer each time.
fn pause(before: Duration) -> Duration {
    thread::sleep(before);
    (before * 2).min(Duration::from_millis(500))
}
