//! Names and values as git has them: which are allowed, how they are written.

use std::{fmt::Write as _, path::Path};

/// Says whether `name` is one that git-check-ref-format(1) allows below `refs/`.
pub(crate) fn is_ref_name(name: &str) -> bool {
    name.starts_with("refs/")
        && name.len() < 1024
        && !name.contains("..")
        && !name.contains("@{")
        && !name.bytes().any(|b| b < 0x20 || b == 0x7f || b" ~^:?*[\\".contains(&b))
        && name.split('/').count() >= 2
        && name.split('/').all(|part| {
            let ends_badly = Path::new(part).extension().is_some_and(|end| end == "lock");
            !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && !ends_badly
        })
}

/// Returns the name of the remote that a setting is the address of.
pub(crate) fn remote_of(key: &str) -> Option<&str> {
    key.strip_prefix("remote.")?.strip_suffix(".url")
}

/// Writes a value for a file of settings.
pub(crate) fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\0' => {}
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// Takes user and password out of an address; ssh keeps its user, which is no secret and without
/// which it does not work.
pub(crate) fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // A query or a fragment serves nothing but a token.
    let rest =
        &rest[..rest.find(['?', '#']).filter(|_| !scheme.ends_with("file")).unwrap_or(rest.len())];
    let (mut host, mut path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // A password may have a slash that nobody escaped.
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if !host.contains(['@', '[']) && host.split_once(':').is_some_and(|(_, port)| !is_port(port)) {
        let end = rest.rfind('@').unwrap_or(host.len());
        (host, path) = rest.split_at(end + rest[end..].find('/').unwrap_or(rest.len() - end));
    }
    let Some((login, host)) = host.rsplit_once('@') else {
        return format!("{scheme}://{host}{path}");
    };
    let user = login.split(':').next().unwrap_or_default();
    if scheme.contains("ssh") && !user.is_empty() {
        format!("{scheme}://{user}@{host}{path}")
    } else {
        format!("{scheme}://{host}{path}")
    }
}

/// Writes a digest or an object's name.
pub(crate) fn hex(sum: &[u8]) -> String {
    sum.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_secrets() {
        for (url, plain) in [
            ("https://me:token@host/x.git", "https://host/x.git"),
            ("https://token@host:8443/x@y", "https://host:8443/x@y"),
            ("ssh://git:pw@host/x", "ssh://git@host/x"),
            ("git@host:me/x.git", "git@host:me/x.git"),
            ("/srv/x.git", "/srv/x.git"),
            ("https://h/x.git?private_token=S", "https://h/x.git"),
            ("https://me:pw@h/x.git?a=S#S", "https://h/x.git"),
            ("https://h?token=S", "https://h"),
            ("file:///srv/a?b#c", "file:///srv/a?b#c"),
            ("https://host/x@y", "https://host/x@y"),
            ("https://me:p/w@host/x", "https://host/x"),
            ("https://host:8443/x/y@z", "https://host:8443/x/y@z"),
            ("https://[::1]:8443/x@y", "https://[::1]:8443/x@y"),
            ("HTTPS://token@host/x", "HTTPS://host/x"),
            ("git+ssh://git:pw@host/x", "git+ssh://git@host/x"),
            ("helper::https://me:pw@host/x", "helper::https://host/x"),
        ] {
            assert_eq!(without_secrets(url), plain);
        }
    }
}
