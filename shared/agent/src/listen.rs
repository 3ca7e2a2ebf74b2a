//! Where streams come from: one virtio-serial port, or one vsock connection.

use crate::{Agent, pause};
use banger_channel::{VSOCK_PORT, guest};
use banger_doc::Result;
use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket},
};
use std::{
    fs::{self, File, OpenOptions},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Serves the virtio-serial port of that name, for ever.
pub(crate) fn serial(agent: &Arc<Agent>, name: &str) -> Result<()> {
    let mut wait = FIRST_PAUSE;
    loop {
        let device = find(Path::new("/sys/class/virtio-ports"), name).and_then(open);
        if let Some(device) = device {
            // It ends when the host lets go of the port, or the port is gone.
            let _ = guest::serve(&device, |stream| agent.take(stream));
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
    let nonblock = libc::O_NONBLOCK;
    OpenOptions::new().read(true).write(true).custom_flags(nonblock).open(path).ok()
}

/// Serves the host, which it calls over vsock, for ever.
pub(crate) fn vsock(agent: &Arc<Agent>) -> Result<()> {
    let mut wait = FIRST_PAUSE;
    loop {
        if let Ok(connection) = call() {
            // It ends when the host lets go of it, or the machine was restored from a snapshot.
            let _ = guest::serve_vsock(&connection, |stream| agent.take(stream));
            wait = FIRST_PAUSE;
        }
        wait = pause(wait);
    }
}

/// Connects to the host. The driver may still be on its way: then there is no such family, or no
/// device.
fn call() -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    connect(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HOST, VSOCK_PORT))?;
    Ok(socket)
}
