//! Lines: bounded in length and in time.

use std::{
    io::{Error, ErrorKind, Read, Result, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

/// Reads a line of at most `most` bytes, line end included, until `end`; returns it without its
/// line end, or nothing if the stream ended before the line did. Reads not a byte more.
pub fn read_line(stream: &mut UnixStream, most: usize, end: Instant) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut peeked = [0_u8; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        let room = peeked.len().min(most - line.len());
        let seen = match peek(stream, &mut peeked[..room]) {
            Ok(0) => return Ok(None),
            Ok(seen) => seen,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(Error::new(ErrorKind::TimedOut, "no answer in time"));
            }
            Err(error) => return Err(error),
        };
        let found = peeked[..seen].iter().position(|byte| *byte == b'\n');
        let taken = found.map_or(seen, |at| at + 1);
        stream.read_exact(&mut peeked[..taken])?;
        line.extend_from_slice(&peeked[..found.unwrap_or(seen)]);
        if found.is_some() {
            return Ok(Some(line));
        }
        if line.len() >= most {
            return Err(Error::new(ErrorKind::InvalidData, "the line is too long"));
        }
    }
}

/// Writes a JSON value as a line.
pub fn write_line(stream: &mut UnixStream, value: &impl serde::Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Looks at what can be read, and leaves it there.
fn peek(stream: &UnixStream, buffer: &mut [u8]) -> Result<usize> {
    use nix::sys::socket::{MsgFlags, recv};
    Ok(recv(std::os::fd::AsRawFd::as_raw_fd(stream), buffer, MsgFlags::MSG_PEEK)?)
}
