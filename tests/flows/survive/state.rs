//! What a state keeps: its owner's alone, refused by older programs, with fields of newer ones.

use super::{create, hold_guests, trace::tree};
use crate::fixture;
use banger_tests::{Sandbox, program};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

/// Every program that opens the state, called as somebody would.
const CALLS: &[(&str, &[&str])] = &[
    ("banger-allow", &["--list"]),
    ("banger-df", &[]),
    ("banger-dns", &[]),
    ("banger-gc", &[]),
    ("banger-image-delete", &["alpine"]),
    ("banger-image-import", &["empty.tar", "--name", "x"]),
    ("banger-image-list", &[]),
    ("banger-image-promote", &["alpine"]),
    ("banger-image-prune", &[]),
    ("banger-image-pull", &["oci:/nowhere"]),
    ("banger-image-register", &["--name", "x", "--rootfs", "disk.ext4"]),
    ("banger-image-show", &["alpine"]),
    ("banger-kernel-delete", &["generic-6.12"]),
    ("banger-kernel-import", &["x", "--from", "kernel"]),
    ("banger-kernel-list", &[]),
    ("banger-kernel-pull", &["generic-6.12"]),
    ("banger-kernel-show", &["generic-6.12"]),
    ("banger-ssh-config", &[]),
    ("banger-vm-cp", &["web:x", "y"]),
    ("banger-vm-create", &["--no-start", "--image", "alpine", "--name", "x"]),
    ("banger-vm-delete", &["--force", "web"]),
    ("banger-vm-kill", &["web"]),
    ("banger-vm-list", &[]),
    ("banger-vm-pause", &["web"]),
    ("banger-vm-ports", &["web"]),
    ("banger-vm-prune", &["--force"]),
    ("banger-vm-resume", &["web"]),
    ("banger-vm-set", &["web", "--vcpu", "2"]),
    ("banger-vm-show", &["web"]),
    ("banger-vm-start", &["web"]),
    ("banger-vm-stats", &["web"]),
    ("banger-vm-stop", &["web"]),
    ("banger-vm-supervise", &["web"]),
    ("banger-vm-wait", &["web"]),
    ("banger-vm-exec", &["web", "--", "true"]),
    ("banger-vm-logs", &["web"]),
    ("banger-vm-ssh", &["web"]),
    ("banger-ssh-proxy", &["web"]),
    ("banger-workspace-prepare", &["web", "."]),
    ("banger-workspace-apply", &["web"]),
    ("banger-workspace-export", &["web", "--output", "x"]),
    ("banger-workspace-exports", &[]),
    ("banger-workspace-pull", &["web"]),
    ("banger-workspace-push", &["web"]),
    ("banger-workspace-status", &["web"]),
    ("banger-workspace-watch", &["web"]),
    ("git-remote-banger", &["web", "web"]),
];

/// Those whose stdout is somebody else's: they fail with 125.
const RAW: &[&str] = &[
    "banger-vm-exec",
    "banger-vm-logs",
    "banger-vm-ssh",
    "banger-ssh-config",
    "banger-ssh-proxy",
    "banger-workspace-export",
    "git-remote-banger",
];

#[test]
fn a_newer_layout_is_refused_by_every_program_and_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    fs::copy(sandbox.state().join("images/alpine/rootfs.ext4"), sandbox.dir().join("disk.ext4"))
        .expect("a disk");
    fs::create_dir(sandbox.dir().join("kernel")).expect("a folder");
    fs::write(sandbox.dir().join("kernel/vmlinux"), "no kernel").expect("a file");
    fs::write(sandbox.dir().join("empty.tar"), vec![0; 1024]).expect("a tar");
    fs::write(sandbox.state().join("layout"), "2\n").expect("the number");
    let before = tree(sandbox.state());
    let mut unknown = openers();
    unknown.retain(|name| CALLS.iter().all(|(known, _)| known != name));
    assert!(unknown.is_empty(), "nobody calls {unknown:?}");
    for (name, words) in CALLS {
        let answer = sandbox.raw(program(name), words);
        let status = if RAW.contains(name) { 125 } else { 5 };
        assert_eq!(answer.status, status, "{}", answer.all());
        for words in ["has layout 2; this banger knows 1", "hint: use the newer banger"] {
            assert!(answer.stderr.contains(words), "{}", answer.all());
        }
        assert_eq!(tree(sandbox.state()), before, "{name} changed it");
    }
    assert_eq!(fs::read(sandbox.state().join("layout")).expect("the number"), b"2\n");
}

