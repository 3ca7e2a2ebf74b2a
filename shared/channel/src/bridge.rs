//! The host's end where there is no vsock: many connections over one serial port.

use crate::pump::{Side, run as pump};
use banger_doc::{Context, Result};
use std::os::{
    fd::AsFd,
    unix::net::{UnixListener, UnixStream},
};

/// Serves `channel.sock` (`listener`) over the socket to a VMM's virtio-serial port (`device`).
/// Returns when the device closes.
///
/// A client whose guest has no agent yet is kept waiting until it comes, or the client leaves.
pub fn run(listener: UnixListener, device: UnixStream) -> Result<()> {
    listener.set_nonblocking(true).context("cannot change the channel's socket")?;
    device.set_nonblocking(true).context("cannot change the socket of the guest's serial port")?;
    pump(device.as_fd(), Side::Host(&listener)).context("cannot carry the channel to the guest")
}
