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
    fs::write(sandbox.dir().join("x.tar.bz2"), b"BZh91AY&SY").unwrap();
    fs::write(sandbox.dir().join("x.zip"), b"PK\x03\x04....").unwrap();
    fs::write(sandbox.dir().join("x.cpio"), "070701".repeat(100)).unwrap();
    let cut = fs::read(sandbox.dir().join("root.tar")).unwrap();
    fs::write(sandbox.dir().join("cut.tar"), &cut[..cut.len() / 4 + 100]).unwrap();
    sandbox.run(PROGRAM, &["text.tar"]).fails(1, "text.tar");
    sandbox.run(PROGRAM, &["empty.tar"]).fails(1, "is empty");
    let answer = sandbox.feed(PROGRAM, &["-", "--name", "none"], b"");
    answer.fails(1, "stdin is empty: no archive came");
    assert!(answer.stderr.contains("hint: write it as 'docker export NAME | "), "{answer:?}");
    let answer = sandbox.feed(PROGRAM, &["-", "--name", "none"], b"BZh91AY");
    answer.fails(1, "'stdin' is compressed by bzip2");
    assert!(answer.stderr.contains("'bzip2 -dc FILE | banger image import - "), "{answer:?}");
    sandbox.run(PROGRAM, &["cut.tar"]).fails(1, "cut.tar");
    sandbox.run(PROGRAM, &["x.tar.xz"]).fails(1, "it is cut off");
    let answer = sandbox.run(PROGRAM, &["x.tar.bz2"]);
    answer.fails(1, "is compressed by bzip2");
    assert!(answer.stderr.contains("hint: 'bzip2 -dc x.tar.bz2 | banger image import - --name"));
    let answer = sandbox.run(PROGRAM, &["x.zip"]);
    answer.fails(1, "is a zip archive");
    assert!(answer.stderr.contains("hint: 'unzip -p x.zip | banger image import - --name NAME'"));
    sandbox.run(PROGRAM, &["x.cpio"]).fails(1, "is a cpio archive");
    sandbox.run(PROGRAM, &["none.tar"]).fails(3, "cannot find 'none.tar'");
    sandbox.run(PROGRAM, &["root"]).fails(2, "is a directory");
    sandbox.run(PROGRAM, &["-"]).fails(2, "gives no name");
    sandbox.run(PROGRAM, &["root.tar", "--name", "../x"]).fails(2, "is not a name");
    let left = fs::read_dir(sandbox.state().join("images")).unwrap().flatten();
    assert!(left.map(|e| e.file_name()).all(|name| name == ".lock"));
}

#[test]
fn an_archive_for_another_command_is_named_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    // What 'docker save' writes, new and old, and an image layout.
    let script = "mkdir -p s/blobs/sha256 o/blobs/sha256 && echo x > s/blobs/sha256/aa && \
                  echo '[]' > s/manifest.json && echo '{}' > s/oci-layout && \
                  echo '{}' > s/index.json && cp s/oci-layout s/index.json o && \
                  mkdir -p old/abc && touch old/abc/layer.tar && echo '[]' > old/manifest.json && \
                  for name in s o old; do tar -C $name -cf $name.tar .; done && gzip s.tar && \
                  tar -C o -cf plain.tar oci-layout index.json blobs";
    assert!(sandbox.command("/bin/sh").args(["-c", script]).status().unwrap().success());
    for (archive, what, hint) in [
        ("s.tar.gz", "what 'docker save' wrote", "docker-archive:s.tar.gz"),
        ("old.tar", "what 'docker save' wrote", "docker-archive:old.tar"),
        ("o.tar", "an OCI image layout", "oci-archive:o.tar"),
        ("plain.tar", "an OCI image layout", "oci-archive:plain.tar"),
    ] {
        let answer = sandbox.run(PROGRAM, &[archive]);
        answer.fails(1, &format!("'{archive}' is {what}, no root file system"));
        let hint = format!("hint: 'banger image pull {hint}' takes it\n");
        assert!(answer.stderr.ends_with(&hint), "{}", answer.stderr);
    }
    let saved = fs::read(sandbox.dir().join("s.tar.gz")).unwrap();
    let answer = sandbox.feed(PROGRAM, &["-", "--name", "piped"], &saved);
    answer.fails(1, "is what 'docker save' wrote");
    assert!(answer.stderr.contains("'banger image pull docker-archive:- --name NAME' takes it"));
    let left = fs::read_dir(sandbox.state().join("images")).unwrap().flatten();
    assert!(left.map(|e| e.file_name()).all(|name| name == ".lock"));
}

