//! The rules of a namespace, as data, and how nftables is told of them (nft(8)).

use crate::{Plan, TAP, WAY_OUT, pasta::DNS};
use std::{
    collections::BTreeSet,
    fmt::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The table that all rules are in.
const TABLE: &str = "inet banger";

/// Addresses that share a beginning.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Net {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
}

impl Net {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    /// Says whether all of `other` is in this one.
    fn holds(self, other: Self) -> bool {
        let (one, two, bits) = match (self.address, other.address) {
            (IpAddr::V4(one), IpAddr::V4(two)) => {
                (one.to_bits().into(), two.to_bits().into(), 32_u8)
            }
            (IpAddr::V6(one), IpAddr::V6(two)) => (one.to_bits(), two.to_bits(), 128),
            _ => return false,
        };
        let differ: u128 = one ^ two;
        self.prefix <= other.prefix
            && differ.checked_shr((bits - self.prefix).into()).unwrap_or(0) == 0
    }

    const fn v6(words: [u16; 8], prefix: u8) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < words.len() {
            bits = bits << 16 | words[at] as u128;
            at += 1;
        }
        Self { address: IpAddr::V6(Ipv6Addr::from_bits(bits)), prefix }
    }
}

impl From<IpAddr> for Net {
    fn from(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// What no guest reaches whatever the host's addresses are: the link's own, of which clouds give
/// credentials away, and what an address of a socket may hide a loopback in.
const NEVER: &[Net] = &[
    Net::v4(0, 0, 0, 0, 8),
    Net::v4(127, 0, 0, 0, 8),
    Net::v4(169, 254, 0, 0, 16),
    // Metadata elsewhere: Alibaba's, Azure's, Oracle's.
    Net::v4(100, 100, 100, 200, 32),
    Net::v4(168, 63, 129, 16, 32),
    Net::v4(192, 0, 0, 192, 32),
    // Loopback, and IPv4 in IPv6's clothes.
    Net::v6([0; 8], 96),
    Net::v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),
    LINK_LOCAL6,
    // Metadata: Amazon's, Google's, Scaleway's.
    Net::v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
    Net::v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
    Net::v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128),
];
const LINK_LOCAL6: Net = Net::v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10);
const UNKNOWN6: Net = Net::v6([0; 8], 128);

/// Where in the way of a packet a rule stands, in the order of the ruleset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Chain {
    /// What comes from the guest, before anything is made of it.
    Source,
    /// Where it is to go instead.
    Lead,
    /// What passes through.
    Forward,
    /// What is for the namespace itself.
    Input,
    /// What the namespace itself sends.
    Output,
    /// What leaves.
    Leave,
}

impl Chain {
    const ALL: [Self; 6] =
        [Self::Source, Self::Lead, Self::Forward, Self::Input, Self::Output, Self::Leave];

    fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Lead => "lead",
            Self::Forward => "forward",
            Self::Input => "input",
            Self::Output => "output",
            Self::Leave => "leave",
        }
    }

    /// Returns kind, place and order, and what becomes of a packet that no rule meets.
    fn begins(self) -> (&'static str, &'static str) {
        match self {
            Self::Source => ("filter hook prerouting priority raw", "accept"),
            Self::Lead => ("nat hook prerouting priority dstnat", "accept"),
            Self::Forward => ("filter hook forward priority filter", "drop"),
            Self::Input => ("filter hook input priority filter", "drop"),
            Self::Output => ("filter hook output priority filter", "drop"),
            Self::Leave => ("nat hook postrouting priority srcnat", "accept"),
        }
    }
}

