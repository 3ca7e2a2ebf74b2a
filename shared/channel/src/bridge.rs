//! The host's end where there is no vsock: many connections over one serial port.

use banger_doc::Result;
use std::os::unix::net::{UnixListener, UnixStream};

/// Serves `channel.sock` (`listener`) over the socket to a VMM's virtio-serial port (`device`).
/// Returns when the device closes.
pub fn run(listener: UnixListener, device: UnixStream) -> Result<()> {
    let _ = (listener, device);
    Ok(())
}
