//! Ports of the host that lead into the guest: those that were asked for, and those that follow what
//! listens there.

use banger_channel::{control, relay::Relay};
use banger_doc::{Context, Error, Forward, HostPorts, Name, Publish, Result};
use banger_state::place;
use nix::{
    libc,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{Backlog, listen},
    },
};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
};

/// Most connections at once. The channel has room for more, so others still reach the guest.
const MOST_CONNECTIONS: u64 = 1500;
/// Open files for so many: client, channel, and the channel's other end.
const OPEN_FILES: u64 = 8192;
/// Open files of the supervisor's own.
const OWN_FILES: u64 = 256;
/// Most listeners in a guest that are followed.
const MOST_FOLLOWED: usize = 256;
/// Clients that may wait to be taken.
const QUEUE: i32 = 1024;

/// One port of the host.
struct Lead {
    key: u64,
    forward: Forward,
    /// Bound, and not yet given to the relay.
    listener: Option<TcpListener>,
    /// Where it leads.
    target: String,
}

/// All of them.
pub(crate) struct HostSide {
    relay: Option<Relay>,
    wanted: HostPorts,
    leads: Vec<Lead>,
    keys: u64,
    /// Numbers that were given in place of the guest's own, kept for when they come again.
    given: BTreeMap<u16, u16>,
}

impl HostSide {
    /// Binds what is published; one that cannot be had is an error. Starts no thread.
    pub(crate) fn bind(vm: &Name, wanted: HostPorts) -> Result<Self> {
        let mut side = Self {
            relay: None,
            wanted: HostPorts::default(),
            leads: Vec::new(),
            keys: 0,
            given: BTreeMap::new(),
        };
        side.change(wanted);
        let problem = side
            .leads
            .iter()
            .find_map(|lead| lead.forward.problem.as_ref().map(|why| (&lead.forward, why.clone())));
        match problem {
            Some((forward, why)) => {
                let place = SocketAddr::new(forward.address, forward.host_port);
                Err(Error::conflict(format!("cannot publish {place}"))
                    .because(io::Error::other(why))
                    .hint(format!(
                        "choose another port: 'banger vm set {vm} --unpublish {} --publish \
                         HOST-PORT:{}'",
                        forward.host_port, forward.guest_port
                    )))
            }
            None => Ok(side),
        }
    }

    /// Begins to serve, with a thread.
    pub(crate) fn begin(&mut self) -> Result<()> {
        if self.wanted.publish.is_empty() && !self.wanted.auto {
            return Ok(());
        }
        if self.relay.is_none() {
            self.relay = Some(Relay::start(Path::new(place::VM_CHANNEL), raise_limit())?);
        }
        self.hand_over();
        Ok(())
    }

    /// Returns what is wanted now.
    pub(crate) fn wanted(&self) -> &HostPorts {
        &self.wanted
    }

    /// Returns the ports there are, and those that were asked for and are not.
    pub(crate) fn forwards(&self) -> Vec<Forward> {
        self.leads.iter().map(|lead| lead.forward.clone()).collect()
    }

    /// Brings what there is in line with what is wanted.
    pub(crate) fn change(&mut self, wanted: HostPorts) {
        let published: Vec<(IpAddr, &Publish)> = wanted
            .publish
            .iter()
            .flat_map(|one| one.addresses().into_iter().map(move |address| (address, one)))
            .collect();
        let follows = wanted.auto && wanted.loopback == self.wanted.loopback;
        let stays = |lead: &Lead| {
            let Forward { address, host_port, guest_port, published: asked, .. } = lead.forward;
            if !asked {
                return follows;
            }
            lead.forward.problem.is_none()
                && published.iter().any(|(at, one)| {
                    (*at, one.host_port, one.guest_port) == (address, host_port, guest_port)
                })
        };
        self.drop_unless(stays);
        for (address, one) in published {
            let there = |lead: &Lead| {
                let forward = &lead.forward;
                forward.published
                    && (forward.address, forward.host_port) == (address, one.host_port)
            };
            if !self.leads.iter().any(there) {
                self.publish(address, one);
            }
        }
        self.wanted = wanted;
        self.hand_over();
    }

    fn publish(&mut self, address: IpAddr, one: &Publish) {
        let bound = open(address, one.host_port);
        if let Err(error) = &bound
            && one.address.is_none()
            && address.is_ipv6()
            && matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
        {
            // A host without IPv6 has one loopback less.
            return;
        }
        let (listener, problem) = match bound {
            Ok(listener) => (Some(listener), None),
            Err(error) => (None, Some(why(&error, address, one.host_port))),
        };
        let forward = Forward {
            address,
            host_port: one.host_port,
            guest_port: one.guest_port,
            published: true,
            note: None,
            problem,
        };
        self.add(forward, listener, format!("tcp localhost:{}", one.guest_port));
    }

