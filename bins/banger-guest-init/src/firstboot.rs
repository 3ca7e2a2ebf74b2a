//! The ssh server of a guest. One that is there is started where the init does not; one that is not is
//! installed by the image's own package manager when somebody first asks for it, so that nobody else's
//! packages are in its way. Nothing else waits for it, and without it all but ssh works.

use crate::say;
use banger_doc::{Context, Document, Guest, Result};
use banger_guest::{mark, place};
use std::{
    fs::{self, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What this process is called.
pub(crate) const NAME: &str = place::SSH_TASK;
/// Keys that packages make, and that nobody is shown: the server is told to show banger's alone.
const OTHER_KEYS: &[&str] = &["rsa", "ecdsa", "dsa"];
/// Where they are.
const KEYS: &str = "/etc/ssh";
/// What the package manager says.
const LOG: &str = "/run/banger/first-boot.log";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SERVERS: &[&str] = &["/usr/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd", "/usr/local/sbin/sshd"];
/// How long the image's init may take to come up before the packages are touched.
const SETTLE: Duration = Duration::from_mins(2);
/// How long one command may take.
const COMMAND: Duration = Duration::from_mins(10);
/// How often a command is tried: the network may need a moment.
const TRIES: u32 = 3;
/// How long an init other than systemd may take to start a server that is there.
const OWN_START: Duration = Duration::from_secs(10);
/// A longer file tells nothing of a distribution.
const MAX_FILE: u64 = 64 << 10;

/// A package manager: whose it is, and how it installs an ssh server.
struct Manager {
    distributions: &'static [&'static str],
    commands: &'static [&'static [&'static str]],
}

const MANAGERS: &[Manager] = &[
    Manager {
        distributions: &["debian", "ubuntu"],
        commands: &[
            &["apt-get", "-q", "update"],
            &["apt-get", "-q", "install", "-y", "--no-install-recommends", "openssh-server"],
        ],
    },
    Manager { distributions: &["alpine"], commands: &[&["apk", "add", "--no-cache", "openssh"]] },
    Manager {
        distributions: &["fedora", "rhel", "centos"],
        commands: &[&["dnf", "install", "-y", "openssh-server"]],
    },
    Manager {
        distributions: &["fedora", "rhel", "centos"],
        commands: &[&["microdnf", "install", "-y", "openssh-server"]],
    },
    Manager {
        distributions: &["fedora", "rhel", "centos"],
        commands: &[&["yum", "install", "-y", "openssh-server"]],
    },
    Manager {
        distributions: &["arch"],
        commands: &[&["pacman", "-Sy", "--noconfirm", "--needed", "openssh"]],
    },
    Manager {
        distributions: &["opensuse", "suse", "sles"],
        commands: &[&["zypper", "--non-interactive", "install", "--no-recommends", "openssh"]],
    },
];

/// Starts the task, for a guest that somebody has a key for.
pub(crate) fn start(guest: &Guest) -> Result<()> {
    if guest.authorized_keys.is_empty() {
        return Ok(());
    }
    let mut command = Command::new(place::INIT);
    command.arg0(NAME).env_clear().stdin(Stdio::null());
    command.spawn().map(drop).context("cannot start the task of the first boot")
}

/// Is the task; `asked` if somebody wants the server now, and not only if it is there.
pub(crate) fn run(asked: bool) {
    let _ = nix::unistd::setsid();
    let Ok(bytes) = fs::read(place::DOCUMENT) else { return };
    let Ok(guest) = Guest::from_slice(&bytes) else { return };
    let kind = init_kind();
    if server().is_some() {
        drop(SparedKeys::left(Path::new(KEYS)));
        // What systemd starts is the image's own affair.
        if kind != "systemd" && !wait_until(OWN_START, listens) {
            begin(&kind);
        }
        return;
    }
    if !asked {
        return;
    }
    if guest.interfaces.is_empty() {
        return say::console("no ssh server in the image, and no network to install one");
    }
    let release = text_of("/etc/os-release").or_else(|| text_of("/usr/lib/os-release"));
    let names = distributions(&release.unwrap_or_default());
    let Some(manager) = manager(&names, |program| find(program).is_some()) else {
        return say::console(
            "no ssh server in the image, and no package manager that banger knows: 'banger vm ssh' \
             will not work, 'banger vm exec' does",
        );
    };
    // How the boot went does not matter here; that nothing empties `/tmp` any more does.
    wait_until(SETTLE, || mark::get().is_over());
    let _spared = SparedKeys::new(Path::new(KEYS));
    say::console(&format!("installing an ssh server with '{}'", manager.commands[0][0]));
    for command in manager.commands {
        if !persist(command) {
            return say::console(&format!(
                "cannot install an ssh server: '{}' failed; '{LOG}' has its words, 'banger vm exec' \
                 works without",
                command.join(" ")
            ));
        }
    }
    if !wait_until(Duration::from_secs(2), listens) {
        begin(&kind);
    }
    say::console("the ssh server is installed");
}

/// Empty files in the place of keys that packages would make, which takes minutes in an emulated guest;
/// they go with the value.
struct SparedKeys(Vec<PathBuf>);

impl SparedKeys {
    fn new(dir: &Path) -> Self {
        let mut spared = Self::left(dir);
        for path in Self::paths(dir).filter(|_| dir.join("ssh_host_ed25519_key").is_file()) {
            if OpenOptions::new().write(true).create_new(true).open(&path).is_ok() {
                spared.0.push(path);
            }
        }
        spared
    }

    /// Finds those that a guest that was killed meanwhile has left: an empty file is nobody's key.
    fn left(dir: &Path) -> Self {
        let is_empty = |path: &PathBuf| {
            fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == 0)
        };
        Self(Self::paths(dir).filter(is_empty).collect())
    }

    fn paths(dir: &Path) -> impl Iterator<Item = PathBuf> {
        OTHER_KEYS.iter().map(move |kind| dir.join(format!("ssh_host_{kind}_key")))
    }
}

impl Drop for SparedKeys {
    fn drop(&mut self) {
        for path in &self.0 {
            if fs::metadata(path).is_ok_and(|meta| meta.len() == 0) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Runs a command until it succeeds.
fn persist(words: &[&str]) -> bool {
    (0..TRIES).any(|turn| {
        thread::sleep(Duration::from_secs(u64::from(turn) * 5));
        attempt(words, COMMAND)
    })
}

/// Starts the server that is there now, by whatever starts services here.
fn begin(kind: &str) {
    let by_service = match kind {
        "systemd" => ["ssh.service", "sshd.service"]
            .iter()
            .any(|unit| attempt(&["systemctl", "enable", "--now", unit], SETTLE)),
        "openrc" => {
            attempt(&["rc-update", "add", "sshd", "default"], SETTLE);
            attempt(&["rc-service", "sshd", "start"], SETTLE)
        }
        _ => false,
    };
    if by_service || listens() {
        return;
    }
    // Where it may give up its rights (sshd(8)).
    let _ = fs::create_dir_all("/run/sshd");
    if let Some(server) = server() {
        attempt(&[server], Duration::from_secs(30));
    }
}

/// Runs a command, bounded, its output added to the log.
fn attempt(words: &[&str], limit: Duration) -> bool {
    let Some(program) = find(words[0]) else { return false };
    let output = || {
        let log = OpenOptions::new().create(true).append(true).open(LOG);
        log.map_or_else(|_| Stdio::null(), Stdio::from)
    };
    let mut command = Command::new(program);
    command.args(&words[1..]).env_clear().stdin(Stdio::null()).stdout(output()).stderr(output());
    command.env("PATH", PATH).env("HOME", "/root").env("LC_ALL", "C.UTF-8");
    command.env("DEBIAN_FRONTEND", "noninteractive").current_dir("/");
    let Ok(mut child) = command.spawn() else { return false };
    let mut status = None;
    let ended = wait_until(limit, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
    }
    status.is_some_and(|status| status.success())
}

fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !done() {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(100));
    }
    true
}

/// Returns what sort of init runs the guest, once that is decided.
fn init_kind() -> String {
    let mut kind = String::new();
    wait_until(Duration::from_secs(10), || {
        kind = fs::read_to_string(place::INIT_KIND).unwrap_or_default();
        !kind.is_empty()
    });
    kind
}

fn server() -> Option<&'static str> {
    SERVERS.iter().copied().find(|path| Path::new(path).is_file())
}

fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Some(program.into());
    }
    PATH.split(':').map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
}

