//! The contract of `banger-kernel-import`.

use banger_tests::Sandbox;
use std::{
    fs,
    path::{Path, PathBuf},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-kernel-import");
const RELEASE: &str = "6.12.9-test";

/// A kernel with nothing in it but what tells that it is one, for the processor this runs on.
fn kernel() -> Vec<u8> {
    let machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(18, 0);
    bytes.extend_from_slice(&[machine, 0]);
    bytes.extend_from_slice(format!("Linux version {RELEASE} (test) #1").as_bytes());
    bytes.resize(4096, 0);
    bytes
}

/// A folder with a kernel and modules whose index files say what the tests need.
fn folder(sandbox: &Sandbox, dep: &str, builtin: &str) -> PathBuf {
    let dir = sandbox.dir().join("kernel");
    let modules = dir.join("lib/modules").join(RELEASE);
    fs::create_dir_all(modules.join("kernel")).expect("a file of the kernel");
    fs::write(dir.join("vmlinux"), kernel()).expect("a file of the kernel");
    for line in dep.lines() {
        let path = line.split(':').next().expect("a path");
        fs::write(modules.join(path), b"\x7fELF a module").expect("a file of the kernel");
    }
    fs::write(modules.join("modules.dep"), dep).expect("a file of the kernel");
    fs::write(modules.join("modules.dep.bin"), "made").expect("a file of the kernel");
    fs::write(modules.join("modules.builtin"), builtin).expect("a file of the kernel");
    dir
}

const BUILTIN: &str = "kernel/virtio_pci.ko\nkernel/ext4.ko\nkernel/virtio_console.ko\n";
const DEP: &str = "kernel/virtio_blk.ko:\nkernel/overlay.ko: kernel/help.ko\nkernel/help.ko:\n";

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

#[test]
fn a_folder_becomes_a_kernel() {
    let sandbox = Sandbox::new();
    let dir = folder(&sandbox, DEP, BUILTIN);
    let answer = sandbox.run(PROGRAM, &["mine", "--from", text(&dir)]);
    let document = &answer.ok().documents[0];
    assert_eq!(document["release"], RELEASE);
    assert_eq!(document["format"], "elf");
    assert_eq!(document["has_modules"], true);
    assert_eq!(document["boot_modules"], serde_json::json!(["virtio_blk", "help", "overlay"]));
    assert_eq!(document["source"], format!("dir:{}", dir.canonicalize().unwrap().display()));
    let own = sandbox.state().join("kernels/mine");
    assert_eq!(fs::read(own.join("vmlinux")).unwrap(), kernel());
    let mut files: Vec<_> = fs::read_dir(&own)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["initramfs.cpio", "kernel.json", "modules.ext4", "vmlinux"]);
    let initramfs = fs::read(own.join("initramfs.cpio")).unwrap();
    let list = "disk virtio_blk.ko\ndisk help.ko\ndisk overlay.ko\n";
    assert!(initramfs.windows(list.len()).any(|window| window == list.as_bytes()));
    assert_eq!(initramfs.len() % 4, 0);
}

#[test]
fn the_modules_disk_is_a_sound_ext4() {
    let sandbox = Sandbox::new();
    let dir = folder(&sandbox, DEP, BUILTIN);
    sandbox.run(PROGRAM, &["mine", "--from", text(&dir)]).ok();
    let disk = sandbox.state().join("kernels/mine/modules.ext4");
    let checked = sandbox.raw("/usr/sbin/e2fsck", &["-fn", text(&disk)]);
    assert_eq!(checked.status, 0, "{}", checked.all());
    let listed = sandbox.raw("/usr/sbin/debugfs", &["-R", "ls kernel", text(&disk)]);
    assert!(listed.all().contains("overlay.ko"), "{}", listed.all());
}

#[test]
fn a_kernel_that_is_there_stays_unless_forced() {
    let sandbox = Sandbox::new();
    let dir = folder(&sandbox, DEP, BUILTIN);
    let vmlinux = dir.join("vmlinux");
    sandbox.run(PROGRAM, &["mine", "--vmlinuz", text(&vmlinux)]).ok();
    sandbox.run(PROGRAM, &["mine", "--from", text(&dir)]).fails(4, "kernel 'mine' exists");
    let answer =
        sandbox.run(PROGRAM, &["mine", "--from", text(&dir), "--force", "--source", "x:y"]);
    assert_eq!(answer.ok().documents[0]["source"], "x:y");
}

#[test]
fn a_kernel_without_modules_has_all_built_in() {
    let sandbox = Sandbox::new();
    let dir = folder(&sandbox, DEP, BUILTIN);
    let vmlinux = dir.join("vmlinux");
    let answer = sandbox.run(PROGRAM, &["mine", "--vmlinux", text(&vmlinux)]);
    assert_eq!(answer.ok().documents[0]["has_modules"], false);
    assert!(!sandbox.state().join("kernels/mine/modules.ext4").exists());
}

#[test]
fn a_missing_module_is_named_and_nothing_is_left() {
    let sandbox = Sandbox::new();
    let dir = folder(&sandbox, "kernel/virtio_blk.ko:\n", BUILTIN);
    sandbox.run(PROGRAM, &["mine", "--from", text(&dir)]).fails(1, "lack 'overlay'");
    let left: Vec<_> = fs::read_dir(sandbox.state().join("kernels"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != ".lock")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn modules_of_another_release_are_refused() {
    let sandbox = Sandbox::new();
    let dir = folder(&sandbox, DEP, BUILTIN);
    let other = sandbox.dir().join("6.1.0-other");
    fs::rename(dir.join("lib/modules").join(RELEASE), &other).unwrap();
    let vmlinux = dir.join("vmlinux");
    sandbox
        .run(PROGRAM, &["mine", "--vmlinuz", text(&vmlinux), "--modules", text(&other)])
        .fails(1, "its modules are of '6.1.0-other'");
    sandbox
        .run(PROGRAM, &["mine", "--vmlinuz", text(&vmlinux), "--modules", text(&dir)])
        .fails(3, "no modules of '6.12.9-test'");
}

#[test]
fn what_is_no_kernel_is_refused() {
    let sandbox = Sandbox::new();
    let file = sandbox.dir().join("text");
    fs::write(&file, "hello").unwrap();
    sandbox.run(PROGRAM, &["mine", "--vmlinuz", text(&file)]).fails(1, "is no kernel");
    sandbox.run(PROGRAM, &["mine", "--deb", text(&file)]).fails(1, "'");
    let absent = sandbox.dir().join("absent");
    sandbox.run(PROGRAM, &["mine", "--vmlinuz", text(&absent)]).fails(3, "cannot find");
    sandbox.run(PROGRAM, &["mine", "--from", text(&absent)]).fails(3, "no kernel in");
    sandbox.run(PROGRAM, &["mine", "--release", "../../etc"]).fails(2, "no kernel's release");
    sandbox.run(PROGRAM, &["../mine"]).fails(2, "is not a name");
    sandbox.run(PROGRAM, &["mine", "--deb", "a", "--from", "b"]).fails(2, "cannot be used with");
}