/// What a packet has to be like.
#[derive(Clone, Debug, Eq, PartialEq)]
enum When {
    /// It came through this interface.
    Via(&'static str),
    /// It leaves through this interface.
    Towards(&'static str),
    /// It is for one of these, all of one family.
    To(Vec<Net>),
    /// It says that it is from one of these, all of one family.
    From(Vec<Net>),
    /// It is of the family of these and says that it is from none of them.
    NotFrom(Vec<Net>),
    /// It is for an address of the host.
    ToHost(Family),
    /// It is of TCP or UDP.
    Carries,
    /// It is for this port.
    Port(u16),
    /// It is an answer, or what an answer needs.
    Answers,
    /// A rule of [`Chain::Lead`] leads it.
    Led,
    /// It is one of these messages of ICMP.
    Icmp(Family, &'static [&'static str]),
}

/// The two sorts of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn of(net: Net) -> Self {
        if net.address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The set of the host's addresses, and the type of its elements.
    fn set(self) -> (&'static str, &'static str) {
        match self {
            Self::V4 => ("host4", "ipv4_addr"),
            Self::V6 => ("host6", "ipv6_addr"),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Then {
    Accept,
    Drop,
    /// Whoever sent it is told.
    Refuse,
    /// It goes to this address instead.
    LeadTo(Ipv4Addr),
    /// It gets the namespace's own address.
    Masquerade,
}

/// One rule: packets that are all of `when`.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Rule {
    chain: Chain,
    when: Vec<When>,
    then: Then,
}

fn rule(chain: Chain, when: impl Into<Vec<When>>, then: Then) -> Rule {
    Rule { chain, when: when.into(), then }
}

/// The rules of a namespace.
///
/// Nothing but the guest sends through here, and under its own addresses only. Nothing comes back
/// but answers. The namespace itself answers pings and neighbours, and passes questions for names on
/// to `pasta`; it sends nothing of its own, nor does what broke out of the VMM and is in here.
fn rules(plan: &Plan, allow_host: bool) -> Vec<Rule> {
    use Chain::{Forward, Input, Lead, Leave, Output, Source};
    use Then::{Accept, Drop, LeadTo, Masquerade, Refuse};
    use When::{Answers, Carries, From, Icmp, Led, NotFrom, Port, To, ToHost, Towards, Via};
    const NEIGHBOURS: &[&str] = &["nd-neighbor-solicit", "nd-neighbor-advert"];
    const REFUSALS: &[&str] = &["destination-unreachable"];
    const REFUSALS6: &[&str] = &["destination-unreachable", "packet-too-big"];
    let one = |address: IpAddr| vec![Net::from(address)];
    let (gateway, gateway6) = (one(plan.gateway.into()), one(plan.gateway6.into()));
    let out = || [Via(TAP), Towards(WAY_OUT)];
    let beyond = |last: When| out().into_iter().chain([last]).collect::<Vec<_>>();
    let mut rules = vec![
        rule(Source, [Via(TAP), NotFrom(one(plan.guest.into()))], Drop),
        rule(
            Source,
            [Via(TAP), NotFrom(vec![IpAddr::from(plan.guest6).into(), LINK_LOCAL6, UNKNOWN6])],
            Drop,
        ),
        rule(Lead, [Via(TAP), To(one(plan.dns.into())), Carries, Port(53)], LeadTo(DNS)),
    ];
    if let Some(host) = plan.host_gateway.filter(|_| allow_host) {
        rules.push(rule(Lead, [Via(TAP), To(gateway.clone()), Carries], LeadTo(host)));
    }
    rules.push(rule(Forward, beyond(From(vec![LINK_LOCAL6])), Drop));
    rules.push(rule(Forward, beyond(Led), Accept));
    for family in Family::ALL {
        let never: Vec<Net> =
            NEVER.iter().copied().filter(|net| Family::of(*net) == family).collect();
        rules.push(rule(Forward, beyond(To(never)), Refuse));
        rules.push(rule(Forward, beyond(ToHost(family)), Refuse));
    }
    rules.extend([
        rule(Forward, out(), Accept),
        rule(Forward, [Via(WAY_OUT), Towards(TAP), Answers], Accept),
        rule(Input, [Answers], Accept),
        rule(Input, [Icmp(Family::V6, NEIGHBOURS)], Accept),
        rule(Input, [Via(TAP), To(gateway), Icmp(Family::V4, &["echo-request"])], Accept),
        rule(Input, [Via(TAP), To(gateway6), Icmp(Family::V6, &["echo-request"])], Accept),
        rule(Input, [Via(TAP), Carries], Refuse),
        rule(Output, [Answers, Towards(TAP)], Accept),
        rule(Output, [Icmp(Family::V6, NEIGHBOURS)], Accept),
        rule(Output, [Towards(TAP), Icmp(Family::V4, REFUSALS)], Accept),
        rule(Output, [Towards(TAP), Icmp(Family::V6, REFUSALS6)], Accept),
        rule(Leave, [Towards(WAY_OUT)], Masquerade),
    ]);
    rules
}

/// Returns the ruleset as one transaction: all of it holds or none. `host` are the addresses that
/// are the host's now.
pub(crate) fn ruleset(plan: &Plan, allow_host: bool, host: &BTreeSet<Net>) -> String {
    let mut text = format!("table {TABLE} {{\n");
    for family in Family::ALL {
        let (set, kind) = family.set();
        let _ = writeln!(text, "  set {set} {{ type {kind}; flags interval; }}");
    }
    let rules = rules(plan, allow_host);
    for chain in Chain::ALL {
        let (hook, otherwise) = chain.begins();
        let _ = writeln!(text, "  chain {} {{\n    type {hook}; policy {otherwise};", chain.name());
        for rule in rules.iter().filter(|rule| rule.chain == chain) {
            let _ = writeln!(text, "    {}", rendered(rule));
        }
        text.push_str("  }\n");
    }
    text.push_str("}\n");
    text + &elements(host)
}

/// Returns what makes other addresses the host's, as one transaction.
pub(crate) fn renewed(host: &BTreeSet<Net>) -> String {
    let mut text = String::new();
    for family in Family::ALL {
        let _ = writeln!(text, "flush set {TABLE} {}", family.set().0);
    }
    text + &elements(host)
}

fn elements(host: &BTreeSet<Net>) -> String {
    let mut text = String::new();
    for family in Family::ALL {
        let own = host.iter().copied().filter(|net| Family::of(*net) == family);
        // A set takes none that another one holds.
        let own: Vec<Net> =
            own.filter(|net| !host.iter().any(|other| other != net && other.holds(*net))).collect();
        if !own.is_empty() {
            let _ = writeln!(text, "add element {TABLE} {} {}", family.set().0, list(&own));
        }
    }
    text
}

fn list(nets: &[Net]) -> String {
    let words: Vec<String> = nets.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", words.join(", "))
}

fn rendered(rule: &Rule) -> String {
    let family = |nets: &[Net]| nets.first().map_or("ip", |net| Family::of(*net).word());
    let mut words: Vec<String> = rule
        .when
        .iter()
        .map(|when| match when {
            When::Via(interface) => format!("iifname {interface}"),
            When::Towards(interface) => format!("oifname {interface}"),
            When::To(nets) => format!("{} daddr {}", family(nets), list(nets)),
            When::From(nets) => format!("{} saddr {}", family(nets), list(nets)),
            When::NotFrom(nets) => format!("{} saddr != {}", family(nets), list(nets)),
            When::ToHost(family) => format!("{} daddr @{}", family.word(), family.set().0),
            When::Carries => "meta l4proto { tcp, udp }".to_owned(),
            When::Port(port) => format!("th dport {port}"),
            When::Answers => "ct state established,related".to_owned(),
            When::Led => "ct status dnat".to_owned(),
            When::Icmp(family, kinds) => {
                let protocol = match family {
                    Family::V4 => "icmp",
                    Family::V6 => "icmpv6",
                };
                format!("{protocol} type {{ {} }}", kinds.join(", "))
            }
        })
        .collect();
    words.push(match rule.then {
        Then::Accept => "accept".to_owned(),
        Then::Drop => "drop".to_owned(),
        Then::Refuse => "reject".to_owned(),
        Then::LeadTo(address) => format!("dnat ip to {address}"),
        Then::Masquerade => "masquerade".to_owned(),
    });
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(host_gateway: Option<&str>) -> Plan {
        let mut plan = Plan::new();
        plan.host_gateway = host_gateway.map(|address| address.parse().unwrap());
        plan
    }

    #[test]
    fn only_allow_host_leads_to_the_host() {
        let host = BTreeSet::new();
        let with = plan(Some("203.0.113.1"));
        assert!(!ruleset(&with, false, &host).contains("203.0.113.1"));
        assert!(ruleset(&with, true, &host).contains("dnat ip to 203.0.113.1"));
        assert_eq!(ruleset(&plan(None), true, &host), ruleset(&plan(None), false, &host));
    }

    #[test]
    fn what_is_led_comes_before_what_is_refused_and_that_before_the_way_out() {
        for allow_host in [false, true] {
            let rules = rules(&plan(Some("203.0.113.1")), allow_host);
            let forward: Vec<&Rule> =
                rules.iter().filter(|rule| rule.chain == Chain::Forward).collect();
            let at = |wanted: &dyn Fn(&Rule) -> bool| {
                forward.iter().position(|rule| wanted(rule)).unwrap()
            };
            let led = at(&|rule| rule.when.contains(&When::Led));
            let open = at(&|rule| rule.when.len() == 2 && rule.then == Then::Accept);
            let refused: Vec<usize> =
                (0..forward.len()).filter(|n| forward[*n].then == Then::Refuse).collect();
            assert_eq!(refused.len(), 4);
            assert!(refused.iter().all(|n| (led..open).contains(n)), "{forward:?}");
        }
    }

    #[test]
    fn every_filter_but_the_one_of_sources_drops_what_no_rule_meets() {
        for chain in [Chain::Forward, Chain::Input, Chain::Output] {
            assert_eq!(chain.begins().1, "drop");
        }
        let text = ruleset(&plan(None), false, &BTreeSet::new());
        assert_eq!(text.matches("policy drop").count(), 3);
        // The namespace answers, and says nothing of its own to the world.
        let output = text.split("chain output").nth(1).unwrap().split('}').next().unwrap();
        assert!(!output.contains(WAY_OUT), "{output}");
    }

    #[test]
    fn the_hosts_addresses_are_elements_of_sets() {
        let host: BTreeSet<Net> = ["172.17.0.1", "203.0.113.2", "2001:db8::2"]
            .map(|text| Net::from(text.parse::<IpAddr>().unwrap()))
            .into();
        let text = renewed(&host);
        assert!(text.contains("host4 { 172.17.0.1/32, 203.0.113.2/32 }"), "{text}");
        assert!(text.contains("host6 { 2001:db8::2/128 }"), "{text}");
        assert!(text.starts_with("flush set inet banger host4\nflush set inet banger host6\n"));
        assert!(ruleset(&plan(None), false, &host).ends_with(&elements(&host)));
        assert_eq!(renewed(&BTreeSet::new()).lines().count(), 2);
    }

    #[test]
    fn what_another_network_holds_is_named_once() {
        let net = |text: &str, prefix| Net { address: text.parse().unwrap(), prefix };
        assert!(net("127.0.0.0", 8).holds(net("127.0.0.53", 32)));
        assert!(net("0.0.0.0", 0).holds(net("127.0.0.53", 32)));
        assert!(net("::", 0).holds(net("fd00::", 8)));
        assert!(!net("127.0.0.53", 32).holds(net("127.0.0.0", 8)));
        assert!(!net("127.0.0.0", 8).holds(net("128.0.0.1", 32)));
        assert!(!net("::", 0).holds(net("127.0.0.1", 32)));
        let host = [net("127.0.0.0", 8), net("127.0.0.1", 32), net("10.0.0.1", 32)].into();
        assert!(renewed(&host).contains("host4 { 10.0.0.1/32, 127.0.0.0/8 }"));
    }

    #[test]
    fn addresses_of_every_cloud_are_among_those_that_are_never_reached() {
        let text = ruleset(&plan(None), false, &BTreeSet::new());
        for net in ["169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "::ffff:0.0.0.0/96"] {
            assert!(text.contains(net), "{net}: {text}");
        }
    }
}
