//! `setup`: brings what the build, the tests and the demonstration need, by package name.

use crate::{
    Result, firecracker,
    run::{self, say},
};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// Debian packages, each with what it is for.
const PACKAGES: &[(&str, &str)] = &[
    ("build-essential", "crates with C in them"),
    ("pkg-config", "finding OpenSSL, which ssh2 links"),
    ("libssl-dev", "ssh2"),
    ("qemu-system-x86", "the machine where KVM is not usable"),
    ("e2fsprogs", "checking disks"),
    ("mmdebstrap", "the default image"),
    ("debian-archive-keyring", "the signatures of its packages"),
    ("openssh-client", "vm ssh"),
    ("passt", "the network of a VM"),
    ("nftables", "the network of a VM"),
    ("iproute2", "the network of a VM"),
    ("git", "workspaces"),
    ("busybox-static", "tests: a small image"),
    ("libarchive-tools", "tests: what bsdtar makes of an archive"),
    ("python3", "tests: what Python makes of an archive"),
    ("docker-registry", "tests: a real registry"),
    ("skopeo", "tests: pushing images"),
    ("rsync", "what workspace prepare is compared with"),
    ("umoci", "tests: making images, and what image pull is compared with"),
    ("libcap2-bin", "tests: file capabilities"),
    ("curl", "tests: asking servers"),
    ("iperf3", "measuring what passes through a network"),
    ("kmod", "tests: what modprobe makes of a disk of modules"),
    ("cpio", "tests: reading an initramfs"),
    ("jq", "tests: pipelines"),
    ("procps", "tests: looking at processes"),
    ("util-linux", "tests: namespaces"),
    ("strace", "tests: faults on purpose"),
    ("tmux", "tests: a real terminal"),
    ("zsh", "tests: completion"),
    ("fish", "tests: completion"),
    ("zstd", "tests: compressed layers"),
    ("python3-pip", "tests: fetching Firecracker"),
    ("unzip", "tests: fetching Firecracker"),
];

pub(crate) fn run() -> Result {
    packages()?;
    firecracker::fetch()
}

fn packages() -> Result {
    let missing: Vec<&str> =
        PACKAGES.iter().map(|(name, _)| *name).filter(|name| !is_installed(name)).collect();
    let no_kernel = Path::new("/usr/bin/apt-cache").exists() && !lists_have_the_kernel();
    if missing.is_empty() && !no_kernel {
        say("== setup: nothing is missing");
        return Ok(());
    }
    let words = missing.join(" ");
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(format!("this is no Debian; install what these packages hold: {words}"));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(format!(
            "packages are missing; as root: apt-get update; apt-get install {words}"
        ));
    }
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args([
            "-y",
            "-q",
            // Another apt may be at work, for example on a machine that has just booted.
            "-o",
            "DPkg::Lock::Timeout=600",
            "-o",
            "Acquire::Retries=3",
        ]);
        apt
    };
    let limit = Duration::from_mins(20);
    let install = |what: &str| {
        run::run(
            what,
            apt().args(["install", "--no-install-recommends"]).args(&missing).stdin(Stdio::null()),
            limit,
        )
    };
    // Lists that are there may do; an update takes its time and may meet a lock.
    if !no_kernel && install(&format!("installing {words}")).is_ok() {
        return Ok(());
    }
    let mut update = Err(String::new());
    for attempt in 0..30 {
        if attempt > 0 {
            std::thread::sleep(Duration::from_secs(10));
        }
        update = run::run("apt-get update", apt().arg("update").stdin(Stdio::null()), limit);
        if update.is_ok() {
            break;
        }
    }
    update?;
    if missing.is_empty() {
        return Ok(());
    }
    install(&format!("installing {words}"))
}

/// The flows boot the distribution's cloud kernel, which lists of a first release do not have.
fn lists_have_the_kernel() -> bool {
    Command::new("apt-cache")
        .args(["search", "--names-only", "^linux-image-6\\.12\\..*-cloud-"])
        .output()
        .is_ok_and(|output| !output.stdout.is_empty())
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}
