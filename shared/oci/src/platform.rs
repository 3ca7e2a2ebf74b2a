//! Which of the machines an image is made for is ours.

use banger_doc::{Error, Result};
use std::{fmt, str::FromStr};

/// An operating system and a processor, in the OCI image specification's words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64` ...
    pub architecture: String,
    /// `v7`, `v8` ...; empty if none is named.
    pub variant: String,
}

impl Platform {
    /// Returns the platform of this host.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self::new("linux", architecture, "")
    }

    /// Makes a platform. Other names that builders have for a processor are understood; the variant
    /// that every processor of the kind has is left out, so that `arm64` and `arm64/v8` are one.
    pub(crate) fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let lower = [os, architecture, variant].map(str::to_ascii_lowercase);
        let [os, architecture, variant] = lower.each_ref().map(String::as_str);
        let (architecture, variant) = match (architecture, variant) {
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64", variant) => ("arm64", variant),
            ("i386", variant) => ("386", variant),
            ("armhf", "") => ("arm", "v7"),
            ("armel", "") => ("arm", "v6"),
            ("armhf" | "armel", variant) => ("arm", variant),
            other => other,
        };
        let variant = match (architecture, variant) {
            ("arm64", "v8" | "8") | ("amd64", "v1") => "",
            ("arm", "" | "7") => "v7",
            ("arm", "6") => "v6",
            ("arm", "5") => "v5",
            (_, variant) => variant,
        };
        Self { os: os.into(), architecture: architecture.into(), variant: variant.into() }
    }

    /// Returns the platform that somebody names, with what is not named taken from `or`.
    pub(crate) fn named(os: &str, architecture: &str, variant: &str, or: &Self) -> Self {
        let os = if os.is_empty() { &or.os } else { os };
        let architecture = if architecture.is_empty() { &or.architecture } else { architecture };
        let own = Self::new(os, architecture, variant);
        // Docker leaves the variant out of configurations and names it in the index. Some names of
        // a processor have one in them.
        let says_none = !["armhf", "armel"].contains(&architecture.to_ascii_lowercase().as_str());
        if variant.is_empty() && says_none && own.architecture == or.architecture {
            Self { variant: or.variant.clone(), ..own }
        } else {
            own
        }
    }

    /// Says how well something made for `other` runs here: smaller is better, `None` not at all.
    pub(crate) fn distance(&self, other: &Self) -> Option<usize> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        if self.variant == other.variant {
            return Some(0);
        }
        // A newer processor runs what was made for an older one of its family.
        let level = |variant: &str| match variant {
            "" => Some(1),
            text => text.strip_prefix('v')?.parse::<usize>().ok(),
        };
        level(&self.variant)?.checked_sub(level(&other.variant)?)
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let ok = |part: &&str| {
            !part.is_empty()
                && part.len() <= 32
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        match parts.as_slice() {
            _ if !parts.iter().all(ok) => {}
            [architecture] if *architecture != "linux" => {
                return Ok(Self::new("linux", architecture, ""));
            }
            ["linux", architecture] => return Ok(Self::new("linux", architecture, "")),
            ["linux", architecture, variant] => {
                return Ok(Self::new("linux", architecture, variant));
            }
            _ => {}
        }
        Err(Error::usage(format!(
            "'{}' is not a platform a VM can run",
            crate::digest::shown(text)
        ))
        .hint("write it as 'linux/amd64' or 'linux/arm64/v8'"))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_taken_from_the_other() {
        let v6 = Platform::new("linux", "arm", "v6");
        let named = |os: &str, architecture: &str, variant: &str| {
            Platform::named(os, architecture, variant, &v6).to_string()
        };
        assert_eq!(named("", "", ""), "linux/arm/v6");
        assert_eq!(named("linux", "arm", ""), "linux/arm/v6");
        assert_eq!(named("linux", "arm", "v7"), "linux/arm/v7");
        assert_eq!(named("Linux", "x86_64", ""), "linux/amd64");
        assert_eq!(named("", "aarch64", "v8"), "linux/arm64");
        assert_eq!(named("windows", "", ""), "windows/arm/v6");
        assert_eq!(Platform::new("linux", "armhf", "").to_string(), "linux/arm/v7");
        // As containerd has them.
        for or in ["arm/v5", "arm/v6", "arm/v7", "arm64", "amd64"] {
            let or: Platform = format!("linux/{or}").parse().unwrap();
            let named = |architecture: &str, variant: &str| {
                Platform::named("", architecture, variant, &or).to_string()
            };
            assert_eq!(named("armhf", ""), "linux/arm/v7");
            assert_eq!(named("ARMHF", "v7"), "linux/arm/v7");
            assert_eq!(named("armel", ""), "linux/arm/v6");
            assert_eq!(named("armel", "5"), "linux/arm/v5");
            assert_eq!(named("armhf", "v6"), "linux/arm/v6");
        }
    }

    #[test]
    fn platforms_are_read_and_compared() {
        let arm64: Platform = "linux/arm64/v8".parse().unwrap();
        assert_eq!(arm64, "arm64".parse().unwrap());
        assert_eq!(arm64.to_string(), "linux/arm64");
        let v7: Platform = "arm".parse().unwrap();
        assert_eq!(v7.distance(&Platform::new("linux", "arm", "v6")), Some(1));
        assert_eq!(v7.distance(&Platform::new("linux", "arm", "v8")), None);
        assert_eq!(v7.distance(&Platform::new("linux", "arm64", "")), None);
        let amd64: Platform = "linux/amd64".parse().unwrap();
        assert_eq!(amd64.distance(&Platform::new("linux", "amd64", "v1")), Some(0));
        assert_eq!(amd64.distance(&Platform::new("linux", "amd64", "v3")), None);
        assert_eq!(amd64.distance(&Platform::new("windows", "amd64", "")), None);
        for bad in ["", "linux", "windows/amd64", "linux/", "linux/amd64/v1/x", "Linux/amd64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
