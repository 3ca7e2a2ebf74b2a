//! What ssh is told of VMs (ssh_config(5)).

use crate::user_key;
use banger_state::State;
use std::path::{Path, PathBuf};

/// Terminals that every distribution knows, as a pattern of the shell: ssh tells a guest the name of the
/// user's before anybody can ask what it knows.
pub const KNOWN_TERMINALS: &str = "ansi|dumb|linux|rxvt|rxvt-unicode|rxvt-unicode-256color|screen|\
screen-256color|tmux|tmux-256color|vt[0-9]*|xterm|xterm-256color|xterm-color|xterm-mono";
/// What another terminal is called in a guest.
pub const STAND_IN: &str = "xterm-256color";

/// Says whether every distribution knows a terminal.
pub fn is_known_terminal(name: &str) -> bool {
    let numbered = |rest: &str| rest.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    name.is_empty()
        || name.strip_prefix("vt").is_some_and(numbered)
        || KNOWN_TERMINALS.split('|').any(|known| known == name && !known.contains('['))
}

/// The programs ssh runs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `banger-ssh-proxy`.
    pub proxy: PathBuf,
    /// Where the state lies, if the environment has to tell them.
    pub state: Option<PathBuf>,
}

/// What is said of VMs beside [`ssh_words`] where a user's own configuration is read too: what stands
/// there for all hosts leads elsewhere, asks for what no VM has, or gives banger's key away. The first
/// value that ssh meets counts.
pub const FIRMLY: &[(&str, &str)] = &[
    ("HostName", "%h"),
    ("Port", "22"),
    ("CanonicalizeHostname", "no"),
    ("ProxyUseFdpass", "no"),
    // The proxy waits for a server that is still to come up, and ends by itself.
    ("ConnectTimeout", "120"),
    ("ControlMaster", "no"),
    ("ControlPath", "none"),
    ("RemoteCommand", "none"),
    ("RequestTTY", "auto"),
    ("ExitOnForwardFailure", "no"),
    ("PubkeyAuthentication", "yes"),
    ("PubkeyAcceptedAlgorithms", "ssh-ed25519"),
    ("PKCS11Provider", "none"),
    ("AddKeysToAgent", "no"),
    ("VerifyHostKeyDNS", "no"),
    // A guest is hostile: it gets neither the user's keys by an agent nor the screen by X11, nor the
    // tickets of Kerberos, and nothing runs on the host at its logins.
    ("ForwardAgent", "no"),
    ("ForwardX11", "no"),
    ("ForwardX11Trusted", "no"),
    ("GSSAPIDelegateCredentials", "no"),
    ("PermitLocalCommand", "no"),
    ("Tunnel", "no"),
    ("GatewayPorts", "no"),
];

/// The names of VMs where ssh matches names of hosts. None has a quote in it: an ssh that lets one
/// through would give the shell of the proxy's command another word (CVE-2023-51385).
pub const PATTERN: &str = "*.vm !*\\'*";

/// Returns options of ssh for hosts whose name is a VM's with [`crate::SUFFIX`]: only banger's key is
/// shown, only the VM's own host key is taken, and the channel is the way.
pub fn ssh_words(state: &State, programs: &Programs) -> Vec<(&'static str, String)> {
    let proxy = shell_quoted(&programs.proxy);
    let (shell, plain) = match &programs.state {
        Some(dir) => (
            format!("env BANGER_STATE={} {proxy}", shell_quoted(dir)),
            format!(
                "/usr/bin/env {} {}",
                quoted_with("BANGER_STATE=", dir),
                quoted(&programs.proxy)
            ),
        ),
        None => (proxy, quoted(&programs.proxy)),
    };
    vec![
        ("User", "root".into()),
        ("ProxyCommand", format!("{shell} '%h'")),
        ("IdentityFile", quoted(&user_key(state))),
        ("IdentitiesOnly", "yes".into()),
        ("PreferredAuthentications", "publickey".into()),
        ("HostKeyAlgorithms", "ssh-ed25519".into()),
        ("StrictHostKeyChecking", "yes".into()),
        ("KnownHostsCommand", format!("{plain} --known-host %h")),
        ("UserKnownHostsFile", "none".into()),
        ("GlobalKnownHostsFile", "none".into()),
        ("CheckHostIP", "no".into()),
        ("UpdateHostKeys", "no".into()),
    ]
}

/// A word for ssh's own configuration: in quotes, `%` doubled since ssh replaces what follows it.
fn quoted(path: &Path) -> String {
    quoted_with("", path)
}

fn quoted_with(before: &str, path: &Path) -> String {
    let path = path.to_string_lossy();
    format!("\"{before}{}\"", path.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

/// A word for the shell that ssh runs a proxy command with.
fn shell_quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''").replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_of_every_distribution_are_known() {
        for known in ["", "xterm", "xterm-256color", "screen", "tmux-256color", "vt220", "linux"] {
            assert!(is_known_terminal(known), "{known}");
        }
        for odd in ["xterm-kitty", "xterm-ghostty", "alacritty", "vte", "vt[0-9]*", "xterm|ansi"] {
            assert!(!is_known_terminal(odd), "{odd}");
        }
    }

    #[test]
    fn the_pattern_is_of_names_with_the_suffix() {
        assert_eq!(PATTERN.split(' ').next(), Some(&*format!("*{}", crate::SUFFIX)));
    }

    #[test]
    fn odd_paths_are_quoted_for_whoever_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().join("it's 100%")).unwrap();
        let programs =
            Programs { proxy: "/opt/my bin/proxy".into(), state: Some(state.root().to_owned()) };
        let words = ssh_words(&state, &programs);
        let get = |name: &str| &words.iter().find(|(key, _)| *key == name).unwrap().1;
        assert!(get("IdentityFile").contains("it's 100%%/ssh/id_ed25519\""));
        let proxy = get("ProxyCommand");
        assert!(proxy.contains("it'\\''s 100%%' '/opt/my bin/proxy' '%h'"), "{proxy}");
        let known = get("KnownHostsCommand");
        assert!(known.starts_with("/usr/bin/env \"BANGER_STATE="), "{known}");
        assert!(known.ends_with("\"/opt/my bin/proxy\" --known-host %h"), "{known}");
    }
}
