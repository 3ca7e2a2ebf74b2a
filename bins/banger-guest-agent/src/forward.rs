//! Connections to what listens inside the guest.

use banger_channel::read_line;
use banger_doc::{Context, Error, Result};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    thread,
    time::{Duration, Instant},
};

/// Longest line, line end included.
const LINE_BYTES: usize = 512;
const LINE_LIMIT: Duration = Duration::from_secs(10);
/// How long the guest's own network may take to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connects one stream with what it asks for.
pub(crate) fn serve(mut stream: UnixStream) -> Result<()> {
    let line = read_line(&mut stream, LINE_BYTES, Instant::now() + LINE_LIMIT);
    let line = line.context("cannot read a request")?.unwrap_or_default();
    stream.set_read_timeout(None).context("cannot change a socket")?;
    let there = match String::from_utf8(line).context("not a request").and_then(|l| reach(&l)) {
        Ok(there) => there,
        Err(error) => {
            let mut words = error.chain().replace('\n', " ");
            words.truncate(words.floor_char_boundary(LINE_BYTES - 16));
            let _ = writeln!(stream, "error {words}");
            return Err(error);
        }
    };
    stream.write_all(b"ok\n").context("cannot answer")?;
    // Streams of either family read, write and end alike.
    let there = UnixStream::from(there);
    let (mut from, mut to) = (clone(&stream)?, clone(&there)?);
    let back = thread::Builder::new()
        .stack_size(crate::STACK_BYTES)
        .spawn(move || copy(&mut from, &mut to))
        .context("cannot start a thread")?;
    let (mut from, mut to) = (there, stream);
    copy(&mut from, &mut to);
    let _ = back.join();
    Ok(())
}

fn clone(stream: &UnixStream) -> Result<UnixStream> {
    stream.try_clone().context("cannot copy a descriptor")
}

/// Copies until the end of one, and says it to the other.
fn copy(from: &mut UnixStream, to: &mut UnixStream) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(count) => {
                if to.write_all(&buffer[..count]).is_err() {
                    // Nobody reads there: what is still sent here is for nobody.
                    let _ = from.shutdown(Shutdown::Read);
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => {
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

/// Connects as a line says.
fn reach(line: &str) -> Result<OwnedFd> {
    let bad = || Error::usage(format!("'{}' asks for nothing known", line.escape_debug()));
    match line.split_once(' ').ok_or_else(bad)? {
        ("tcp", place) => {
            let (host, port) = place.rsplit_once(':').ok_or_else(bad)?;
            let port = port.parse().map_err(|_| bad())?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let hosts: Vec<IpAddr> = match host {
                "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
                host => vec![host.parse().map_err(|_| bad())?],
            };
            let mut last = None;
            for host in hosts {
                let address = SocketAddr::new(host, port);
                match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
                    Ok(stream) => {
                        let _ = stream.set_nodelay(true);
                        return Ok(stream.into());
                    }
                    Err(error) => last = last.or(Some(error)),
                }
            }
            let error = Error::failed(format!("cannot connect to {place}"));
            Err(match last {
                Some(cause) => error.because(cause),
                None => error,
            })
        }
        ("unix", path) => UnixStream::connect(path)
            .map(OwnedFd::from)
            .with_context(|| format!("cannot connect to '{path}'")),
        _ => Err(bad()),
    }
}
