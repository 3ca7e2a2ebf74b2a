//! Connections to what listens inside the guest.

use banger_channel::{read_line, relay::Relay};
use banger_doc::{Context, Error, Result};
use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

/// Longest line, line end included.
const LINE_BYTES: usize = 512;
const LINE_LIMIT: Duration = Duration::from_secs(10);
/// How long the guest's own network may take to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connects one stream with what it asks for, and leaves the rest to the relay.
/// `want_ssh` is called where it asks for an ssh server that is not there.
pub(crate) fn serve(mut stream: UnixStream, relay: &Relay, want_ssh: impl FnOnce()) -> Result<()> {
    let line = read_line(&mut stream, LINE_BYTES, Instant::now() + LINE_LIMIT);
    let line = line.context("cannot read a request")?.unwrap_or_default();
    stream.set_read_timeout(None).context("cannot change a socket")?;
    let line = String::from_utf8(line).context("not a request");
    let is_ssh = line.as_ref().is_ok_and(|line| asks_for_ssh(line));
    let there = match line.and_then(|line| reach(&line)) {
        Ok(there) => there,
        Err(error) => {
            if is_ssh {
                want_ssh();
            }
            let mut words = error.chain().replace('\n', " ");
            words.truncate(words.floor_char_boundary(LINE_BYTES - 16));
            let _ = writeln!(stream, "error {words}");
            return Err(error);
        }
    };
    stream.write_all(b"ok\n").context("cannot answer")?;
    // Streams of either family read, write and end alike.
    relay.join(stream.into(), there);
    Ok(())
}

/// Says whether a line asks for the guest's own ssh server: one of another machine, or a file that is called so, is
/// not for this guest to install.
fn asks_for_ssh(line: &str) -> bool {
    matches!(line, "tcp localhost:22" | "tcp 127.0.0.1:22" | "tcp [::1]:22")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_guests_own_port_22_asks_for_its_ssh_server() {
        for own in ["tcp localhost:22", "tcp 127.0.0.1:22", "tcp [::1]:22"] {
            assert!(asks_for_ssh(own), "{own}");
        }
        for other in [
            "unix /tmp/a:22",
            "tcp 10.0.0.7:22",
            "tcp [fd00::22]:22",
            "tcp ::22",
            "tcp localhost:122",
        ] {
            assert!(!asks_for_ssh(other), "{other}");
        }
    }
}
