//! The guest's end.

use crate::{
    line::read_line,
    pump::{Side, Wire, parse_connect, run as pump},
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::{
    io::{ErrorKind, Result, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

/// How long the host may take to name a port.
const LINE_LIMIT: Duration = Duration::from_secs(10);

/// Most bytes that are written to a vsock at once. Linux gives the device what is larger than 32 KiB
/// in several buffers, and Firecracker before 1.14 sends the first of them twice when the host reads
/// too slowly (firecracker #5485).
const VSOCK_BYTES: usize = 16 << 10;

/// Carries streams over a serial port until it closes, or the host is gone. `take` gets the local
/// end of each; [`greet`] tells what it is for.
pub fn serve(device: impl AsFd, take: impl FnMut(UnixStream)) -> Result<()> {
    carry(device, usize::MAX, take)
}

/// Does the same over a connection to the host's vsock.
pub fn serve_vsock(connection: impl AsFd, take: impl FnMut(UnixStream)) -> Result<()> {
    carry(connection, VSOCK_BYTES, take)
}

fn carry(device: impl AsFd, most: usize, mut take: impl FnMut(UnixStream)) -> Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&device, FcntlArg::F_GETFL)?);
    fcntl(&device, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    pump(Wire::Device(device.as_fd(), most), Side::Guest(&mut take))
}

/// Reads the port that the host asks for; answers if it is one of `served`.
pub fn greet(stream: &mut UnixStream, served: &[u32]) -> Result<u32> {
    let line = read_line(stream, 32, Instant::now() + LINE_LIMIT)?;
    let port = line
        .as_deref()
        .and_then(parse_connect)
        .filter(|port| served.contains(port))
        .ok_or(ErrorKind::ConnectionRefused)?;
    stream.set_read_timeout(None)?;
    stream.write_all(format!("OK {port}\n").as_bytes())?;
    Ok(port)
}
