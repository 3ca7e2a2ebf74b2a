//! Lines: bounded in length and in time.

use std::{
    io::{Error, ErrorKind, Read, Result, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

/// How much is written in one wait: a larger piece would be waited for anew with each part that is taken.
const PIECE: usize = 16 << 10;

/// Reads a line of at most `most` bytes, line end included, until `end`; returns it without its
/// line end, or nothing if the stream ended before the line did. Reads not a byte more.
pub fn read_line(stream: &mut UnixStream, most: usize, end: Instant) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut peeked = [0_u8; 4096];
    let mut is_first = true;
    loop {
        let mut left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // What lies there already is read, also where no time was given to wait for it.
            if !is_first {
                return Err(Error::new(ErrorKind::TimedOut, "no answer in time"));
            }
            left = Duration::from_millis(1);
        }
        is_first = false;
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

/// Writes a JSON value as a line, until `end`.
pub fn write_line(
    stream: &mut UnixStream,
    value: &impl serde::Serialize,
    end: Instant,
) -> Result<()> {
    let late = || Error::new(ErrorKind::TimedOut, "it was not taken in time");
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut rest = &line[..];
    while !rest.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(&rest[..rest.len().min(PIECE)]) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(late()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Looks at what can be read, and leaves it there.
fn peek(stream: &UnixStream, buffer: &mut [u8]) -> Result<usize> {
    use nix::sys::socket::{MsgFlags, recv};
    Ok(recv(std::os::fd::AsRawFd::as_raw_fd(stream), buffer, MsgFlags::MSG_PEEK)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_line_that_drips_ends_in_time() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let drip = thread::spawn(move || {
            while there.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        let begin = Instant::now();
        let error = read_line(&mut here, 1 << 20, begin + Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        drop(here);
        drip.join().unwrap();
    }

    #[test]
    fn a_line_that_nobody_takes_ends_in_time() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let begin = Instant::now();
        let end = begin + Duration::from_millis(300);
        let error = write_line(&mut here, &"x".repeat(4 << 20), end).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        drop(there);
    }

    #[test]
    fn what_lies_there_is_read_without_any_time() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        there.write_all(b"said\nmore").unwrap();
        let line = read_line(&mut here, 100, Instant::now()).unwrap();
        assert_eq!(line.as_deref(), Some(&b"said"[..]));
    }
}