/// Returns the programs whose source opens the state, but for `doctor`, which says in its own words
/// what it finds.
fn openers() -> Vec<String> {
    let bins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bins");
    let opens = |dir: &Path| {
        let sources = fs::read_dir(dir.join("src")).into_iter().flatten().flatten();
        let mut texts = sources.filter_map(|source| fs::read_to_string(source.path()).ok());
        texts.any(|text| text.contains("State::open"))
    };
    let bins = fs::read_dir(bins).expect("the programs").flatten().map(|entry| entry.path());
    let names = bins
        .filter(|dir| opens(dir))
        .map(|dir| dir.file_name().expect("a name").to_string_lossy().into_owned());
    names.filter(|name| name != "banger-doctor").collect()
}

#[test]
fn nobody_else_can_look_in() {
    let sandbox = Sandbox::new();
    fixture::kernel(&sandbox);
    sandbox.plant_image("empty");
    hold_guests(&sandbox);
    create(&sandbox, "web", "empty").ok();
    // Held, it does not come up, and is kept.
    sandbox.run(program("banger-vm-start"), &["web", "--timeout", "1"]).fails(1, "it is kept");
    // On a busy machine that is before there is a machine.
    let channel = sandbox.vm("web").join("run/channel.sock");
    let end = Instant::now() + Duration::from_secs(30);
    while !channel.exists() {
        assert!(Instant::now() < end, "no channel is made");
        sleep(Duration::from_millis(5));
    }
    let mut folders: Vec<PathBuf> = vec![sandbox.state().to_owned(), sandbox.vm("web")];
    for name in
        ["images", "kernels", "vms", "exports", "cache", "ssh", "vms/web/run", "vms/web/ssh"]
    {
        folders.push(sandbox.state().join(name));
    }
    for folder in folders {
        assert_eq!(mode(&folder) & 0o077, 0, "{} is open to others", folder.display());
    }
    for file in ["ssh/id_ed25519", "vms/web/ssh/host_ed25519", "vms/web/console.log"] {
        assert_eq!(mode(&sandbox.state().join(file)) & 0o077, 0, "{file} is open to others");
    }
    assert_eq!(mode(&channel) & 0o077, 0, "the channel");
    sandbox.run(program("banger-vm-kill"), &["web"]).ok();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .permissions()
        .mode()
}

#[test]
fn a_promoted_image_keeps_fields_of_a_newer_banger() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    let disk = sandbox.dir().join("disk.ext4");
    fs::rename(sandbox.state().join("images/alpine/rootfs.ext4"), &disk).expect("a disk");
    let document = sandbox.state().join("images/alpine/image.json");
    let text = fs::read_to_string(&document).expect("a document");
    let mut image: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    image["managed"] = false.into();
    image["rootfs"] = disk.to_str().into();
    image["newer"] = serde_json::json!({ "kept": true });
    fs::write(&document, image.to_string()).expect("a document");
    sandbox.run(program("banger-image-promote"), &["alpine"]).ok();
    let text = fs::read_to_string(&document).expect("a document");
    let promoted: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(promoted["managed"], true);
    assert_eq!(promoted["newer"], serde_json::json!({ "kept": true }), "{promoted}");
}

#[test]
fn what_df_calls_reclaimable_is_what_pruning_frees() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    for name in ["web", "db"] {
        create(&sandbox, name, "alpine").ok();
    }
    fs::write(sandbox.vm("web").join("work.ext4"), vec![7; 300_000]).expect("work");
    let blobs = sandbox.state().join("cache/oci/blobs/sha256");
    fs::create_dir_all(&blobs).expect("a cache");
    fs::write(blobs.join("0".repeat(64)), vec![7; 100_000]).expect("a blob");
    fs::create_dir(sandbox.state().join("vms/.new-x-4194999")).expect("litter");
    let total = || {
        let answer = sandbox.run(program("banger-df"), &[]);
        let total = answer.documents.iter().find(|one| one["what"] == "total").cloned();
        let total = total.expect("a total");
        let bytes = |field: &str| total[field].as_u64().expect("bytes");
        (bytes("exclusive_bytes"), bytes("reclaimable_bytes"))
    };
    let (before, reclaimable) = total();
    assert!(reclaimable > 400_000, "{reclaimable}");
    sandbox.run(program("banger-vm-prune"), &["--force"]).ok();
    sandbox.run(program("banger-image-prune"), &[]).ok();
    sandbox.run(program("banger-gc"), &[]).ok();
    let (after, left) = total();
    // Folders themselves take a little.
    assert!(before - after <= reclaimable && before - after + 32_768 >= reclaimable);
    assert!(left < 32_768, "{left} bytes are still reclaimable");
}