#[test]
fn root_file_systems_as_distributions_publish_them_become_images() {
    let sandbox = Sandbox::new();
    // Packed by xz; below a directory of its own; as Incus has them, with a link out of the rest.
    let script = "mkdir -p root.x86_64/etc root.x86_64/usr/bin incus/rootfs/etc incus/rootfs/bin && \
                  echo arch > root.x86_64/etc/motd && ln -s usr/bin root.x86_64/bin && \
                  chmod 700 root.x86_64 && echo in > incus/rootfs/etc/motd && \
                  echo 1 > incus/metadata.yaml && mkdir incus/templates && \
                  ln incus/metadata.yaml incus/rootfs/etc/linked && \
                  tar --owner=0 --group=0 -cJf prefixed.tar.xz root.x86_64 && \
                  tar -C incus --owner=0 --group=0 -cJf incus.txz metadata.yaml rootfs templates";
    assert!(sandbox.command("/bin/sh").args(["-c", script]).status().unwrap().success());
    for (archive, name, directory, motd) in [
        ("prefixed.tar.xz", "prefixed", "root.x86_64", "arch\n"),
        ("incus.txz", "incus", "rootfs", "in\n"),
    ] {
        let answer = sandbox.run(PROGRAM, &[archive]);
        assert_eq!(answer.document()["name"], name);
        let note = format!("note: the root of the archive is its directory '{directory}'\n");
        assert_eq!(answer.stderr, note);
        is_clean(&sandbox, name);
        assert_eq!(debugfs(&sandbox, name, "cat /etc/motd"), motd);
        let top = debugfs(&sandbox, name, "ls -p /");
        assert!(!top.contains("rootfs") && !top.contains("metadata"), "{top}");
    }
    assert!(debugfs(&sandbox, "prefixed", "stat /").contains("Mode:  0700"));
    assert_eq!(debugfs(&sandbox, "incus", "cat /etc/linked"), "1\n");
    assert!(debugfs(&sandbox, "incus", "stat /etc/linked").contains("Links: 1"));
}

#[test]
fn a_name_of_the_archives_is_said_short_and_plain() {
    let sandbox = Sandbox::new();
    let script = "import sys, tarfile
for out, name in (('long', '\\udcff' * 1000000), ('deep', 'd/' * 50000 + 'x'), ('loud', '\\x1b[2J\\nhint: \\u202e')):
    tar = tarfile.open(out + '.tar', 'w', format=tarfile.GNU_FORMAT, errors='surrogateescape')
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = (b'1', name) if out == 'loud' else (b'0', '')
    tar.addfile(entry)
    tar.close()
";
    let made = sandbox.command("/usr/bin/python3").args(["-c", script]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for archive in ["long.tar", "deep.tar", "loud.tar"] {
        let answer = sandbox.run(PROGRAM, &[archive]);
        assert_eq!(answer.status, 1, "{}", answer.stderr);
        assert!(answer.stderr.len() < 1500, "{archive}: {} bytes", answer.stderr.len());
        assert!(answer.text().len() < 2000, "{archive}: {} bytes", answer.text().len());
        assert!(answer.stderr.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'));
        assert_eq!(answer.stderr.lines().count(), 2, "{}", answer.stderr);
    }
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
