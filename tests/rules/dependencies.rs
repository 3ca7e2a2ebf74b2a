//! Who may depend on what (`docs/architecture.md`).

use crate::{none, read, root};
use serde_json::Value;
use std::process::Command;

/// Outside crates and who may name them; `*` at the end stands for any ending. What is not here is
/// for nobody.
const KEEPERS: &[(&str, &[&str])] = &[
    ("base64", &["banger-oci"]),
    ("clap", &["banger-*"]),
    ("crc32c", &["banger-ext4"]),
    ("ext4-view", &["banger-vm-create"]),
    ("flate2", &["banger-kernel", "banger-layer"]),
    ("hashbrown", &["banger-ext4"]),
    ("httparse", &["banger-machine"]),
    ("indicatif", &["banger-image", "banger-stages", "banger-vm-cp"]),
    ("inotify", &["banger-state", "banger-vm-*"]),
    ("landlock", &["banger-jail"]),
    ("liblzma", &["banger-guest", "banger-kernel", "banger-layer"]),
    ("memchr", &["banger-channel"]),
    ("netlink-packet-core", &["banger-net"]),
    ("netlink-packet-route", &["banger-net"]),
    ("netlink-sys", &["banger-net"]),
    ("nix", &["banger-*"]),
    ("oci-spec", &["banger-oci"]),
    ("rusqlite", &["banger-lease"]),
    ("rustls-native-certs", &["banger-oci"]),
    ("serde", &["banger-*"]),
    ("serde_json", &["banger-*"]),
    (
        "sha2",
        &[
            "banger-channel",
            "banger-ext4",
            "banger-kernel",
            "banger-layer",
            "banger-oci",
            "banger-workspace",
        ],
    ),
    ("sha1", &["banger-workspace"]),
    ("signal-hook", &["banger-cli"]),
    ("ssh2", &["banger-vm-ssh"]),
    ("strsim", &["banger", "banger-config", "banger-state"]),
    ("tar", &["banger-channel", "banger-kernel", "banger-oci", "banger-vm-cp", "banger-workspace"]),
    ("tempfile", &["banger-kernel-pull", "banger-oci", "banger-workspace"]),
    ("terminal_size", &["banger-cli"]),
    ("toml", &["banger-config"]),
    ("ureq", &["banger-oci"]),
    ("vsock", &["banger-agent", "banger-channel"]),
    (
        "which",
        &[
            "banger",
            "banger-cli",
            "banger-disks",
            "banger-doctor",
            "banger-image-pull",
            "banger-machine",
            "banger-net",
            "banger-oci",
        ],
    ),
    ("zstd", &["banger-kernel", "banger-layer"]),
];

/// Crates only tests use.
const FOR_TESTS: &[&str] = &["banger-tests", "ext4-view", "proptest", "tempfile"];

/// The most packages of others `Cargo.lock` may name. Each is somebody else's code in a user's
/// machine.
const PACKAGES: usize = 195;

struct Package {
    name: String,
    /// `bins`, `shared` or `tests`.
    folder: String,
    manifest: String,
    /// Name and whether it is for tests alone.
    needs: Vec<(String, bool)>,
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo");
    let data: Value = serde_json::from_slice(&output.stdout).expect("what cargo metadata says");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    data["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let manifest = text(&package["manifest_path"]);
            let inside = manifest.strip_prefix(root().to_str().expect("text")).expect("inside");
            Package {
                name: text(&package["name"]),
                folder: inside.trim_start_matches('/').split('/').next().unwrap_or("").to_owned(),
                needs: package["dependencies"]
                    .as_array()
                    .expect("dependencies")
                    .iter()
                    .map(|need| (text(&need["name"]), need["kind"] == "dev"))
                    .collect(),
                manifest,
            }
        })
        .collect()
}

/// A program whose name somebody else demands: git runs `git-remote-X` for addresses that begin with `X::`. It
/// is one of banger's all the same.
const CALLED_BY_GIT: &str = "git-remote-banger";

