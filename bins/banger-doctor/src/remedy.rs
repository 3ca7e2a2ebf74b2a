//! Commands that install a program, by distribution.

use std::fs;

/// A host tool and the package it is in, by package manager.
pub(crate) struct Package {
    apt: &'static str,
    dnf: &'static str,
    pacman: &'static str,
    zypper: &'static str,
    apk: &'static str,
}

/// QEMU's system emulator for this processor.
pub(crate) const QEMU: Package = Package {
    apt: if cfg!(target_arch = "aarch64") { "qemu-system-arm" } else { "qemu-system-x86" },
    dnf: "qemu-kvm",
    pacman: "qemu-base",
    zypper: "qemu",
    apk: if cfg!(target_arch = "aarch64") { "qemu-system-aarch64" } else { "qemu-system-x86_64" },
};
/// `e2fsck`.
pub(crate) const E2FSPROGS: Package = same("e2fsprogs");
/// `pasta`.
pub(crate) const PASST: Package = same("passt");
/// `nft`.
pub(crate) const NFTABLES: Package = same("nftables");
/// `git`.
pub(crate) const GIT: Package = same("git");
/// The ssh client.
pub(crate) const SSH: Package = Package {
    apt: "openssh-client",
    dnf: "openssh-clients",
    pacman: "openssh",
    zypper: "openssh-clients",
    apk: "openssh-client",
};
/// Makes the default image.
pub(crate) const MMDEBSTRAP: Package = same("mmdebstrap");
/// What it runs.
pub(crate) const APT: Package = same("apt");
/// The keys of Debian's packages.
pub(crate) const DEBIAN_KEYS: Package =
    Package { dnf: "debian-keyring", ..same("debian-archive-keyring") };
/// `unshare`.
pub(crate) const UTIL_LINUX: Package = same("util-linux");
/// `newuidmap` and `newgidmap`.
pub(crate) const UIDMAP: Package = Package {
    apt: "uidmap",
    dnf: "shadow-utils",
    pacman: "shadow",
    zypper: "shadow",
    apk: "shadow-uidmap",
};

const fn same(name: &'static str) -> Package {
    Package { apt: name, dnf: name, pacman: name, zypper: name, apk: name }
}

/// Returns a value of os-release(5).
fn release(key: &str) -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

/// Says whether this host is Debian itself, whose packages it trusts.
pub(crate) fn is_debian() -> bool {
    release("ID") == "debian"
}

/// Returns the command that installs a package on this distribution.
pub(crate) fn install(package: &Package) -> String {
    for id in format!("{} {}", release("ID"), release("ID_LIKE")).split_whitespace() {
        return match id {
            "debian" | "ubuntu" => format!("sudo apt-get install {}", package.apt),
            "fedora" | "rhel" | "centos" => format!("sudo dnf install {}", package.dnf),
            "arch" => format!("sudo pacman -S {}", package.pacman),
            "suse" | "opensuse" | "opensuse-tumbleweed" => {
                format!("sudo zypper install {}", package.zypper)
            }
            "alpine" => format!("sudo apk add {}", package.apk),
            _ => continue,
        };
    }
    format!("install the package '{}' with your distribution's package manager", package.apt)
}
