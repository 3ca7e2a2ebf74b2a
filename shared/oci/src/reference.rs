//! What people write to name an image in a registry.

use crate::digest::{Digest, shown};
use banger_doc::{Error, Name, Result};
use std::{fmt, net::Ipv6Addr, str::FromStr};

/// The registry of references that name none.
const DEFAULT_REGISTRY: &str = "docker.io";

/// The name of an image in a registry: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]` (the grammar of the
/// distribution project's `reference` package).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns the registry, `host` or `host:port`, as it was named.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the path below the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns where a mirror, `host[:port][/path]`, keeps the same image; `None` if it is no
    /// address.
    pub(crate) fn at(&self, mirror: &str) -> Option<Self> {
        let (host, path) = mirror.split_once('/').unwrap_or((mirror, ""));
        let repository = if path.is_empty() {
            self.repository.clone()
        } else {
            format!("{path}/{}", self.repository)
        };
        (is_registry(host) && repository.split('/').all(is_component)).then(|| Self {
            registry: host.to_ascii_lowercase(),
            repository,
            ..self.clone()
        })
    }

    /// Returns the digest, if the reference is pinned to one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns what stands for the image in a request: the digest, else the tag.
    pub fn identifier(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// Returns the name the image gets here unless another is asked for: the last part of its path
    /// and its tag, or the beginning of its digest; the tag `latest` is left out.
    pub fn default_name(&self) -> Option<Name> {
        let last = self.repository.rsplit('/').next().unwrap_or_default();
        match (&self.tag, &self.digest) {
            (Some(tag), _) if tag != "latest" => Name::from_lossy(&format!("{last}-{tag}")),
            (None, Some(digest)) => Name::from_lossy(&format!("{last}-{}", digest.short())),
            _ => Name::from_lossy(last),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::usage(format!("'{}' is not an image reference: {why}", shown(text)))
                .hint("write it as 'debian:bookworm' or 'registry.example/team/app:1.2'")
        };
        if text.len() > 1024 {
            return Err(wrong("it is longer than 1024 bytes"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|error: Error| wrong(&error.to_string()))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before a slash belongs to the port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("its tag is not 1 to 128 of A-Z, a-z, 0-9, '_', '.' and '-'"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path))
                if first.contains(['.', ':', '[']) || first == "localhost" || has_upper(first) =>
            {
                (first, path)
            }
            _ => (DEFAULT_REGISTRY, name),
        };
        if !is_registry(registry) {
            return Err(wrong("its registry is not 'host' or 'host:port'"));
        }
        let registry = match registry.to_ascii_lowercase() {
            host if host == "index.docker.io" || host == "registry-1.docker.io" => {
                DEFAULT_REGISTRY.to_owned()
            }
            // Only its capitals tell this host from a path, so it keeps them.
            host if !host.contains(['.', ':', '[']) && host != "localhost" => registry.to_owned(),
            host => host,
        };
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if has_upper(&repository) {
            return Err(wrong("its path has upper-case letters"));
        }
        if repository.len() > 255 || !repository.split('/').all(is_component) {
            return Err(wrong(
                "its path is not made of a-z and 0-9, joined by '.', '_', '__', '-' and '/'",
            ));
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry, repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

fn has_upper(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && !tag.starts_with(['.', '-'])
}

/// One part of a path: runs of letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(part: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| word(*byte));
    let bytes = part.as_bytes();
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| word(*byte) || b"._-".contains(byte))
        && part
            .split(|c: char| c.is_ascii_alphanumeric())
            .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_ok = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let host_ok = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            host.len() <= 253
                && host.split('.').all(|label| {
                    (1..=63).contains(&label.len())
                        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                })
        }
    };
    port_ok && host_ok
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_references_are_completed() {
        for (short, full, name) in [
            ("debian", "docker.io/library/debian:latest", "debian"),
            ("debian:bookworm", "docker.io/library/debian:bookworm", "debian-bookworm"),
            ("a/b", "docker.io/a/b:latest", "b"),
            ("index.docker.io/debian", "docker.io/library/debian:latest", "debian"),
            ("localhost/x", "localhost/x:latest", "x"),
            ("127.0.0.1:5000/x/y__z:1.0", "127.0.0.1:5000/x/y__z:1.0", "y-z-1-0"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "x"),
            ("Host.Example/x", "host.example/x:latest", "x"),
        ] {
            let reference: Reference = short.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.default_name().unwrap().as_str(), name);
        }
        let digest = Digest::of(b"");
        let pinned: Reference = format!("debian@{digest}").parse().unwrap();
        assert_eq!(pinned.identifier(), digest.to_string());
        assert_eq!(pinned.default_name().unwrap().as_str(), "debian-e3b0c44298fc");
        let both: Reference = format!("debian:12@{digest}").parse().unwrap();
        assert_eq!(both.identifier(), digest.to_string());
        assert_eq!(both.default_name().unwrap().as_str(), "debian-12");
    }

    #[test]
    fn a_host_that_only_its_capitals_tell_apart_keeps_them() {
        let reference: Reference = "a50S0/xl".parse().unwrap();
        assert_eq!(reference.to_string(), "a50S0/xl:latest");
        assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        assert_eq!("Ghcr.IO/a/b".parse::<Reference>().unwrap().to_string(), "ghcr.io/a/b:latest");
    }

    #[test]
    fn what_is_no_reference_is_refused_as_usage() {
        for bad in [
            "",
            " ",
            "Debian",
            "a//b",
            "/a",
            "a/",
            "../x",
            "a/../b",
            "a%2fb",
            "a:",
            "a:b:c",
            "a:-x",
            "a@sha256:1234",
            "a@",
            "@",
            "a b",
            "a\n",
            "a___b",
            "a..b",
            "-a",
            "host:0/x",
            "host:99999/x",
            "host:+5/x",
            "user@host/x",
            "[::g]/x",
            "http://host/x",
            &"a/".repeat(600),
            &"a".repeat(300),
            &format!("a:{}", "t".repeat(129)),
        ] {
            let error = bad.parse::<Reference>().expect_err(bad);
            assert_eq!(error.kind(), banger_doc::Kind::Usage, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_what_is_parsed_comes_back(text in "\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }

        #[test]
        fn made_references_come_back(
            host in "[a-z][a-z0-9]{0,8}\\.[a-z]{2,5}(:[1-9][0-9]{0,3})?/",
            path in "[a-z0-9]{1,9}((_|__|\\.|-{1,3})[a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,9}){0,3}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?",
        ) {
            let reference: Reference = format!("{host}{path}{tag}").parse().unwrap();
            let full = reference.to_string();
            prop_assert_eq!(full.parse::<Reference>().unwrap(), reference);
        }
    }
}
