//! The contract of `banger-image-import`.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_tests::Sandbox;
use std::{
    fs,
    io::Write,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

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
    let mut command = sandbox.command(PROGRAM);
    command.args(["-", "--name", "never"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    // The archive never ends.
    let mut archive = child.stdin.take().unwrap();
    archive.write_all(&[0; 512]).unwrap();
    let images = sandbox.state().join("images");
    let begun = || {
        let there = fs::read_dir(&images).into_iter().flatten().flatten();
        there.map(|entry| entry.file_name()).any(|name| name != ".lock")
    };
    until("the image is begun", begun);
    sandbox.raw("/bin/sh", &["-c", &format!("kill -INT {}", child.id())]).ok();
    let mut status = None;
    until("it ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().signal(), Some(2));
    assert!(!begun(), "something is left");
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < end, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