    /// Follows what listens in the guest now.
    pub(crate) fn follow(&mut self, heard: Vec<control::Port>) {
        let Some(loopback) = self.wanted.loopback.filter(|_| self.wanted.auto) else { return };
        let listening = targets(heard);
        self.drop_unless(|lead| {
            lead.forward.published || listening.get(&lead.forward.guest_port) == Some(&lead.target)
        });
        for (port, target) in listening {
            if self.leads.iter().any(|l| !l.forward.published && l.forward.guest_port == port) {
                continue;
            }
            let (listener, note) = match open(loopback, port) {
                Ok(listener) => (Ok(listener), None),
                Err(error) => {
                    let given = self.given.get(&port).copied().unwrap_or(0);
                    let other = open(loopback, given).or_else(|_| open(loopback, 0));
                    (other, Some(why(&error, loopback, port)))
                }
            };
            let (host_port, problem) = match &listener {
                Ok(listener) => (listener.local_addr().map_or(0, |at| at.port()), None),
                Err(error) => (port, Some(why(error, loopback, port))),
            };
            if note.is_some() && problem.is_none() {
                self.given.insert(port, host_port);
            }
            let forward = Forward {
                address: loopback,
                host_port,
                guest_port: port,
                published: false,
                note,
                problem,
            };
            self.add(forward, listener.ok(), target);
        }
        self.hand_over();
    }

    fn add(&mut self, forward: Forward, listener: Option<TcpListener>, target: String) {
        self.keys += 1;
        self.leads.push(Lead { key: self.keys, forward, listener, target });
        self.leads.sort_by_key(|lead| {
            let Forward { published, guest_port, host_port, address, .. } = lead.forward;
            (!published, guest_port, host_port, address)
        });
    }

    fn drop_unless(&mut self, stays: impl Fn(&Lead) -> bool) {
        let relay = self.relay.as_ref();
        self.leads.retain(|lead| {
            let stays = stays(lead);
            if let Some(relay) = relay.filter(|_| !stays) {
                relay.forget(lead.key);
            }
            stays
        });
    }

    fn hand_over(&mut self) {
        let Some(relay) = &self.relay else { return };
        for lead in &mut self.leads {
            if let Some(listener) = lead.listener.take() {
                relay.listen(lead.key, listener, lead.target.clone());
            }
        }
    }
}

/// Returns where each port of the guest is to be reached: by `localhost`, unless it listens elsewhere.
fn targets(heard: Vec<control::Port>) -> BTreeMap<u16, String> {
    let mut targets: BTreeMap<u16, String> = BTreeMap::new();
    for port in heard.into_iter().filter(|port| port.protocol == "tcp" && port.port > 0) {
        let Ok(address) = port.address.parse::<IpAddr>() else { continue };
        let near = address.is_unspecified()
            || address == IpAddr::V4(Ipv4Addr::LOCALHOST)
            || address == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
        if near {
            targets.insert(port.port, format!("tcp localhost:{}", port.port));
        } else if targets.len() < MOST_FOLLOWED {
            let there = format!("tcp {}", SocketAddr::new(address, port.port));
            targets.entry(port.port).or_insert(there);
        }
    }
    while targets.len() > MOST_FOLLOWED {
        targets.pop_last();
    }
    targets
}

fn open(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((address, port))?;
    // The same again, with a longer queue.
    listen(&listener, Backlog::new(QUEUE)?)?;
    Ok(listener)
}

fn why(error: &io::Error, address: IpAddr, port: u16) -> String {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => format!("port {port} of {address} is taken"),
        Some(libc::EACCES) => format!("port {port} is for root alone on this host"),
        Some(libc::EADDRNOTAVAIL) => format!("{address} is no address of this host"),
        _ => format!("port {port} of {address}: {error}"),
    }
}

/// Lets this process open enough files; returns how many connections that allows.
fn raise_limit() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let limit = soft.max(OPEN_FILES.min(hard));
    let limit = setrlimit(Resource::RLIMIT_NOFILE, limit, hard).map_or(soft, |()| limit);
    (limit.saturating_sub(OWN_FILES) / 3).clamp(64, MOST_CONNECTIONS) as usize
}

