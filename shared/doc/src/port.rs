//! `banger.port/1`: something that listens in a guest; and the ports of the host that lead there.

use crate::{Document, Error, Name, Result};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// `banger.port/1`: something that listens in a guest, as its agent says, or a published port that
/// nothing listens behind.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Port {
    /// The VM.
    pub vm: Name,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The address it listens on, in the guest; `0.0.0.0` and `::` are all of them. Absent: a
    /// published port that nothing listens behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its number, in the guest.
    pub port: u16,
    /// A process in the guest that has it open, if one was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// That process's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// Ports of the host that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
}

impl Document for Port {
    const SCHEMA: &'static str = "banger.port/1";
}

/// A port of the host that leads into a guest.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Forward {
    /// The address it listens on, on the host.
    pub address: IpAddr,
    /// Its number, on the host.
    pub host_port: u16,
    /// The number it leads to, in the guest.
    pub guest_port: u16,
    /// Whether it was asked for by `--publish`; else it is there because something listens.
    pub published: bool,
    /// Why it has another number than the one in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Why it does not listen; absent if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Which ports of the host lead into a guest.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct HostPorts {
    /// Those that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publish>,
    /// Whether what listens in the guest appears on the host by itself.
    #[serde(default)]
    pub auto: bool,
    /// The loopback address of the host where it does; the VM's name leads there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loopback: Option<IpAddr>,
}

/// A port of the host that is to lead to one of the guest.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Publish {
    /// The address on the host; absent: its loopback, `127.0.0.1` and `::1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The number on the host.
    pub host_port: u16,
    /// The number in the guest.
    pub guest_port: u16,
}

impl Publish {
    /// Returns the addresses of the host that it takes.
    pub fn addresses(&self) -> Vec<IpAddr> {
        match self.address {
            Some(address) => vec![address],
            None => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        }
    }

    /// Says whether both take a port of the host that only one can have.
    pub fn meets(&self, other: &Self) -> bool {
        let all = |address: &IpAddr| address.is_unspecified();
        self.host_port == other.host_port
            && self.addresses().iter().any(|mine| {
                other.addresses().iter().any(|theirs| mine == theirs || all(mine) || all(theirs))
            })
    }
}

impl FromStr for Publish {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::usage(format!("'{text}' publishes no port: {why}")).hint(
                "it is [ADDRESS:]HOST-PORT:GUEST-PORT, such as 8080:80 or 0.0.0.0:8080:80 or \
                 [::1]:8080:80",
            )
        };
        let rest = text.strip_suffix("/tcp").unwrap_or(text);
        if rest.ends_with("/udp") {
            return Err(bad("only TCP can be published"));
        }
        let (front, guest) = rest.rsplit_once(':').ok_or_else(|| bad("there is no ':'"))?;
        let (address, host) = match front.rsplit_once(':') {
            Some((address, host)) => (Some(address), host),
            None => (None, front),
        };
        let number = |word: &str| match word.parse::<u16>() {
            Ok(number) if number > 0 && word.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(number)
            }
            _ => Err(bad(&format!("'{word}' is no port, 1 to 65535"))),
        };
        let address = address
            .map(|word| match word.strip_prefix('[').map(|w| w.strip_suffix(']')) {
                Some(inside) => inside?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
                None if word == "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
                None => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            })
            .map(|parsed| parsed.ok_or_else(|| bad("its address is none")))
            .transpose()?;
        // `localhost` is both of its addresses, as without an address.
        let address = address.filter(|_| !front.starts_with("localhost:"));
        Ok(Self { address, host_port: number(host)?, guest_port: number(guest)? })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, host_port, guest_port } = self;
        match address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{host_port}:{guest_port}"),
            Some(address) => write!(f, "{address}:{host_port}:{guest_port}"),
            None => write!(f, "{host_port}:{guest_port}"),
        }
    }
}

impl HostPorts {
    /// Says whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses a list that asks for one port of the host twice.
    pub fn check(&self) -> Result<()> {
        for (at, one) in self.publish.iter().enumerate() {
            if let Some(other) = self.publish[..at].iter().find(|other| other.meets(one)) {
                return Err(Error::usage(format!(
                    "'{other}' and '{one}' publish the same port of this host"
                ))
                .hint("give one of them another port of the host"));
            }
        }
        Ok(())
    }
}

/// Reads `--ports`: `auto` or `none`.
pub fn parse_ports(text: &str) -> Result<bool> {
    match text {
        "auto" => Ok(true),
        "none" => Ok(false),
        _ => Err(Error::usage(format!("'{text}' is none of auto, none"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_and_said() {
        for text in ["8080:80", "0.0.0.0:8080:80", "[::1]:1:65535", "127.0.0.5:22:22"] {
            assert_eq!(text.parse::<Publish>().unwrap().to_string(), text);
        }
        assert_eq!("8080:80/tcp".parse::<Publish>().unwrap().to_string(), "8080:80");
        let both: Publish = "localhost:8080:80".parse().unwrap();
        assert_eq!((both.to_string().as_str(), both.addresses().len()), ("8080:80", 2));
        for text in [
            "",
            "80",
            ":80",
            "80:",
            "0:80",
            "80:0",
            "+1:80",
            "65536:1",
            "1:2/udp",
            "a:1:2",
            "::1:1:2",
            "[1.2.3.4]:1:2",
            "[::1:1:2",
            "1:2:3:4",
            "-1:2",
        ] {
            assert_eq!(text.parse::<Publish>().unwrap_err().kind(), crate::Kind::Usage, "{text}");
        }
    }

    #[test]
    fn one_port_of_the_host_leads_to_one_place() {
        let meets = |a: &str, b: &str| {
            let (a, b): (Publish, Publish) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(a.meets(&b), b.meets(&a));
            a.meets(&b)
        };
        assert!(meets("8080:80", "8080:81"));
        assert!(meets("8080:80", "127.0.0.1:8080:80"));
        assert!(meets("8080:80", "[::1]:8080:80"));
        assert!(meets("0.0.0.0:8080:80", "10.1.2.3:8080:80"));
        assert!(!meets("127.0.0.2:8080:80", "127.0.0.3:8080:80"));
        assert!(!meets("8080:80", "8081:80"));
        let twice = HostPorts {
            publish: vec!["1:2".parse().unwrap(), "1:3".parse().unwrap()],
            ..HostPorts::default()
        };
        assert!(twice.check().is_err());
    }
}
