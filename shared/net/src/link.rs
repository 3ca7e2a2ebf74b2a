//! Interfaces of the namespace this process is in, through rtnetlink(7).

use crate::{address::gateways, rules::Net};
use banger_doc::{Context, Error, Result};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;
use std::{
    collections::BTreeSet,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// The table of what a host takes for itself (rtnetlink(7)).
const LOCAL: u8 = libc::RT_TABLE_LOCAL;

/// A conversation with the kernel about interfaces.
pub(crate) struct Links {
    socket: Socket,
    sequence: u32,
}

impl Links {
    /// Begins one.
    pub(crate) fn open() -> Result<Self> {
        let open = || -> std::io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        Ok(Self { socket: open().context("cannot open a netlink socket")?, sequence: 0 })
    }

    /// Brings an interface up, with a largest packet if one is named.
    pub(crate) fn up(&mut self, name: &str, mtu: Option<u32>) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index(name)?;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.extend(mtu.map(LinkAttribute::Mtu));
        self.ask(RouteNetlinkMessage::SetLink(message), 0)
            .with_context(|| format!("cannot bring the interface '{name}' up"))
    }

    /// Gives an interface an address. One of IPv6 is used at once: nobody else is on the link.
    pub(crate) fn add_address(&mut self, name: &str, address: IpAddr, prefix: u8) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = index(name)?;
        message.header.prefix_len = prefix;
        message.header.scope = AddressScope::Universe;
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        self.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
            .with_context(|| format!("cannot give the interface '{name}' the address '{address}'"))
    }

    /// Returns every address that is the host's own: those of its interfaces, and what else it takes
    /// for itself by the table of local routes. With `allow_host` also those of its routers, by which
    /// `pasta` would lead to the host's loopback.
    pub(crate) fn own(allow_host: bool) -> Result<BTreeSet<Net>> {
        let mut own = BTreeSet::new();
        if allow_host {
            own.extend(gateways().into_iter().map(Net::from));
        }
        // One conversation for each: an answer that breaks off spoils no other.
        Self::open()?.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |part| {
            if let RouteNetlinkMessage::NewAddress(message) = part {
                let local = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(address) => Some(*address),
                    _ => None,
                });
                // Where there is the first, this is the other end of the link.
                let only = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                });
                own.extend(local.or(only).map(Net::from));
            }
        })?;
        let mut local = RouteMessage::default();
        local.header.table = LOCAL;
        let mut links = Self::open()?;
        // Where the kernel cannot choose, the whole of its tables comes, which is more work.
        let _ = links.socket.set_netlink_get_strict_chk(true);
        links.dump(RouteNetlinkMessage::GetRoute(local), |part| {
            if let RouteNetlinkMessage::NewRoute(message) = part
                && message.header.table == LOCAL
                && matches!(
                    message.header.kind,
                    RouteType::Local | RouteType::Broadcast | RouteType::Anycast
                )
            {
                let address = message.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                        Some(IpAddr::from(*address))
                    }
                    RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                        Some(IpAddr::from(*address))
                    }
                    _ => None,
                });
                let prefix = message.header.destination_prefix_length;
                own.extend(address.map(|address| Net { address, prefix }));
            }
        })?;
        Ok(own)
    }

    /// Asks for a list, and hands on what comes.
    fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<()> {
        self.send(message, NLM_F_DUMP)?;
        loop {
            let (answer, _) =
                self.socket.recv_from_full().context("cannot read from the netlink socket")?;
            let mut rest = answer.as_slice();
            while !rest.is_empty() {
                let part = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .context("cannot read the kernel's answer")?;
                let length = (part.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(4)..).unwrap_or_default();
                match part.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return Err(error.to_io()).context("the kernel refused");
                    }
                    NetlinkPayload::InnerMessage(message) => each(message),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.sequence += 1;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).context("cannot write to the netlink socket").map(drop)
    }

    /// Sends a request and waits for the kernel's word on it, which it gives at once.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.send(message, NLM_F_ACK | flags)?;
        let (answer, _) =
            self.socket.recv_from_full().context("cannot read from the netlink socket")?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .context("cannot read the kernel's answer")?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
            NetlinkPayload::Error(error) => Err(error.to_io()).context("the kernel refused"),
            _ => Err(Error::failed("the kernel gave an answer to another question")),
        }
    }
}

fn index(name: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(name).with_context(|| format!("no interface '{name}'"))
}

/// Changes of the host's routes and addresses, as they come.
pub(crate) struct Changes(Socket);

impl Changes {
    /// Begins to watch.
    pub(crate) fn watch() -> std::io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in [
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
        ] {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Forgets what has come; says whether anything had. What was lost for want of room counts.
    pub(crate) fn drain(&self) -> bool {
        let mut any = false;
        loop {
            match self.0.recv_from_full() {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return any,
                Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => return any,
                _ => any = true,
            }
        }
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
