//! The link between a namespace and its guest, and the way out: names of interfaces, addresses.

use banger_doc::Interface;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The guest's interface on the host's side.
pub const TAP: &str = "tap0";

/// The interface that `pasta` makes.
pub const WAY_OUT: &str = "pasta0";

/// Largest packet on the link. `pasta` carries streams, not packets, so the path's own limit does
/// not count here, and larger packets mean fewer of them.
pub(crate) const MTU: u32 = 65_520;

/// Prefix length of the link's IPv4 network.
pub(crate) const PREFIX4: u8 = 24;

/// The same as a mask.
pub(crate) const MASK4: u32 = u32::MAX << (32 - PREFIX4);

/// Prefix length of the link's IPv6 network.
pub(crate) const PREFIX6: u8 = 64;

/// Networks for the link, by preference. The first that the host has no route into is taken, so that
/// the guest can reach whatever the host can.
const NETWORKS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(172, 30, 255, 0),
    Ipv4Addr::new(10, 213, 255, 0),
    Ipv4Addr::new(192, 168, 213, 0),
    Ipv4Addr::new(100, 127, 255, 0),
];

/// The link's IPv6 network, from the range every site may use as it likes (RFC 4193).
const NETWORK6: Ipv6Addr = Ipv6Addr::new(0xfd62, 0x616e, 0x6765, 0x7200, 0, 0, 0, 0);

/// Who has which address, and where the host itself is.
///
/// QEMU's own user network can have the same addresses, so a guest is told the same whichever of the
/// two is behind its interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// The network both are in.
    pub network: Ipv4Addr,
    /// The namespace's end of the link; the guest's gateway.
    pub gateway: Ipv4Addr,
    /// The guest's name server, which the namespace's end answers for.
    pub dns: Ipv4Addr,
    /// The guest's end.
    pub guest: Ipv4Addr,
    /// The namespace's end, IPv6.
    pub gateway6: Ipv6Addr,
    /// The guest's end, IPv6.
    pub guest6: Ipv6Addr,
    /// The host's own gateway, if it has one.
    pub host_gateway: Option<Ipv4Addr>,
}

impl Plan {
    /// Chooses addresses the host does not use.
    pub fn new() -> Self {
        Self::beside(&routes(&fs::read_to_string("/proc/net/route").unwrap_or_default()))
    }

    fn beside(routes: &[Route]) -> Self {
        let network = NETWORKS
            .into_iter()
            .find(|network| !routes.iter().any(|route| route.meets(*network)))
            .unwrap_or(NETWORKS[0]);
        let host = |n: u32| Ipv4Addr::from_bits(network.to_bits() | n);
        let host6 = |n: u128| Ipv6Addr::from_bits(NETWORK6.to_bits() | n);
        Self {
            network,
            gateway: host(1),
            dns: host(3),
            guest: host(2),
            gateway6: host6(1),
            guest6: host6(2),
            host_gateway: routes
                .iter()
                .find(|route| route.mask == 0 && route.gateway != 0)
                .map(|route| Ipv4Addr::from_bits(route.gateway)),
        }
    }

    /// Returns what the guest is told of its interface.
    pub fn interface(&self, mac: &str) -> Interface {
        Interface {
            mac: mac.to_owned(),
            addresses: vec![
                format!("{}/{PREFIX4}", self.guest),
                format!("{}/{PREFIX6}", self.guest6),
            ],
            gateways: vec![self.gateway.to_string(), self.gateway6.to_string()],
            mtu: Some(MTU),
        }
    }

    /// Returns the same addresses in the words of QEMU's `-netdev user`.
    pub fn user_network(&self) -> String {
        let Self { network, gateway, guest, dns, gateway6, .. } = self;
        let dns6 = Ipv6Addr::from_bits(NETWORK6.to_bits() | 3);
        format!(
            "net={network}/{PREFIX4},host={gateway},dns={dns},dhcpstart={guest},\
             ipv6-net={NETWORK6}/{PREFIX6},ipv6-host={gateway6},ipv6-dns={dns6}"
        )
    }

