//! What the image's own network services are told, in memory only: the interfaces are set up already, so nobody
//! is to set them up again or to wait for them.

use crate::{apply, say};
use banger_doc::{Context, Guest, Result};
use banger_guest::place;
use std::{fmt::Write as _, fs, os::unix::fs::symlink, path::Path};

/// Units that set up a network or wait for one: networkd's, NetworkManager's, ifupdown's, dhcpcd, connman, wicked,
/// the scripts of older distributions.
const OF_A_NETWORK: &[&str] = &[
    "systemd-networkd-wait-online.service",
    "systemd-networkd-wait-online@.service",
    "NetworkManager-wait-online.service",
    "ifupdown-wait-online.service",
    "connman-wait-online.service",
    "dhcpcd.service",
    "dhcpcd@.service",
    "network.service",
    "wicked.service",
];
/// cloud-init's: without a seed in the image they look for one in a network that has none.
const OF_A_CLOUD: &[&str] = &[
    "cloud-init-main.service",
    "cloud-init-local.service",
    "cloud-init.service",
    "cloud-init-network.service",
    "cloud-config.service",
    "cloud-final.service",
];
/// Where an image says to cloud-init what to do.
const SEED: &str = "/var/lib/cloud/seed";
/// Where udev is, if the image has it.
const UDEV: &[&str] = &["/lib/systemd/systemd-udevd", "/usr/lib/systemd/systemd-udevd"];
/// A mount that is there from the beginning to the end.
const STAYS: &str = "[Unit]\nDefaultDependencies=no\n\n[Mount]\nWhat=rootfs\nWhere=/run/banger\n";
/// Never true in a guest: systemd skips the unit, and what comes after it goes on at once.
const SKIPPED: &str = "[Unit]\nConditionPathExists=!/run/banger\n";
/// An interfaces(5) is in at most so many files.
const MOST_FILES: usize = 64;

/// Tells systemd's services; for other inits there are [`interfaces`] only.
pub(crate) fn write(guest: &Guest) -> Result<()> {
    // The agent lies there and lives until the end: systemd would try in vain to unmount it. A mount it finds
    // does not heed a drop-in.
    say::or_warn(put("/run/systemd/system/run-banger.mount", STAYS));
    if !UDEV.iter().any(|path| Path::new(path).exists()) {
        // Without udev systemd never learns of the serial port, and would wait for it.
        for port in ["ttyS0", "ttyAMA0"] {
            let unit = format!("/run/systemd/system/serial-getty@{port}.service");
            say::or_warn(
                symlink("/dev/null", &unit).with_context(|| format!("cannot make '{unit}'")),
            );
        }
    }
    if guest.files.iter().any(|file| file.path == "/etc/ssh/ssh_host_ed25519_key") {
        // The server shows banger's key alone; to make others takes minutes in an emulated guest.
        for key in ["rsa", "ecdsa"] {
            let unit = format!("/run/systemd/system/sshd-keygen@{key}.service");
            say::or_warn(
                symlink("/dev/null", &unit).with_context(|| format!("cannot make '{unit}'")),
            );
        }
    }
    // The devices are there already, and it would take from all but root what udev would give back.
    say::or_warn(drop_in("kmod-static-nodes.service", SKIPPED));
    if guest.interfaces.is_empty() {
        return Ok(());
    }
    for unit in OF_A_NETWORK {
        drop_in(unit, SKIPPED)?;
    }
    let seeded = fs::read_dir(SEED).is_ok_and(|mut seeds| seeds.next().is_some());
    for unit in OF_A_CLOUD.iter().filter(|_| !seeded) {
        drop_in(unit, SKIPPED)?;
    }
    let mut network = String::from("[Match]\n");
    let mut macs = Vec::new();
    for interface in &guest.interfaces {
        let _ = writeln!(network, "MACAddress={}", interface.mac);
        macs.push(format!("mac:{}", interface.mac));
    }
    network.push_str("\n[Link]\nUnmanaged=yes\n");
    // Of several that match, the first name wins (systemd.network(5)).
    put("/run/systemd/network/00-banger.network", &network)?;
    let unmanaged = format!("[keyfile]\nunmanaged-devices={}\n", macs.join(";"));
    put("/run/NetworkManager/conf.d/00-banger.conf", &unmanaged)
}

