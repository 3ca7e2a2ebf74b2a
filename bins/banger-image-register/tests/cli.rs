//! The contract of `banger-image-register`.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_tests::Sandbox;
use std::{fs, path::PathBuf, process::Command};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-image-register");

fn disk(sandbox: &Sandbox, kind: &str) -> PathBuf {
    let path = sandbox.dir().join("disk.ext4");
    fs::File::create(&path).unwrap().set_len(4 << 20).unwrap();
    let made = Command::new("/usr/sbin/mke2fs").args(["-q", "-F", "-t", kind]).arg(&path).status();
    assert!(made.unwrap().success());
    path
}

#[test]
fn a_clean_disk_is_recorded_and_not_touched() {
    let sandbox = Sandbox::new();
    let path = disk(&sandbox, "ext4");
    let before = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
    let answer = sandbox
        .run(PROGRAM, &["--name", "base", "--rootfs", "disk.ext4", "--kernel-ref", "generic-6.12"]);
    let image = answer.document();
    assert_eq!(image["managed"], false);
    assert_eq!(image["rootfs"], path.to_str().unwrap());
    assert_eq!(image["source"], format!("file:{}", path.display()));
    assert_eq!(image["kernel"], "generic-6.12");
    assert_eq!(image["inodes"], 11);
    assert_eq!(
        before,
        (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap())
    );
    sandbox
        .run(PROGRAM, &["--name", "base", "--rootfs", "disk.ext4"])
        .fails(4, "image 'base' exists");
}

#[test]
fn what_is_no_clean_ext4_is_refused_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.dir().join("text"), vec![b'x'; 5000]).unwrap();
    sandbox.run(PROGRAM, &["--name", "a", "--rootfs", "text"]).fails(1, "holds no ext4");
    sandbox.run(PROGRAM, &["--name", "a", "--rootfs", "none"]).fails(3, "cannot find 'none'");
    sandbox.run(PROGRAM, &["--name", "a", "--rootfs", "/dev/null"]).fails(1, "is not a file");
    disk(&sandbox, "ext2");
    sandbox.run(PROGRAM, &["--name", "a", "--rootfs", "disk.ext4"]).fails(1, "than ext4");
    let path = disk(&sandbox, "ext4");
    let marked = Command::new("/usr/sbin/debugfs")
        .args(["-w", "-R", "feature needs_recovery"])
        .arg(&path)
        .output();
    assert!(marked.unwrap().status.success());
    let answer = sandbox.run(PROGRAM, &["--name", "a", "--rootfs", "disk.ext4"]);
    answer.fails(1, "its journal holds changes");
    assert!(answer.stderr.contains("e2fsck -p"));
    assert!(!sandbox.state().join("images/a").exists());
}

#[test]
fn a_kernel_is_named_or_given_not_both() {
    let sandbox = Sandbox::new();
    disk(&sandbox, "ext4");
    let rootfs = ["--name", "a", "--rootfs", "disk.ext4"];
    let mut args = rootfs.to_vec();
    args.extend(["--kernel-ref", "k", "--kernel", "vmlinux"]);
    sandbox.run(PROGRAM, &args).fails(2, "cannot be used with");
    let mut args = rootfs.to_vec();
    args.extend(["--modules", "x"]);
    sandbox.run(PROGRAM, &args).fails(2, "--kernel");
    let mut args = rootfs.to_vec();
    args.extend(["--kernel", "vmlinux"]);
    sandbox.run(PROGRAM, &args).fails(3, "cannot find 'vmlinux'");
    assert!(!sandbox.state().join("images/a").exists());
}
