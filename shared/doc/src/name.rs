//! Names of VMs, images and kernels.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A name that is safe as a folder: 1 to 63 of `a-z`, `0-9` and `-`, with single `.` inside as in
/// `generic-6.12`, neither first nor last a `-` or a `.`.
///
/// Parsed once, at the edge; only this type becomes a path.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The most bytes a name has.
    pub const MAX: usize = 63;

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether the name is a host name too, one DNS label (RFC 1035, section 2.3.1): has no `.`.
    pub fn is_label(&self) -> bool {
        !self.0.contains('.')
    }

    /// Makes the nearest valid name out of any text, for example `debian-bookworm` out of
    /// `debian:bookworm`; `None` if no letter or digit is in it.
    pub fn from_lossy(text: &str) -> Option<Self> {
        let mut name = String::new();
        for c in text.chars().flat_map(char::to_lowercase) {
            let c = if c.is_ascii_alphanumeric() { c } else { '-' };
            if !(c == '-' && (name.is_empty() || name.ends_with('-'))) {
                name.push(c);
            }
        }
        name.truncate(Self::MAX);
        name.trim_end_matches('-').parse().ok()
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let ok = (1..=Self::MAX).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
            && !text.contains("..")
            && !text.starts_with(['-', '.'])
            && !text.ends_with(['-', '.']);
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::usage(format!(
                "'{}' is not a name: use 1 to 63 of a-z, 0-9, '-' and single '.', neither at an end",
                text.escape_debug().take(100).collect::<String>()
            )))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_are_names() {
        for good in ["a", "web", "a-b", "0", "generic-6.12", &"a".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a..b",
            ".a",
            "a.",
            "../x",
            "a/b",
            "ä",
            "a\n",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_label_has_no_dot() {
        assert!("web".parse::<Name>().unwrap().is_label());
        assert!(!"generic-6.12".parse::<Name>().unwrap().is_label());
    }

    #[test]
    fn any_text_has_a_nearest_name() {
        assert_eq!(Name::from_lossy("debian:bookworm").unwrap().as_str(), "debian-bookworm");
        assert_eq!(Name::from_lossy("--My Repo!!").unwrap().as_str(), "my-repo");
        assert!(Name::from_lossy("::").is_none());
        assert_eq!(Name::from_lossy(&"a:".repeat(99)).unwrap().as_str().len(), 63);
    }
}
