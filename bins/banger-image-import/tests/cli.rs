//! The contract of `banger-image-import`.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_tests::{Sandbox, have};
use std::{fs, process::Command};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-image-import");

/// Writes a small root file system as `root.tar` into the scratch directory.
fn archive(sandbox: &Sandbox) {
    let script = "mkdir -p root/bin root/etc && echo hello > root/etc/motd && \
                  printf x > root/bin/su && chmod 4755 root/bin/su && ln -s su root/bin/sh && \
                  tar -C root --owner=0 --group=0 -cf root.tar . && gzip -k root.tar";
    let made = sandbox.command("/bin/sh").args(["-c", script]).status();
    assert!(made.unwrap().success());
}

fn debugfs(sandbox: &Sandbox, image: &str, request: &str) -> String {
    let disk = sandbox.state().join("images").join(image).join("rootfs.ext4");
    let output =
        Command::new("/usr/sbin/debugfs").args(["-R", request]).arg(disk).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_clean(sandbox: &Sandbox, image: &str) {
    let disk = sandbox.state().join("images").join(image).join("rootfs.ext4");
    let output = Command::new("/usr/sbin/e2fsck").arg("-fn").arg(disk).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn an_archive_becomes_an_image_plain_compressed_and_piped() {
    let sandbox = Sandbox::new();
    archive(&sandbox);
    let image = sandbox.run(PROGRAM, &["root.tar", "--kernel-ref", "generic-6.12"]);
    let image = image.document();
    assert_eq!(image["name"], "root");
    assert_eq!(image["kernel"], "generic-6.12");
    assert_eq!(image["source"], format!("file:{}", sandbox.dir().join("root.tar").display()));
    is_clean(&sandbox, "root");
    assert_eq!(debugfs(&sandbox, "root", "cat /etc/motd"), "hello\n");
    assert!(debugfs(&sandbox, "root", "stat /bin/su").contains("Mode:  04755"));

    sandbox.run(PROGRAM, &["root.tar.gz", "--name", "zipped"]).ok();
    is_clean(&sandbox, "zipped");
    let tar = fs::read(sandbox.dir().join("root.tar.gz")).unwrap();
    let answer = sandbox.feed(PROGRAM, &["-", "--name", "piped"], &tar);
    answer.ok();
    assert!(answer.text().contains(r#""source":"stdin""#), "{}", answer.text());
    let disk = |name: &str| fs::read(sandbox.state().join("images").join(name).join("rootfs.ext4"));
    assert_eq!(debugfs(&sandbox, "piped", "cat /etc/motd"), "hello\n");
    assert_eq!(disk("zipped").unwrap().is_empty(), disk("piped").unwrap().is_empty());
}

#[test]
fn what_is_no_archive_is_refused_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    archive(&sandbox);
    fs::write(sandbox.dir().join("text.tar"), "no archive at all\n".repeat(1000)).unwrap();
    fs::write(sandbox.dir().join("empty.tar"), "").unwrap();
    fs::write(sandbox.dir().join("x.tar.xz"), b"\xfd7zXZ\0...").unwrap();
    let cut = fs::read(sandbox.dir().join("root.tar")).unwrap();
    fs::write(sandbox.dir().join("cut.tar"), &cut[..cut.len() / 4 + 100]).unwrap();
    sandbox.run(PROGRAM, &["text.tar"]).fails(1, "text.tar");
    sandbox.run(PROGRAM, &["empty.tar"]).fails(1, "is empty");
    sandbox.run(PROGRAM, &["cut.tar"]).fails(1, "cut.tar");
    let answer = sandbox.run(PROGRAM, &["x.tar.xz"]);
    answer.fails(1, "is compressed by xz");
    sandbox.run(PROGRAM, &["none.tar"]).fails(3, "cannot find 'none.tar'");
    sandbox.run(PROGRAM, &["root"]).fails(2, "is a directory");
    sandbox.run(PROGRAM, &["-"]).fails(2, "gives no name");
    sandbox.run(PROGRAM, &["root.tar", "--name", "../x"]).fails(2, "is not a name");
    let left = fs::read_dir(sandbox.state().join("images")).unwrap().flatten();
    assert!(left.map(|e| e.file_name()).all(|name| name == ".lock"));
}

#[test]
fn a_taken_name_is_refused() {
    let sandbox = Sandbox::new();
    archive(&sandbox);
    sandbox.plant_image("root");
    sandbox.run(PROGRAM, &["root.tar"]).fails(4, "image 'root' exists");
}

#[test]
fn an_interrupt_leaves_nothing() {
    let sandbox = Sandbox::new();
    if !have("timeout") {
        return;
    }
    // The archive never ends.
    let script =
        format!("(head -c 512 /dev/zero; sleep 3) | timeout -s INT 0.5 {PROGRAM} - --name never");
    let answer = sandbox.raw("/bin/sh", &["-c", &script]);
    assert_ne!(answer.status, 0);
    let left = fs::read_dir(sandbox.state().join("images")).unwrap().flatten();
    assert!(left.map(|e| e.file_name()).all(|name| name == ".lock"));
}
