//! The end that asks: holds the locks of a VM that does not run, and starts who reads its disks.

use crate::serve::{DISKS, STREAM};
use banger_channel::{
    connect,
    files::{Budget, Files},
    port,
};
use banger_cli::find;
use banger_disks::Disks;
use banger_doc::{Context, Error, Result, Status};
use banger_jail::{Limits, Tool};
use banger_state::{Lock, State, VmFolder, place};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
    },
};
use std::{
    cell::RefCell,
    fmt,
    fs::File,
    io::IoSlice,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Who reads.
const READER: &str = "banger-vm-read";
/// What it may use: it keeps names of directories, and nothing else of any size.
const LIMITS: Limits =
    Limits { memory: 1 << 30, mapped: 1 << 30, file: 0, time: Duration::from_hours(2) };
/// How long a guest has to let itself be asked.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the reader may take to end once nobody asks any more; then it is left to end with this program.
const END: Duration = Duration::from_millis(200);

/// Returns the files of a VM: from its agent while it runs, else from its disks, which are opened when something is
/// asked. No run begins before this, and every answer, has gone.
pub fn files(vm: &VmFolder, budget: Budget) -> Files<'static> {
    let (source, end) = (Source::of(vm), budget.clone());
    let of_disks = source.reads_disks();
    let files = Files::new(budget, move || source.stream(CONNECT, end.left()?));
    if of_disks { files.of_disks() } else { files }
}

/// Who has the files of a VM.
pub struct Source {
    vm: VmFolder,
    is_running: bool,
    session: RefCell<Option<Session>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("is_running", &self.is_running).finish_non_exhaustive()
    }
}

impl Source {
    /// Says who it is now: the VM's agent if it runs, else who reads its disks.
    pub fn of(vm: &VmFolder) -> Self {
        let is_running = matches!(vm.status(), Ok(Status::Running));
        Self { vm: vm.clone(), is_running, session: RefCell::new(None) }
    }

    /// Says whether it is disks that are read.
    pub fn reads_disks(&self) -> bool {
        !self.is_running
    }

    /// Opens a stream of the files service. A guest has `connect_limit` to let itself be asked, and all of it may
    /// take as long as `left`.
    pub fn stream(&self, connect_limit: Duration, left: Duration) -> Result<UnixStream> {
        let vm = &self.vm;
        if self.is_running {
            let (_dir, path) = vm.short_path(place::VM_CHANNEL)?;
            return connect(&path, port::FILES, connect_limit.min(left))
                .with_context(|| format!("cannot reach the files of VM '{}'", vm.name()))
                .map_err(|error| {
                    error.or_hint(format!("'banger vm logs {}' shows what it is at", vm.name()))
                });
        }
        let mut session = self.session.borrow_mut();
        let session = match &mut *session {
            Some(session) => session,
            none => none.insert(Session::open(vm, left)?),
        };
        session.stream().with_context(|| format!("cannot read the disks of VM '{}'", vm.name()))
    }
}

/// A reader of the disks of one VM.
struct Session {
    child: Child,
    control: Option<OwnedFd>,
}

impl Session {
    fn open(vm: &VmFolder, left: Duration) -> Result<Self> {
        let name = vm.name();
        let status = vm.status()?;
        if status == Status::Running {
            return Err(Error::conflict(format!("VM '{name}' was started at this moment"))
                .hint("try again"));
        }
        if status.is_live() {
            // Neither has it an agent that answers, nor are its disks at rest.
            vm.must_run()?;
        }
        if status == Status::Created {
            return Err(Error::conflict(format!(
                "VM '{name}' has never run, so it holds no files"
            ))
            .hint(format!("'banger vm start {name}' starts it")));
        }
        let Some(lock) = vm.try_share()? else {
            return Err(Error::conflict(format!("VM '{name}' is being started or changed"))
                .hint("try again in a moment"));
        };
        let failed = || format!("cannot read the disks of VM '{name}'");
        Self::begin(vm, lock, left).with_context(failed)
    }

    fn begin(vm: &VmFolder, lock: Lock, left: Duration) -> Result<Self> {
        let disks = Disks::read(vm.path(), left)?;
        let state = State::open_read_only()?;
        let image = vm.vm()?.image;
        let image =
            state.images().get(&image).with_context(|| format!("its image '{image}' is gone"))?;
        let open = |path: &Path| {
            File::open(path).with_context(|| format!("cannot open '{}'", path.display()))
        };
        let base = open(&state.base_disk(&image))?;
        let (overlay, work) = (open(&vm.join(place::VM_OVERLAY))?, open(&vm.join(place::VM_WORK))?);
        let said = "cannot make a socket";
        let kind = (AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let (control, end) = socketpair(kind.0, kind.1, None, kind.2).context(said)?;
        let tool = Tool::new(&find(READER)?, LIMITS)?;
        let mut command = tool.command();
        command.stdin(end).stdout(Stdio::null()).stderr(Stdio::null());
        let child = tool.spawn(command, Path::new("/"))?;
        let session = Self { child, control: Some(control) };
        // With both locks: they are held as long as anything is read, whatever becomes of this program.
        let (lock, disks) = (lock.hand_over(), disks.hand_over());
        let fds = [
            base.as_raw_fd(),
            overlay.as_raw_fd(),
            work.as_raw_fd(),
            lock.as_raw_fd(),
            disks.as_raw_fd(),
        ];
        session.send(DISKS, &fds)?;
        Ok(session)
    }

    /// Opens a stream to ask on.
    fn stream(&self) -> Result<UnixStream> {
        let (here, there) = UnixStream::pair().context("cannot make a socket")?;
        self.send(STREAM, &[there.as_raw_fd()])?;
        Ok(here)
    }

    fn send(&self, word: &[u8], fds: &[RawFd]) -> Result<()> {
        let control = self.control.as_ref().ok_or_else(|| Error::failed("it has ended"))?;
        let rights = [ControlMessage::ScmRights(fds)];
        let parts = [IoSlice::new(word)];
        loop {
            match sendmsg::<()>(control.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)
            {
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Err(errno).context(format!("'{READER}' ended before it was asked"));
                }
                Ok(_) => return Ok(()),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.control = None;
        let end = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
