//! What the default image is made with: a distribution's packages, by mmdebstrap. An ordinary user needs
//! user and group numbers of their own for it, and the programs that hand them out.

use crate::{host::locate, pass, remedy, warn};
use banger_config::Config;
use banger_doc::Check;
use nix::unistd::{User, getuid};
use std::{fs, path::Path};

/// The image that is made here; any other is pulled.
const MADE_HERE: &str = "debian-bookworm";
/// What mmdebstrap runs besides itself.
const APT: [&str; 7] = ["apt-get", "apt-cache", "apt-config", "dpkg", "dpkg-deb", "tar", "find"];
/// The keys Debian's packages are signed with, on a host that is not Debian itself.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How many numbers a whole system of users needs.
const NUMBERS: u64 = 65536;
/// Where numbers that nobody has begin.
const FIRST: u64 = 100_000;
const WITHOUT: &str = "the default image is pulled from a registry instead, without an ssh server";

pub(crate) fn checks() -> Vec<Check> {
    let config = Config::load().unwrap_or_default();
    if !config.image().starts_with(MADE_HERE) {
        return Vec::new();
    }
    let mut checks = vec![tools("mmdebstrap", &["mmdebstrap"], &remedy::MMDEBSTRAP)];
    checks.push(tools("apt", &APT, &remedy::APT));
    if !remedy::is_debian() {
        checks.push(if Path::new(KEYS).is_file() {
            pass("debian-keys", KEYS)
        } else {
            let remedy = remedy::install(&remedy::DEBIAN_KEYS);
            warn("debian-keys", format!("'{KEYS}' is not there: {WITHOUT}"), remedy)
        });
    }
    if getuid().is_root() {
        return checks;
    }
    checks.push(tools("uidmap", &["newuidmap", "newgidmap"], &remedy::UIDMAP));
    let user = User::from_uid(getuid()).ok().flatten().map(|user| user.name);
    checks.push(numbers(
        user.as_deref(),
        &fs::read_to_string("/etc/subuid").unwrap_or_default(),
        &fs::read_to_string("/etc/subgid").unwrap_or_default(),
    ));
    checks
}

/// Looks for programs of one package.
fn tools(name: &str, programs: &[&str], package: &remedy::Package) -> Check {
    let absent: Vec<&str> =
        programs.iter().copied().filter(|program| locate(program, None).is_none()).collect();
    match (absent.as_slice(), programs) {
        ([], [one]) => pass(
            name,
            locate(one, None).map_or_else(String::new, |path| path.display().to_string()),
        ),
        ([], all) => pass(name, format!("{} are installed", all.join(", "))),
        ([one], _) => {
            warn(name, format!("'{one}' is not installed: {WITHOUT}"), remedy::install(package))
        }
        (absent, _) => {
            let words = format!("{} are not installed: {WITHOUT}", absent.join(", "));
            warn(name, words, remedy::install(package))
        }
    }
}

/// Looks for the user's numbers in what `/etc/subuid` and `/etc/subgid` say (subuid(5)), as mmdebstrap
/// does: by name, the first line.
fn numbers(user: Option<&str>, subuid: &str, subgid: &str) -> Check {
    let name = "subuid";
    let Some(user) = user else {
        let remedy = "pull images as a user that /etc/passwd has, or as root";
        return warn(name, format!("this user has no name: {WITHOUT}"), remedy);
    };
    let lacks = |text: &str| {
        let own = entries(text).find(|(owner, _, _)| *owner == user);
        own.is_none_or(|(_, _, count)| count < NUMBERS)
    };
    let files: Vec<&str> = [("/etc/subuid", subuid), ("/etc/subgid", subgid)]
        .into_iter()
        .filter(|(_, text)| lacks(text))
        .map(|(file, _)| file)
        .collect();
    if files.is_empty() {
        return pass(name, format!("/etc/subuid and /etc/subgid give numbers to '{user}'"));
    }
    // A line of too few numbers would be found first.
    let few = [subuid, subgid]
        .iter()
        .any(|text| entries(text).any(|(owner, _, count)| owner == user && count < NUMBERS));
    let taken = entries(subuid).chain(entries(subgid));
    let begin = taken.map(|(_, first, count)| first.saturating_add(count)).max();
    let begin = begin.unwrap_or(FIRST).max(FIRST);
    let end = begin.saturating_add(NUMBERS - 1);
    let options = files.iter().map(|file| match *file {
        "/etc/subuid" => format!(" --add-subuids {begin}-{end}"),
        _ => format!(" --add-subgids {begin}-{end}"),
    });
    let remedy = if few {
        format!("give '{user}' {NUMBERS} numbers in {}", files.join(" and "))
    } else {
        format!("sudo usermod{} {user}", options.collect::<String>())
    };
    let has = format!("'{user}' has no {NUMBERS} numbers in {}", files.join(" and "));
    warn(name, format!("{has}: {WITHOUT}"), remedy)
}

/// Reads lines of `owner:first:count`.
fn entries(text: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    text.lines().filter_map(|line| {
        let mut parts = line.split(':');
        Some((parts.next()?, parts.next()?.parse().ok()?, parts.next()?.trim().parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_doc::Outcome;

    #[test]
    fn a_user_without_numbers_is_given_some_that_nobody_has() {
        let both = "ann:100000:65536\nbob:165536:65536\n";
        for user in ["ann", "bob"] {
            assert_eq!(numbers(Some(user), both, both).outcome, Outcome::Pass);
        }
        let remedy = |subuid: &str, subgid: &str| {
            let check = numbers(Some("eve"), subuid, subgid);
            assert_eq!(check.outcome, Outcome::Warn, "{check:?}");
            check.remedy.unwrap_or_default()
        };
        assert_eq!(
            remedy("", ""),
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 eve"
        );
        assert_eq!(
            remedy(both, both),
            "sudo usermod --add-subuids 231072-296607 --add-subgids 231072-296607 eve"
        );
        // Only what is missing.
        assert_eq!(
            remedy("eve:100000:65536\n", "ann:100000:65536\n"),
            "sudo usermod --add-subgids 165536-231071 eve"
        );
        // One line is read: another one behind it would not help.
        assert_eq!(
            remedy("eve:100000:10\n", "eve:100000:65536\n"),
            "give 'eve' 65536 numbers in /etc/subuid"
        );
        assert_eq!(
            remedy("nonsense\n:::\nevelyn:100000:65536\n", "eve:1:99999999999\n"),
            "sudo usermod --add-subuids 100000000000-100000065535 eve"
        );
        let all = format!("ann:0:{}\n", u64::MAX);
        assert!(remedy(&all, &all).starts_with("sudo usermod"));
        assert_eq!(numbers(None, both, both).outcome, Outcome::Warn);
    }
}
