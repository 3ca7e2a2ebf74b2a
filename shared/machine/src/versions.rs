//! Versions of Firecracker: which serve, and what is known not to work in some that do.

use banger_doc::{Error, Result};
use std::fmt;

/// The oldest version that describes its devices by ACPI, as a distribution's kernel needs.
const OLDEST: Version = Version(1, 8, 0);
/// The first version whose API may be another one.
const TOO_NEW: Version = Version(2, 0, 0);
/// The first version whose balloon gives the guest's free memory back (docs/ballooning.md there).
const REPORTS_FREE_PAGES: Version = Version(1, 14, 0);

/// A version of Firecracker.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version(u32, u32, u32);

/// Something that does not work in some versions.
#[derive(Debug)]
pub struct Fault {
    /// The first and the last version of each range that has it, as far as is known.
    versions: &'static [(Version, Version)],
    /// What goes wrong.
    pub what: &'static str,
    /// What banger does about it.
    pub answer: Answer,
    /// Which versions do better.
    pub better: &'static str,
}

/// What banger does about a fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Refuses to pause the VM.
    NoPause,
    /// Does nothing that meets it, on banger's own channel.
    Avoids,
    /// Leaves it to the user: `banger doctor` tells.
    Told,
}

/// What is known; `docs/install.md` says the same.
const FAULTS: &[Fault] = &[
    Fault {
        versions: &[(Version(1, 16, 0), Version(1, 16, 1))],
        what: "a guest that was paused cannot be reached any more",
        answer: Answer::NoPause,
        better: "1.15.1, or one after 1.16.1",
    },
    Fault {
        versions: &[(OLDEST, Version(1, 13, u32::MAX))],
        what: "more than 32 KiB that a guest's program sends over vsock at once can arrive twice in part",
        answer: Answer::Avoids,
        better: "1.14.0 or newer",
    },
    Fault {
        versions: &[(OLDEST, Version(1, 14, 3)), (Version(1, 15, 0), Version(1, 15, 0))],
        what: "a guest can make it take more of the host's memory than the guest was given",
        answer: Answer::Told,
        better: "1.14.4, 1.15.1 or newer",
    },
];

/// Where Firecracker is to be had, and how it is found then.
pub const GET_FIRECRACKER: &str = "https://github.com/firecracker-microvm/firecracker/releases has it: put 'firecracker' and 'jailer' into PATH";

impl Version {
    /// Reads a version such as `1.12.1`, and refuses one that does not serve.
    pub fn serving(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Err(Error::unavailable(format!("Firecracker '{text}' {why}: 1.8 to 1.x are known"))
                .hint(format!("{GET_FIRECRACKER}; '--vmm qemu' does without")))
        };
        match Self::read(text) {
            Some(version) if version < OLDEST => refuse("is too old"),
            Some(version) if version >= TOO_NEW => refuse("is too new"),
            Some(version) => Ok(version),
            None => refuse("is of no version"),
        }
    }

    fn read(text: &str) -> Option<Self> {
        // What follows a dash is the build's.
        let numbers = text.split('-').next()?;
        let mut parts = numbers.split('.').map(|part| part.parse::<u32>().ok());
        Some(Self(parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
    }

    /// Returns what is known not to work in it.
    pub fn faults(self) -> impl Iterator<Item = &'static Fault> {
        FAULTS.iter().filter(move |fault| fault.is_in(self))
    }

    /// Fails if a guest that was held still would be lost.
    pub(crate) fn require_pause(self) -> Result<()> {
        match self.faults().find(|fault| fault.answer == Answer::NoPause) {
            None => Ok(()),
            Some(fault) => {
                Err(self.refusal("a VM cannot be paused", fault, "let it run, or stop it"))
            }
        }
    }

    /// Says whether it has a balloon that gives the guest's free memory back to the host.
    pub(crate) fn reports_free_pages(self) -> bool {
        self >= REPORTS_FREE_PAGES
    }

    fn refusal(self, what: &str, fault: &Fault, otherwise: &str) -> Error {
        Error::unavailable(format!("on Firecracker {self} {what}: there {}", fault.what))
            .hint(format!("install another version ({}), or {otherwise}", fault.better))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl Fault {
    fn is_in(&self, version: Version) -> bool {
        self.versions.iter().any(|(first, last)| (*first..=*last).contains(&version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::serving(text).unwrap()
    }

    #[test]
    fn versions_that_do_not_serve_are_refused() {
        for good in ["1.12.1", "1.8.0-dev", "1.8", "1.15.0", "1.17.0-dev"] {
            version(good);
        }
        for bad in ["1.7.9", "0.25.0", "", "v1", "1", "x.y", "2.0.0", "2.0.0-dev"] {
            let error = Version::serving(bad).unwrap_err();
            assert!(error.chain().contains(&format!("Firecracker '{bad}' is ")), "{error}");
            assert!(error.hint_text().unwrap().contains("firecracker/releases"));
        }
        assert_eq!(version("1.8").to_string(), "1.8.0");
    }

    #[test]
    fn a_pause_is_refused_where_it_loses_the_guest() {
        for good in ["1.12.1", "1.14.4", "1.15.1", "1.16.2", "1.17.0-dev", "1.17.0"] {
            assert!(version(good).require_pause().is_ok(), "{good}");
        }
        for bad in ["1.16.0", "1.16.1", "1.16.0-dev"] {
            let error = version(bad).require_pause().unwrap_err();
            assert_eq!(error.kind(), banger_doc::Kind::Unavailable);
            assert!(error.chain().contains(bad.trim_end_matches("-dev")), "{error}");
            assert!(error.chain().contains("cannot be reached any more"), "{error}");
            assert!(error.hint_text().unwrap().contains("1.15.1"));
        }
    }

    #[test]
    fn free_memory_comes_back_from_1_14_on() {
        for (text, does) in [("1.12.1", false), ("1.13.9", false), ("1.14.0", true)] {
            assert_eq!(version(text).reports_free_pages(), does, "{text}");
        }
    }

    #[test]
    fn the_page_tells_of_each_fault() {
        let page = include_str!("../../../docs/install.md");
        for fault in FAULTS {
            assert!(page.contains(fault.what), "docs/install.md does not say: {}", fault.what);
            assert!(page.contains(fault.better), "docs/install.md does not say: {}", fault.better);
            assert!(fault.versions.iter().all(|(first, last)| first <= last));
        }
    }
}