/// Hears what listens in the guest, again and again, until `enough`.
pub(crate) fn watch(hear: impl Fn(Vec<control::Port>), enough: impl Fn() -> bool) {
    let limit = std::time::Duration::from_secs(10);
    while !enough() {
        let _ = control::watch_ports(Path::new(place::VM_CHANNEL), limit, |ports| {
            hear(ports);
            !enough()
        })
        .context("cannot hear what listens in the guest");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: &str, port: u16) -> control::Port {
        let (protocol, address) = ("tcp".to_owned(), address.to_owned());
        control::Port { protocol, address, port, pid: None, process: None }
    }

    /// Nobody else's: tests of one machine run at the same time.
    fn own() -> Ipv4Addr {
        let [.., b, c] = std::process::id().to_be_bytes();
        Ipv4Addr::new(127, 200, b, c)
    }

    fn auto() -> HostPorts {
        HostPorts { publish: Vec::new(), auto: true, loopback: Some(own().into()) }
    }

    #[test]
    fn a_port_is_reached_by_localhost_unless_it_listens_elsewhere() {
        let heard = vec![
            port("172.30.255.2", 80),
            port("0.0.0.0", 80),
            port("172.30.255.2", 81),
            port("::1", 82),
            port("127.0.0.53", 53),
            port("../x", 83),
            control::Port { protocol: "udp".into(), ..port("0.0.0.0", 84) },
        ];
        let targets: Vec<_> = targets(heard).into_values().collect();
        let wanted =
            ["tcp 127.0.0.53:53", "tcp localhost:80", "tcp 172.30.255.2:81", "tcp localhost:82"];
        assert_eq!(targets, wanted);
        let many = (1..2000).map(|number| port("0.0.0.0", number)).collect();
        assert_eq!(super::targets(many).len(), MOST_FOLLOWED);
    }

    #[test]
    fn a_taken_number_is_replaced_and_the_reason_said() {
        let wanted = auto();
        let loopback = wanted.loopback.unwrap();
        let held = TcpListener::bind((loopback, 0)).unwrap();
        let taken = held.local_addr().unwrap().port();
        let mut side = HostSide::bind(&"web".parse().unwrap(), wanted).unwrap();
        side.follow(vec![port("0.0.0.0", taken)]);
        let first = side.forwards();
        assert_ne!(first[0].host_port, taken);
        assert!(first[0].note.as_ref().unwrap().contains("is taken"), "{first:?}");
        side.follow(Vec::new());
        assert!(side.forwards().is_empty());
        // It comes again under the number it had.
        side.follow(vec![port("0.0.0.0", taken)]);
        assert_eq!(side.forwards(), first);
    }

    #[test]
    fn a_port_that_is_served_can_lead_elsewhere_at_once() {
        let address = auto().loopback.unwrap();
        let publish = |guest: u16| HostPorts {
            publish: vec![format!("{address}:8000:{guest}").parse().unwrap()],
            ..HostPorts::default()
        };
        let mut side = HostSide::bind(&"web".parse().unwrap(), publish(80)).unwrap();
        side.begin().unwrap();
        for guest in 81..181 {
            side.change(publish(guest));
            let forwards = side.forwards();
            assert_eq!((forwards.len(), &forwards[0].problem), (1, &None), "{forwards:?}");
        }
    }

    #[test]
    fn what_is_published_follows_what_is_wanted() {
        let bind = || TcpListener::bind((own(), 0)).unwrap();
        let number = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let (held, others) = (bind(), [bind(), bind()]);
        let (taken, [one, two]) = (number(&held), others.each_ref().map(number));
        drop(others);
        let publish = |numbers: &[u16]| HostPorts {
            publish: numbers.iter().map(|n| format!("{}:{n}:80", own()).parse().unwrap()).collect(),
            ..HostPorts::default()
        };
        let error = HostSide::bind(&"web".parse().unwrap(), publish(&[taken])).err().unwrap();
        assert!(error.chain().contains("is taken"), "{}", error.chain());
        let mut side = HostSide::bind(&"web".parse().unwrap(), publish(&[one])).unwrap();
        side.change(publish(&[one, taken]));
        let problems: Vec<bool> = side.forwards().iter().map(|f| f.problem.is_some()).collect();
        assert_eq!(problems.iter().filter(|problem| **problem).count(), 1);
        drop(held);
        side.change(publish(&[one, taken]));
        assert!(side.forwards().iter().all(|forward| forward.problem.is_none()));
        side.change(publish(&[two]));
        assert_eq!(side.forwards().len(), 1);
        TcpListener::bind((own(), one)).unwrap();
    }
}
