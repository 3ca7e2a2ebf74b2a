//! The host's end: many connections over the one byte stream to the guest.

use crate::pump::{Side, Wire, run as pump};
use banger_doc::{Context, Result};
use std::os::{
    fd::AsFd,
    unix::net::{UnixListener, UnixStream},
};

/// The byte stream to the guest, as a VMM gives it to the host.
#[derive(Debug)]
pub enum Device {
    /// The other end of a virtio-serial port.
    Port(UnixStream),
    /// Where the VMM connects whenever the guest's agent calls the host over vsock.
    Calls(UnixListener),
}

/// Serves `channel.sock` (`listener`) over the byte stream to the guest. Returns when a port closes.
///
/// A client whose guest has no agent yet is kept waiting until it comes, or the client leaves.
pub fn run(listener: UnixListener, device: Device) -> Result<()> {
    listener.set_nonblocking(true).context("cannot change the channel's socket")?;
    let wire = match &device {
        Device::Port(port) => {
            port.set_nonblocking(true).context("cannot change the guest's serial port")?;
            Wire::Device(port.as_fd(), usize::MAX)
        }
        Device::Calls(calls) => {
            calls.set_nonblocking(true).context("cannot change the guest's vsock")?;
            Wire::Calls(calls, None)
        }
    };
    pump(wire, Side::Host(&listener)).context("cannot carry the channel to the guest")
}