/// Says whether anybody listens on port 22 (proc(5), `/proc/net/tcp`).
fn listens() -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .any(|path| on_port_22(&fs::read_to_string(path).unwrap_or_default()))
}

fn on_port_22(table: &str) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        local.ends_with(":0016") && fields.nth(1) == Some("0A")
    })
}

fn text_of(path: &str) -> Option<String> {
    let bytes = banger_guest::read_file(Path::new(path), MAX_FILE).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads what an image is and what it is like (os-release(5)), nearest first.
fn distributions(release: &str) -> Vec<String> {
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_lowercase()
    };
    let names = format!("{} {}", value("ID"), value("ID_LIKE"));
    names.split_whitespace().map(String::from).collect()
}

fn manager(names: &[String], has: impl Fn(&str) -> bool) -> Option<&'static Manager> {
    names.iter().find_map(|name| {
        MANAGERS.iter().find(|manager| {
            // `opensuse-leap` and its like are one family.
            let family = name.split('-').next().unwrap_or_default();
            manager.distributions.iter().any(|known| known == name || *known == family)
                && has(manager.commands[0][0])
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(release: &str, programs: &[&str]) -> Option<&'static str> {
        manager(&distributions(release), |program| programs.contains(&program))
            .map(|manager| manager.commands[0][0])
    }

    #[test]
    fn the_package_manager_is_the_distributions_or_its_parents() {
        assert_eq!(chosen("ID=debian\n", &["apt-get"]), Some("apt-get"));
        assert_eq!(
            chosen("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", &["apt-get"]),
            Some("apt-get")
        );
        assert_eq!(chosen("NAME=x\nID='alpine'\n", &["apk"]), Some("apk"));
        assert_eq!(
            chosen("ID=rocky\nID_LIKE=\"rhel centos fedora\"\n", &["microdnf"]),
            Some("microdnf")
        );
        assert_eq!(chosen("ID=fedora\n", &["dnf", "yum"]), Some("dnf"));
        assert_eq!(chosen("ID=\"opensuse-leap\"\n", &["zypper"]), Some("zypper"));
        assert_eq!(chosen("ID=arch\n", &["pacman"]), Some("pacman"));
        assert_eq!(chosen("ID=debian\n", &[]), None);
        assert_eq!(chosen("ID=nixos\n", &["apt-get"]), None);
        assert_eq!(chosen("", &["apt-get"]), None);
    }

    #[test]
    fn keys_beside_bangers_own_are_spared_and_those_that_are_there_stay() {
        let dir = tempfile::tempdir().unwrap();
        drop(SparedKeys::new(dir.path()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(dir.path().join("ssh_host_ed25519_key"), "key").unwrap();
        assert!(SparedKeys::new(dir.path()).0.len() == OTHER_KEYS.len());
        fs::write(dir.path().join("ssh_host_rsa_key"), "the image's").unwrap();
        let spared = SparedKeys::new(dir.path());
        assert!(dir.path().join("ssh_host_ecdsa_key").exists());
        drop(spared);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(fs::read(dir.path().join("ssh_host_rsa_key")).unwrap(), b"the image's");
        // Those of a guest that was killed go the next time.
        std::mem::forget(SparedKeys::new(dir.path()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
        drop(SparedKeys::new(dir.path()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_listener_is_told_from_a_connection() {
        let head = "  sl  local_address rem_address   st\n";
        assert!(on_port_22(&format!("{head}   0: 00000000:0016 00000000:0000 0A 0\n")));
        assert!(!on_port_22(&format!("{head}   0: 0100007F:0016 0100007F:9999 01 0\n")));
        assert!(!on_port_22(&format!("{head}   0: 00000000:1600 00000000:0000 0A 0\n")));
        assert!(!on_port_22(head));
    }
}
