//! The client's half of the handshake that Firecracker's hybrid vsock made common.

use crate::line::read_line;
use banger_doc::{Context, Error, Result};
use nix::{
    fcntl::{OFlag, open as open_place},
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_fd, setsockopt, socket,
            sockopt,
        },
        stat::{Mode, SFlag, fstat},
        time::TimeVal,
    },
};
use std::{
    io::Write,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

/// Longest answer to `CONNECT`, line end included.
const ANSWER_BYTES: usize = 64;

/// Opens a connection to a port of the guest behind the socket `channel`, waiting at most `limit`.
///
/// The stream has no time limits of its own afterwards.
pub fn connect(channel: &Path, port: u32, limit: Duration) -> Result<UnixStream> {
    let end = Instant::now() + limit;
    let mut stream = open(channel, limit)
        .with_context(|| format!("cannot reach the guest's agent at '{}'", channel.display()))?;
    let answer = stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .and_then(|()| read_line(&mut stream, ANSWER_BYTES, end))
        .with_context(|| format!("the guest's agent does not answer on port {port}"))?;
    match answer {
        Some(line) if line.starts_with(b"OK ") => {}
        Some(_) => {
            return Err(Error::failed(format!("port {port} of the guest did not answer 'OK'")));
        }
        None => {
            return Err(Error::failed(format!("the guest refused a connection to port {port}")));
        }
    }
    stream.set_read_timeout(None).context("cannot change a socket")?;
    stream.set_write_timeout(None).context("cannot change a socket")?;
    Ok(stream)
}

/// Connects, waiting at most `limit` for room in the listener's queue.
fn open(channel: &Path, limit: Duration) -> std::io::Result<UnixStream> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let micros = limit.as_micros().clamp(1, i64::MAX as u128) as i64;
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::new(micros / 1_000_000, micros % 1_000_000))?;
    // A VMM that was broken out of can put a link to somebody else's socket in this place.
    let place =
        open_place(channel, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    if fstat(&place)?.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFSOCK.bits() {
        return Err(std::io::Error::other("it is no socket"));
    }
    let link = format!("/proc/self/fd/{}", place.as_raw_fd());
    connect_fd(fd.as_raw_fd(), &UnixAddr::new(link.as_str())?)?;
    Ok(UnixStream::from(fd))
}
