//! The client's half of the handshake that Firecracker's hybrid vsock made common.

use crate::{Patience, dial, line::read_line};
use banger_doc::{Context, Error, Result};
use std::{
    io::Write,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

/// Longest answer to `CONNECT`, line end included.
const ANSWER_BYTES: usize = 64;

/// Opens a connection to a port of the guest behind the socket `channel`, waiting at most `limit`.
///
/// The stream has no time limits of its own afterwards.
pub fn connect(channel: &Path, port: u32, limit: Duration) -> Result<UnixStream> {
    connect_saying(channel, port, b"", limit)
}

/// The same, with the first bytes for the guest sent along: each way to a guest and back takes its time.
pub(crate) fn connect_saying(
    channel: &Path,
    port: u32,
    first: &[u8],
    limit: Duration,
) -> Result<UnixStream> {
    let end = Instant::now() + limit;
    let mut stream = dial(channel, Patience::Until(limit))
        .with_context(|| format!("cannot reach the guest's agent at '{}'", channel.display()))?;
    let mut line = format!("CONNECT {port}\n").into_bytes();
    line.extend_from_slice(first);
    let answer = stream
        .write_all(&line)
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
