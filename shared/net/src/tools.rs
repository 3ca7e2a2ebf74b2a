//! What a namespace of one's own takes, and why it is not to be had.

use banger_jail::{User as Kind, own_user, weak_root};
use nix::unistd::{AccessFlags, Gid, Uid, User, access, geteuid};
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The device taps come from.
pub(crate) const TUN: &str = "/dev/net/tun";

/// The user that a root's network runs as: `pasta` refuses root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RunAs {
    /// The user.
    pub uid: Uid,
    /// Its group.
    pub gid: Gid,
}

impl RunAs {
    /// Returns whom this process needs: nobody else, unless it is root. Without a name it is a user that
    /// nothing else of the host has; a root of a user namespace has none to give.
    pub fn needed(name: Option<&str>) -> Result<Option<Self>, String> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        match name {
            None if weak_root().is_ok() => {
                let uid = own_user(Kind::Network);
                Ok(Some(Self { uid, gid: Gid::from_raw(uid.as_raw()) }))
            }
            name => Self::named(name.unwrap_or("nobody")).map(Some),
        }
    }

    /// Looks a user up by name or number; a number needs no entry and is its own group then.
    pub fn named(name: &str) -> Result<Self, String> {
        let number = name.parse::<u32>().ok();
        let user = match number {
            Some(uid) => User::from_uid(Uid::from_raw(uid)),
            None => User::from_name(name),
        };
        let found = match (user, number) {
            (Ok(Some(user)), _) => Self { uid: user.uid, gid: user.gid },
            (_, Some(id)) => Self { uid: Uid::from_raw(id), gid: Gid::from_raw(id) },
            _ => return Err(format!("there is no user '{name}' to run the network as")),
        };
        if found.uid.is_root() {
            return Err("the network cannot run as root".to_owned());
        }
        Ok(found)
    }
}

/// The programs of a network namespace, found, on a host that allows one.
#[derive(Clone, Debug)]
pub struct Tools {
    pub(crate) pasta: PathBuf,
    pub(crate) nft: PathBuf,
}

impl Tools {
    /// Finds them; the error is the reason, in words, why this host has no network namespace for a
    /// VM. `pasta` names a program to use instead of that in `PATH`. What only trying can show, [`crate::Network::make`] finds out.
    pub fn find(run_as: Option<RunAs>, pasta: Option<&Path>) -> Result<Self, String> {
        user_namespaces(run_as.is_some())?;
        if !may_open_tun(run_as) {
            return Err(format!("'{TUN}' cannot be opened for reading and writing"));
        }
        let pasta = match pasta {
            Some(path) if path.is_file() => path.to_owned(),
            Some(path) => return Err(format!("there is no '{}'", path.display())),
            None => program("pasta", "passt")?,
        };
        Ok(Self { pasta, nft: program("nft", "nftables")? })
    }
}

/// Says why this host gives an ordinary user no user namespaces of use, as far as its settings tell.
/// `other`: whether the caller becomes such a user first.
pub fn user_namespaces(other: bool) -> Result<(), String> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let ordinary = other || !geteuid().is_root();
    if number("/proc/sys/user/max_user_namespaces") == Some(0)
        || (!geteuid().is_root() && number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0))
    {
        return Err("user namespaces are switched off".to_owned());
    }
    // Ubuntu's rule: a program without a profile of its own gets a namespace without powers.
    let profile = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    if number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1)
        && ordinary
        && profile.trim_end_matches(['\n', '\0']) == "unconfined"
    {
        return Err("AppArmor forbids user namespaces to programs without a profile".to_owned());
    }
    Ok(())
}

/// Says whether this root may make a device, and a place for it that nobody else sees: one in a container may lack
/// that (capabilities(7)).
fn makes_devices() -> bool {
    has_powers(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn has_powers(status: &str) -> bool {
    const SYS_ADMIN: u64 = 1 << 21;
    const MKNOD: u64 = 1 << 27;
    let wanted = SYS_ADMIN | MKNOD;
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok())
        .is_some_and(|held| held & wanted == wanted)
}

/// Says whether the user of a network can make taps: root gives one that cannot a device of its own.
pub fn may_open_tun(run_as: Option<RunAs>) -> bool {
    let opens = || OpenOptions::new().read(true).write(true).open(TUN).is_ok();
    match run_as {
        None => access(TUN, AccessFlags::R_OK | AccessFlags::W_OK).is_ok(),
        Some(_) if weak_root().is_ok() && makes_devices() && opens() => true,
        Some(user) => fs::metadata(TUN).is_ok_and(|meta| {
            let shift = if meta.uid() == user.uid.as_raw() {
                6
            } else if meta.gid() == user.gid.as_raw() {
                3
            } else {
                0
            };
            meta.mode() >> shift & 0o6 == 0o6
        }),
    }
}

/// Finds a program in `PATH`, and where an ordinary user's `PATH` does not lead.
pub(crate) fn program(name: &str, package: &str) -> Result<PathBuf, String> {
    which::which(name)
        .ok()
        .or_else(|| {
            ["/usr/sbin", "/sbin", "/usr/local/sbin"]
                .iter()
                .map(|dir| Path::new(dir).join(name))
                .find(|path| path.is_file())
        })
        .ok_or_else(|| format!("the program '{name}' (package '{package}') is not installed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_as_takes_names_and_numbers_but_never_root() {
        assert!(RunAs::named("root").is_err());
        assert!(RunAs::named("0").is_err());
        assert!(RunAs::named("no such user").is_err());
        assert_eq!(RunAs::named("4294900000").unwrap().gid.as_raw(), 4_294_900_000);
    }

    #[test]
    fn what_leads_a_network_out_shares_its_user_with_nothing() {
        if weak_root().is_err() {
            return;
        }
        let user = RunAs::needed(None).unwrap().unwrap();
        assert!(User::from_uid(user.uid).unwrap().is_none(), "{user:?}");
        assert!(user.uid != own_user(Kind::Vmm) && user.uid != own_user(Kind::Tool));
        assert_eq!(RunAs::needed(Some("nobody")).unwrap(), Some(RunAs::named("nobody").unwrap()));
    }

    #[test]
    fn a_root_without_the_powers_for_it_makes_no_device() {
        assert!(has_powers("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        // What containers have unless told otherwise: no CAP_SYS_ADMIN.
        assert!(!has_powers("CapEff:\t00000000a80425fb\n"));
        assert!(!has_powers("CapEff:\t0000000000200000\n"));
        assert!(!has_powers(""));
    }

    #[test]
    fn an_absent_program_is_named_with_its_package() {
        let reason = program("no-such-program", "no-such-package").unwrap_err();
        assert!(reason.contains("no-such-program") && reason.contains("no-such-package"));
    }
}
