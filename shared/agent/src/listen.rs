//! Where streams come from: the serial port, or vsock.

use crate::{Agent, pause};
use banger_channel::{guest, port};
use banger_doc::{Context, Result};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept4, bind, listen, socket,
};
use std::{
    fs::{self, File, OpenOptions},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

/// From any host (vsock(7), `VMADDR_CID_ANY`).
const ANY: u32 = u32::MAX;
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Serves the virtio-serial port of that name, for ever.
pub(crate) fn serial(agent: &Arc<Agent>, name: &str) -> Result<()> {
    let mut wait = FIRST_PAUSE;
    loop {
        let device = find(Path::new("/sys/class/virtio-ports"), name).and_then(open);
        if let Some(device) = device {
            // It ends when the host lets go of the port, or the port is gone.
            let _ = guest::serve(&device, |stream| agent.take(stream, None));
        }
        wait = pause(wait);
    }
}

/// Finds the device of a port by its name.
fn find(class: &Path, name: &str) -> Option<PathBuf> {
    let ports = fs::read_dir(class).ok()?;
    let port = ports.flatten().find(|port| {
        fs::read_to_string(port.path().join("name")).is_ok_and(|is| is.trim_end() == name)
    })?;
    Some(Path::new("/dev").join(port.file_name()))
}

fn open(path: PathBuf) -> Option<File> {
    let nonblock = nix::libc::O_NONBLOCK;
    OpenOptions::new().read(true).write(true).custom_flags(nonblock).open(path).ok()
}

/// Serves every service on its own vsock port, for ever.
pub(crate) fn vsock(agent: &Arc<Agent>) -> Result<()> {
    let mut threads = Vec::new();
    for port in [port::CONTROL, port::EXEC, port::FORWARD, port::FILES] {
        let listener = listener(port)?;
        let agent = Arc::clone(agent);
        let thread = thread::Builder::new()
            .stack_size(crate::STACK_BYTES)
            .spawn(move || accept(&agent, &listener, port))
            .context("cannot start a thread")?;
        threads.push(thread);
    }
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn listener(port: u32) -> Result<OwnedFd> {
    let mut wait = FIRST_PAUSE;
    loop {
        // The driver may still be on its way: then there is no such family, or no device.
        let bound = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
            .and_then(|socket| {
                bind(socket.as_raw_fd(), &VsockAddr::new(ANY, port))?;
                listen(&socket, Backlog::new(128)?)?;
                Ok(socket)
            });
        match bound {
            Ok(socket) => return Ok(socket),
            Err(_) => wait = pause(wait),
        }
    }
}

fn accept(agent: &Arc<Agent>, listener: &OwnedFd, port: u32) {
    loop {
        match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Ok(fd) => {
                // SAFETY: accept4 has just made the descriptor, and nobody else knows it.
                let socket = unsafe { OwnedFd::from_raw_fd(fd) };
                // Streams of either family read, write and end alike.
                agent.take(UnixStream::from(socket), Some(port));
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => {
                pause(FIRST_PAUSE * 10);
            }
        }
    }
}
