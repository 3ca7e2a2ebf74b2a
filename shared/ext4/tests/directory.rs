//! Disks of directories on the host, as the usual tools see them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use banger_ext4::from_directory;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

fn disk(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).unwrap()
}

fn check(path: &Path) {
    let output = Command::new("timeout").args(["60", "e2fsck", "-fn"]).arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains('?'), "{said}");
}

fn debugfs(path: &Path, request: &str) -> String {
    let output = Command::new("debugfs").args(["-R", request]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_host_directory_is_there_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::write(root.join("a/empty"), b"").unwrap();
    fs::write(root.join("a/b/text"), b"hello\n").unwrap();
    fs::set_permissions(root.join("a/b/text"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(root.join("a/b/text"), root.join("a/same")).unwrap();
    symlink("b/text", root.join("a/short")).unwrap();
    symlink("x".repeat(300), root.join("a/long")).unwrap();
    let mut large = vec![7; 10 << 20];
    large[2 << 20..5 << 20].fill(0);
    fs::write(root.join("large"), &large).unwrap();
    fs::create_dir(root.join("many")).unwrap();
    for number in 0..3000 {
        fs::write(root.join(format!("many/file-with-a-long-name-{number}")), format!("{number}"))
            .unwrap();
    }
    let path = dir.path().join("disk");
    let summary = from_directory(&root, &disk(&path), "modules").unwrap();
    check(&path);
    assert_eq!(summary.size_bytes, fs::metadata(&path).unwrap().len());
    assert!(debugfs(&path, "stat /a/b/text").contains("4711"));
    assert!(debugfs(&path, "stat /a/b/text").contains("Links: 2"));
    assert_eq!(debugfs(&path, "cat /a/same"), "hello\n");
    assert_eq!(debugfs(&path, "cat /many/file-with-a-long-name-2999"), "2999");
    assert!(debugfs(&path, "stat /a/short").contains("Fast link dest: \"b/text\""));
    assert!(
        debugfs(&path, "htree_dump /many").contains("half_md4")
            || debugfs(&path, "htree_dump /many").contains("Hash Version: 1")
    );
    let out = dir.path().join("out");
    debugfs(&path, &format!("dump /large {}", out.display()));
    assert!(fs::read(out).unwrap() == large);

    let again = dir.path().join("again");
    assert_eq!(from_directory(&root, &disk(&again), "modules").unwrap(), summary);
    assert!(fs::read(&path).unwrap() == fs::read(&again).unwrap());
}

#[test]
fn an_empty_directory_is_a_small_disk() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let path = dir.path().join("disk");
    let summary = from_directory(&root, &disk(&path), "").unwrap();
    check(&path);
    assert_eq!(summary.inodes, 1);
    assert!(summary.size_bytes <= 4 << 20);
}

#[test]
fn a_device_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = from_directory(Path::new("/dev"), &disk(&dir.path().join("disk")), "").unwrap_err();
    assert!(error.to_string().contains("is a "), "{error}");
}