    /// Returns the guest's name servers.
    pub fn dns(&self) -> Vec<String> {
        vec![self.dns.to_string()]
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

/// A route of the host.
#[derive(Debug)]
struct Route {
    destination: u32,
    mask: u32,
    gateway: u32,
}

impl Route {
    /// Says whether this route, unless it is a default route, shares an address with `network`.
    fn meets(&self, network: Ipv4Addr) -> bool {
        let common = self.mask & MASK4;
        self.mask != 0 && (self.destination ^ network.to_bits()) & common == 0
    }
}

/// Returns the routers behind which the host sees the world.
pub(crate) fn gateways() -> Vec<IpAddr> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let old = routes(&read("/proc/net/route"));
    let old = old.iter().filter(|route| route.mask == 0 && route.gateway != 0);
    old.map(|route| IpAddr::from(Ipv4Addr::from_bits(route.gateway)))
        .chain(gateways6(&read("/proc/net/ipv6_route")))
        .collect()
}

/// Reads `/proc/net/ipv6_route`: destination and its length are fields 1 and 2, the gateway is
/// field 5.
fn gateways6(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let all = fields.get(1) == Some(&"00");
            let gateway = u128::from_str_radix(fields.get(4)?, 16).ok()?;
            (all && gateway != 0).then(|| Ipv6Addr::from_bits(gateway).into())
        })
        .collect()
}

/// Reads `/proc/net/route`: destination, gateway and mask are fields 2, 3 and 8, each the address as
/// it lies in memory.
fn routes(text: &str) -> Vec<Route> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let address = |i: usize| u32::from_str_radix(fields.get(i)?, 16).ok().map(u32::from_be);
            Some(Route { destination: address(1)?, gateway: address(2)?, mask: address(7)? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    #[test]
    fn the_default_route_is_the_hosts_gateway_and_blocks_nothing() {
        let text = format!(
            "{HEAD}eth0\t00000000\t017100CB\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             eth0\t007100CB\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        );
        let plan = Plan::beside(&routes(&text));
        assert_eq!(plan.guest, Ipv4Addr::new(172, 30, 255, 2));
        assert_eq!(plan.host_gateway, Some(Ipv4Addr::new(203, 0, 113, 1)));
    }

    #[test]
    fn a_network_the_host_uses_is_left_alone() {
        let text = format!("{HEAD}docker0\t00001EAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n");
        assert_eq!(Plan::beside(&routes(&text)).guest, Ipv4Addr::new(10, 213, 255, 2));
        let text = format!(
            "{HEAD}a\t000010AC\t00000000\t1\t0\t0\t0\t0000F0FF\t0\t0\t0\n\
             b\t0000000A\t00000000\t1\t0\t0\t0\t000000FF\t0\t0\t0\n"
        );
        assert_eq!(Plan::beside(&routes(&text)).guest, Ipv4Addr::new(192, 168, 213, 2));
    }

    #[test]
    fn a_gateway_of_ipv6_is_read_from_its_default_route() {
        let text = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                    20010db8000000000000000000000001 00000400 00000001 00000000 00000003 cable\n\
                    20010db8000000000000000000000000 40 00000000000000000000000000000000 00 \
                    00000000000000000000000000000000 00000100 00000001 00000000 00000001 cable\n\
                    00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                    00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n";
        assert_eq!(gateways6(text), ["2001:db8::1".parse::<IpAddr>().unwrap()]);
        assert!(gateways6("x\n\n00 00 00 00 zz").is_empty());
    }

    #[test]
    fn odd_lines_are_passed_over() {
        assert!(routes("").is_empty());
        assert!(routes(&format!("{HEAD}\n\nx y z\neth0 zz zz 1 1 1 1 zz\n")).is_empty());
        assert_eq!(Plan::beside(&[]).host_gateway, None);
    }

    #[test]
    fn the_guest_is_told_both_families() {
        let interface = Plan::beside(&[]).interface("02:00:00:00:00:01");
        assert_eq!(interface.addresses, ["172.30.255.2/24", "fd62:616e:6765:7200::2/64"]);
        assert_eq!(interface.gateways, ["172.30.255.1", "fd62:616e:6765:7200::1"]);
    }
}
