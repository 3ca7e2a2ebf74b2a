//! What listens in the guest, as `/proc` has it (proc_pid_net(5)).

use banger_channel::{
    control::{MOST_PORTS, Port, Ports},
    write_line,
};
use banger_doc::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

/// How often a watcher looks: the kernel tells nobody of a socket that begins to listen.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many times longer than a look a watcher waits for the next one.
const REST: u32 = 20;
/// How long the host may take to read a line.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// Most processes that are looked at.
const MOST_PROCESSES: usize = 32_768;
/// State of a TCP socket that listens; of a UDP socket that is bound.
const LISTENS: &str = "0A";
const BOUND: &str = "07";

/// Tells a stream what listens, and again each time that changes, until its other end goes.
pub(crate) fn watch(stream: &mut UnixStream) -> Result<()> {
    let mut told = None;
    loop {
        let begun = Instant::now();
        let now = tcp_listeners();
        if told.as_ref() != Some(&now) {
            let ports = listening().into_iter().filter(|port| port.protocol == "tcp").collect();
            write_line(stream, &Ports { ports }, Instant::now() + WRITE_LIMIT)
                .context("cannot tell what listens")?;
            told = Some(now);
        }
        let wait = LOOK_EVERY.max(begun.elapsed() * REST);
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            // Whoever watches says nothing more: this is its end.
            _ => return Ok(()),
        }
    }
}

/// Returns what listens, without looking for whose it is.
fn tcp_listeners() -> BTreeSet<(IpAddr, u16)> {
    let mut all = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        let entries = text.lines().skip(1).filter_map(|line| entry(line, LISTENS));
        all.extend(entries.map(|(_, address, port)| (address, port)));
    }
    all
}

/// Returns all that listens, sorted, each with a process if one is found.
pub(crate) fn listening() -> Vec<Port> {
    let mut by_inode: HashMap<u64, Vec<Port>> = HashMap::new();
    for (table, protocol, state) in [
        ("tcp", "tcp", LISTENS),
        ("tcp6", "tcp", LISTENS),
        ("udp", "udp", BOUND),
        ("udp6", "udp", BOUND),
    ] {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        for (inode, address, port) in text.lines().skip(1).filter_map(|line| entry(line, state)) {
            let address = address.to_string();
            let port = Port { protocol: protocol.into(), address, port, pid: None, process: None };
            by_inode.entry(inode).or_default().push(port);
        }
    }
    let mut all = Vec::new();
    name_processes(&mut by_inode, &mut all);
    all.extend(by_inode.into_values().flatten());
    all.sort();
    all.dedup();
    all.truncate(MOST_PORTS);
    all
}

/// Reads a line of a table: inode, local address, local port.
fn entry(line: &str, state: &str) -> Option<(u64, IpAddr, u16)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, remote) = (fields.get(1)?, fields.get(2)?);
    if *fields.get(3)? != state || !remote.ends_with(":0000") {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let inode = fields.get(9)?.parse().ok()?;
    Some((inode, parse_address(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// Reads an address: words of four bytes in the machine's own order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let words = (0..hex.len() / 8)
        .map(|word| u32::from_str_radix(hex.get(word * 8..word * 8 + 8)?, 16).ok())
        .collect::<Option<Vec<u32>>>()?;
    let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    if let Ok(four) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes.as_slice()).ok().map(|sixteen| Ipv6Addr::from(sixteen).into())
}

/// Moves the sockets of each process out, with its number and name.
fn name_processes(by_inode: &mut HashMap<u64, Vec<Port>>, all: &mut Vec<Port>) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in numbers.take(MOST_PROCESSES) {
        if by_inode.is_empty() {
            return;
        }
        let pid: u32 = pid;
        for file in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
            let Some(found) = inode.and_then(|inode| by_inode.remove(&inode)) else { continue };
            let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
            let name = String::from_utf8_lossy(&name).trim_end().to_owned();
            all.extend(found.into_iter().map(|port| Port {
                pid: Some(pid),
                process: Some(name.clone()),
                ..port
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_of_our_own_is_found_with_its_process() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        // Made while the other is held: it cannot be the same.
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let all = listening();
        let found = all.iter().find(|p| p.port == port && p.protocol == "tcp").unwrap();
        assert_eq!((found.address.as_str(), found.pid), ("127.0.0.1", Some(std::process::id())));
        assert!(!all.iter().any(|p| p.port == gone && p.pid == Some(std::process::id())));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_address("0100007F").unwrap().to_string(), "127.0.0.1");
        let six = parse_address("00000000000000000000000001000000").unwrap();
        assert_eq!(six.to_string(), "::1");
        assert!(parse_address("01").is_none() && parse_address("0100007Fxx00007F").is_none());
    }
}
