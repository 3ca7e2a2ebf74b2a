//! Addresses and routes, asked of the kernel directly (rtnetlink(7)): an image need not have a tool
//! for it.

use crate::say;
use banger_doc::{Context, Error, Guest, Interface, Result};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
        socket,
    },
};
use std::{
    fs,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

/// How long an interface may take to appear.
const LIMIT: Duration = Duration::from_secs(5);
/// A gateway that lies in none of the interface's networks is reached directly all the same.
const ON_LINK: u32 = 4;

/// Brings up the interfaces of the document. What fails is said, and the rest done.
pub(crate) fn up(guest: &Guest) {
    let Some(netlink) = say::or_warn(Netlink::open()) else { return };
    for interface in &guest.interfaces {
        say::or_warn(
            configure(&netlink, interface)
                .with_context(|| format!("cannot set up the interface '{}'", interface.mac)),
        );
    }
}

/// Brings up `lo`, which is always the first interface.
pub(crate) fn loopback_up() {
    say::or_warn(
        Netlink::open().and_then(|netlink| netlink.link(1, None)).context("cannot bring up 'lo'"),
    );
}

fn configure(netlink: &Netlink, interface: &Interface) -> Result<()> {
    let index = index_of(&interface.mac)?;
    netlink.link(index, interface.mtu)?;
    for address in &interface.addresses {
        let (ip, prefix) = parse(address)?;
        netlink.address(index, ip, prefix).with_context(|| format!("cannot set '{address}'"))?;
    }
    for gateway in &interface.gateways {
        let ip: IpAddr = gateway.parse().with_context(|| format!("'{gateway}' is no address"))?;
        netlink
            .default_route(index, ip, 0)
            .or_else(|_| netlink.default_route(index, ip, ON_LINK))
            .with_context(|| format!("cannot set the gateway '{gateway}'"))?;
    }
    Ok(())
}

fn parse(address: &str) -> Result<(IpAddr, u8)> {
    let (ip, prefix) = address.split_once('/').unwrap_or((address, ""));
    let ip: IpAddr = ip.parse().with_context(|| format!("'{address}' is no address"))?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = if prefix.is_empty() { Some(most) } else { prefix.parse().ok() };
    match prefix {
        Some(prefix) if prefix <= most => Ok((ip, prefix)),
        _ => Err(Error::failed(format!("'{address}' is no address with a prefix length"))),
    }
}

fn index_of(mac: &str) -> Result<u32> {
    let end = Instant::now() + LIMIT;
    loop {
        for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            if read("address").trim().eq_ignore_ascii_case(mac)
                && let Ok(index) = read("ifindex").trim().parse()
            {
                return Ok(index);
            }
        }
        if Instant::now() >= end {
            return Err(Error::not_found("the machine has no such interface"));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// A conversation with the kernel.
struct Netlink(OwnedFd);

impl Netlink {
    fn open() -> Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        );
        socket.map(Self).context("cannot ask the kernel for a network")
    }

    fn link(&self, index: u32, mtu: Option<u32>) -> Result<()> {
        let up = libc::IFF_UP as u32;
        // struct ifinfomsg: family, type, index, flags, which of them change.
        let mut body = vec![0; 4];
        body.extend(index.to_ne_bytes());
        body.extend(up.to_ne_bytes());
        body.extend(up.to_ne_bytes());
        if let Some(mtu) = mtu {
            attribute(&mut body, libc::IFLA_MTU, &mtu.to_ne_bytes());
        }
        self.ask(libc::RTM_NEWLINK, 0, &body)
    }

    fn address(&self, index: u32, ip: IpAddr, prefix: u8) -> Result<()> {
        // Nobody else can have the address, so looking for somebody who has would only take time.
        let flags = if ip.is_ipv6() { libc::IFA_F_NODAD } else { 0 };
        let mut body = vec![family(ip), prefix, 0, 0];
        body.extend(index.to_ne_bytes());
        attribute(&mut body, libc::IFA_LOCAL, &octets(ip));
        attribute(&mut body, libc::IFA_ADDRESS, &octets(ip));
        attribute(&mut body, libc::IFA_FLAGS, &flags.to_ne_bytes());
        if let (IpAddr::V4(ip), 1..=30) = (ip, prefix) {
            let broadcast = ip.to_bits() | (u32::MAX >> prefix);
            attribute(&mut body, libc::IFA_BROADCAST, &broadcast.to_be_bytes());
        }
        self.ask(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &body)
    }

    fn default_route(&self, index: u32, gateway: IpAddr, flags: u32) -> Result<()> {
        // struct rtmsg: family, lengths of destination and source, tos, table, origin, scope, type.
        let mut body = vec![
            family(gateway),
            0,
            0,
            0,
            libc::RT_TABLE_MAIN,
            libc::RTPROT_BOOT,
            libc::RT_SCOPE_UNIVERSE,
            libc::RTN_UNICAST,
        ];
        body.extend(flags.to_ne_bytes());
        attribute(&mut body, libc::RTA_GATEWAY, &octets(gateway));
        attribute(&mut body, libc::RTA_OIF, &index.to_ne_bytes());
        self.ask(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &body)
    }

    /// Sends one request and waits for its acknowledgement, which the kernel gives at once.
    fn ask(&self, kind: u16, flags: i32, body: &[u8]) -> Result<()> {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        let mut message = Vec::new();
        message.extend((16 + body.len() as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        let failed = "the kernel did not answer about the network";
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.0.as_raw_fd(), &message, &kernel, MsgFlags::empty()).context(failed)?;
        let mut answer = [0; 4096];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty()).context(failed)?;
        // struct nlmsghdr, then struct nlmsgerr, whose first field is an error number or 0.
        let code = answer[..length].get(16..20).and_then(|bytes| bytes.try_into().ok());
        match code.map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(code) if -code == libc::EEXIST => Ok(()),
            Some(code) => Err(Errno::from_raw(-code)).context("the kernel refused"),
            None => Err(Error::failed(failed)),
        }
    }
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_their_prefix() {
        assert_eq!(parse("10.0.2.15/24").unwrap().1, 24);
        assert_eq!(parse("fd00::1").unwrap().1, 128);
        for bad in ["", "10.0.2.15/33", "x/8", "10.0.0.1/", "1.2.3.4/-1"] {
            assert!(bad.ends_with('/') || parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn attributes_are_padded() {
        let mut body = Vec::new();
        attribute(&mut body, 5, &[1, 2, 3, 4, 5]);
        assert_eq!(body.len(), 12);
        assert_eq!(&body[..2], &9_u16.to_ne_bytes());
    }
}