fn drop_in(unit: &str, text: &str) -> Result<()> {
    put(&format!("/run/systemd/system/{unit}.d/banger.conf"), text)
}

fn put(path: &str, text: &str) -> Result<()> {
    let path = Path::new(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot make '{}'", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write '{}'", path.display()))
}

/// Has ifupdown, of Debian's and busybox's sort, take the interfaces as they are, whatever init starts it: a copy
/// of what says otherwise lies over it until the guest ends.
pub(crate) fn interfaces(guest: &Guest) {
    // The kernel is told to call them so.
    let names: Vec<String> = (0..guest.interfaces.len()).map(|n| format!("eth{n}")).collect();
    let dir = fs::read_dir("/etc/network/interfaces.d").into_iter().flatten().flatten();
    let mut files = vec![Path::new("/etc/network/interfaces").to_owned()];
    files.extend(dir.map(|entry| entry.path()).filter(|path| path.is_file()).take(MOST_FILES));
    for (number, path) in files.iter().enumerate() {
        let Some(before) = say::or_warn(apply::text_of(path)).flatten() else { continue };
        let after = left_alone(&before, &names);
        if after != before {
            let ours = Path::new(place::RUN).join(format!("interfaces-{number}"));
            say::or_warn(apply::cover(path, &ours, &after));
        }
    }
    // dhcpcd.conf(5)
    let dhcpcd = Path::new("/etc/dhcpcd.conf");
    if let Some(before) = say::or_warn(apply::text_of(dhcpcd)).flatten() {
        let after = denied(&before, &names);
        let ours = Path::new(place::RUN).join("dhcpcd.conf");
        say::or_warn(apply::cover(dhcpcd, &ours, &after));
    }
}

/// Returns a dhcpcd.conf(5) by which these interfaces are nobody's. In front: what follows the line of an interface or
/// a network is about that one alone.
fn denied(before: &str, names: &[String]) -> String {
    format!("denyinterfaces {}\n{before}", names.join(" "))
}

/// Returns an interfaces(5) in which these interfaces have nothing done to them but what scripts do.
fn left_alone(before: &str, names: &[String]) -> String {
    let is_ours = |word: &str| {
        let pattern = word.trim_start_matches('/');
        names.iter().any(|name| match pattern.split_once('*') {
            Some((start, end)) => name.starts_with(start) && name.ends_with(end),
            None => name == pattern,
        })
    };
    let changed = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["iface", name, family, method, ..]
                if is_ours(name) && !matches!(method, "manual" | "loopback") =>
            {
                format!("iface {name} {family} manual\n")
            }
            _ => format!("{line}\n"),
        }
    };
    before.lines().map(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dhcpcd_is_told_before_it_is_told_of_one_interface() {
        let names = ["eth0".to_owned(), "eth1".to_owned()];
        let before = "hostname\ninterface wlan0\n  static ip_address=10.0.0.2/24\n";
        assert_eq!(denied(before, &names), format!("denyinterfaces eth0 eth1\n{before}"));
    }

    #[test]
    fn interfaces_of_ours_are_left_alone_and_no_others() {
        let names = ["eth0".to_owned()];
        let before = "auto lo eth0\niface lo inet loopback\n# iface eth0 inet dhcp\niface eth0 inet dhcp\n\
            \tup echo up\niface eth0 inet6 auto\niface eth1 inet dhcp\nauto /eth*\niface eth* inet static\n  \
            address 10.0.0.1\niface br0 inet static\n";
        let after = "auto lo eth0\niface lo inet loopback\n# iface eth0 inet dhcp\niface eth0 inet manual\n\
            \tup echo up\niface eth0 inet6 manual\niface eth1 inet dhcp\nauto /eth*\niface eth* inet manual\n  \
            address 10.0.0.1\niface br0 inet static\n";
        assert_eq!(left_alone(before, &names), after);
        assert_eq!(left_alone(after, &names), after);
    }
}