fn is_kept(keepers: &[&str], package: &str) -> bool {
    let package = if package == CALLED_BY_GIT { "banger-git-remote" } else { package };
    keepers.iter().any(|keeper| match keeper.strip_suffix('*') {
        Some(start) => package.starts_with(start),
        None => *keeper == package,
    })
}

#[test]
fn outside_crates_have_keepers() {
    let mut complaints = Vec::new();
    for package in packages().iter().filter(|package| package.folder != "tests") {
        for (need, for_tests) in &package.needs {
            if need.starts_with("banger-") || (*for_tests && FOR_TESTS.contains(&need.as_str())) {
                continue;
            }
            let kept = KEEPERS.iter().find(|(name, _)| name == need);
            if !kept.is_some_and(|(_, keepers)| is_kept(keepers, &package.name)) {
                complaints.push(format!("{} may not name {need}", package.name));
            }
        }
    }
    none(complaints);
}

#[test]
fn programs_never_link_programs() {
    let packages = packages();
    let programs: Vec<&str> =
        packages.iter().filter(|p| p.folder == "bins").map(|p| p.name.as_str()).collect();
    let mut complaints = Vec::new();
    for package in &packages {
        for (need, for_tests) in &package.needs {
            if programs.contains(&need.as_str()) {
                complaints.push(format!("{} links the program {need}", package.name));
            }
            if need == "banger-tests" && !for_tests {
                complaints.push(format!("{} links the tests' harness", package.name));
            }
            if package.folder == "tests" && need.starts_with("banger-") && need != "banger-tests" {
                complaints.push(format!("{} links {need}: tests link nothing", package.name));
            }
        }
    }
    none(complaints);
}

#[test]
fn what_is_said_where_it_lies_and_how_to_speak_stay_apart() {
    let allowed: &[(&str, &[&str])] = &[
        ("banger-doc", &["serde", "serde_json"]),
        ("banger-state", &["banger-doc", "banger-tree", "nix", "serde_json", "strsim"]),
        (
            "banger-cli",
            &[
                "banger-doc",
                "banger-tree",
                "clap",
                "nix",
                "serde_json",
                "signal-hook",
                "terminal_size",
                "which",
            ],
        ),
    ];
    let packages = packages();
    let mut complaints = Vec::new();
    for (name, may) in allowed {
        let package = packages.iter().find(|p| p.name == *name).expect("a shared crate");
        for (need, for_tests) in &package.needs {
            if !for_tests && !may.contains(&need.as_str()) {
                complaints.push(format!("{name} depends on {need}"));
            }
        }
    }
    none(complaints);
}

#[test]
fn documents_do_no_input_and_output() {
    let mut complaints = Vec::new();
    for file in crate::names("shared/doc/src") {
        let text = read(format!("shared/doc/src/{file}"));
        for word in ["std::fs", "std::env", "std::process", "TcpStream", "UdpSocket"] {
            if text.contains(word) {
                complaints.push(format!("shared/doc/src/{file} names {word}"));
            }
        }
    }
    none(complaints);
}

#[test]
fn every_manifest_inherits_lints_and_version() {
    let mut complaints = Vec::new();
    for package in packages() {
        let manifest = read(&package.manifest);
        for line in ["[lints]\nworkspace = true", "version.workspace = true", "description = \""] {
            if !manifest.contains(line) {
                complaints.push(format!("{} lacks {line:?}", package.manifest));
            }
        }
        for line in ["[features]", "[build-dependencies]"] {
            if manifest.contains(line) {
                complaints.push(format!("{} has {line}", package.manifest));
            }
        }
    }
    none(complaints);
}

#[test]
fn the_lock_names_few_packages() {
    let count = read("Cargo.lock").lines().filter(|line| line.starts_with("source = ")).count();
    assert!(count <= PACKAGES, "Cargo.lock names {count} packages; at most {PACKAGES} are wanted");
}
