//! Disks that Linux itself wrote, as it mounts them and as they are read here: the same files, whatever was
//! done to them. For root, where disks can be mounted; in mounts of the test's own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use banger_channel::files::{Budget, Entry, Files, serve, serve_still};
use banger_ext4::{from_directory, write_empty};
use banger_offline::{Disks, View};
use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    thread,
    time::Duration,
};

/// Says to a copy of this test where its world is.
const WORLD: &str = "BANGER_KERNEL_TEST";
/// How many worlds are tried; `BANGER_CASES` says another number, `BANGER_SEED` where they begin.
const CASES: u64 = 4;
/// What is compared as a tar.
const TREES: [&str; 5] = ["etc", "usr", "home", "var", "bin"];

/// An image: files of several names, a large directory, links.
const IMAGE: &str = "mkdir -p $1/etc/deep/er $1/usr/lib $1/var/lib/docker $1/home/dev $1/bin; cd $1
for i in $(seq 60); do echo $i >etc/f$i; seq $i $((i*30)) >etc/deep/g$i; done; seq 90000 >bin/tool
for i in $(seq 20); do ln bin/tool bin/name$i; ln etc/f$i usr/lib/f$i; done
cp -a etc/deep usr/lib/deep; ln -s /home/dev link; chmod 4755 bin/tool; chmod 700 etc/deep
for i in $(seq 900); do : >usr/lib/a-name-that-is-long-enough-for-an-index-$i; done";

/// What guest-init does with the disks at the first boot (`docs/boot.md`).
const MOUNT: &str = r#"cd $1; mkdir base overlay work root
mount -o loop,ro,noload base.ext4 base
mount -o loop overlay.ext4 overlay
mount -o loop work.ext4 work
mkdir overlay/work overlay/upper
mount -t overlay overlay -o lowerdir=base,upperdir=overlay/upper,workdir=overlay/work,redirect_dir=on,index=on,xino=auto,metacopy=off root
python3 -c "
import os
os.setxattr('work', 'trusted.banger.seeded', b'1')
os.setxattr('work', 'trusted.banger.place', b'/link')
os.makedirs('overlay/direct/var/lib/docker')
os.setxattr('overlay/direct/var/lib/docker', 'trusted.banger.seeded', b'1')
os.makedirs('overlay/direct/var/lib/never')"
mount --bind work root/home/dev
mount --bind overlay/direct/var/lib/docker root/var/lib/docker"#;
const UMOUNT: &str = "cd $1; umount -R root; umount overlay work base";

fn run(program: &str, words: &[&str]) -> Output {
    Command::new("timeout").arg("120").arg(program).args(words).output().unwrap()
}

fn ok(program: &str, words: &[&str]) -> String {
    let output = run(program, words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a script with a directory as its first word.
fn shell(script: &str, dir: &Path) -> String {
    ok("bash", &["-euc", script, "bash", dir.to_str().unwrap()])
}

/// Makes the disks of a VM that is yet to run.
fn make(top: &Path) {
    let image = top.join("image");
    fs::create_dir(&image).unwrap();
    shell(IMAGE, &image);
    let file = |name: &str| {
        File::options().read(true).write(true).create_new(true).open(top.join(name)).unwrap()
    };
    from_directory(&image, &file("base.ext4"), "base").unwrap();
    for name in ["overlay.ext4", "work.ext4"] {
        write_empty(&file(name), 256 << 20, [7; 16], name).unwrap();
    }
}

/// Returns what a tree holds by a scan.
fn scanned(files: &Files<'_>, root: &str) -> BTreeMap<Vec<u8>, Entry> {
    let mut all = BTreeMap::new();
    let each = |entry: Entry| {
        // Overlayfs makes numbers of its own.
        all.insert(entry.path.clone(), Entry { ino: 0, ..entry });
        Ok(())
    };
    files.scan(root, each).unwrap();
    // Places of memory file systems, which no disk has.
    all.retain(|path, _| ![&b"dev"[..], b"proc", b"run", b"sys"].contains(&path.as_slice()));
    all
}

/// Returns what comes of a tar of a tree. Files of several names are told by which of all is the first of them.
fn unpacked(files: &Files<'_>, root: &str, to: &Path) -> Vec<String> {
    let mut stream = Vec::new();
    files.tar(root, &[]).unwrap().read_to_end(&mut stream).unwrap();
    fs::create_dir(to).unwrap();
    let path = to.with_extension("tar");
    fs::write(&path, &stream).unwrap();
    let words = ["--numeric-owner", "-C", to.to_str().unwrap(), "-xpf", path.to_str().unwrap()];
    ok("tar", &words);
    // A directory's size is that of the file system it came to.
    let list = "cd $1; find . \\( -type d -printf '0 %P %y %m %U %G %T@\\0' \\) -o \
        -printf '%i %P %y %m %U %G %s %T@ %l %n\\0' | sort -zk2 | tr '\\0\\n' '\\n?'";
    let mut first = BTreeMap::new();
    let mut lines = Vec::new();
    for line in shell(list, to).lines() {
        let (inode, rest) = line.split_once(' ').unwrap();
        let count = first.len();
        let number = first.entry(inode.to_owned()).or_insert(count);
        lines.push(format!("{number} {rest}"));
    }
    let sums =
        "cd $1; find . -type f -print0 | sort -z | xargs -0r sha256sum -z | tr '\\0\\n' '\\n?'";
    lines.extend(shell(sums, to).lines().map(ToOwned::to_owned));
    lines
}

/// One world, in a namespace of mounts of its own: what Linux shows and what is read here.
fn one(top: &Path, seed: u64) {
    make(top);
    shell(MOUNT, top);
    let path = top.to_str().unwrap();
    let work = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/work.py");
    ok("python3", &[work, path, &seed.to_string(), "160"]);
    let agent = Files::new(Budget::new(Duration::from_mins(5)), || {
        let (here, there) = UnixStream::pair().unwrap();
        thread::spawn(move || serve(there));
        Ok(here)
    });
    let root = top.join("root").to_str().unwrap().to_owned();
    let expected = scanned(&agent, &root);
    assert!(expected.len() > 500, "the world is too small: {}", expected.len());
    let names: Vec<&[u8]> = expected.keys().map(Vec::as_slice).collect();
    let sums = agent.hash(&root, &names).unwrap();
    let trees = TREES.map(|name| {
        let dir = format!("{root}/{name}");
        let is_there = Path::new(&dir).is_dir();
        is_there.then(|| unpacked(&agent, &dir, &top.join(format!("linux-{name}"))))
    });
    shell(UMOUNT, top);

    let open = |name: &str| File::open(top.join(name)).unwrap();
    let disks =
        Disks { base: open("base.ext4"), overlay: open("overlay.ext4"), work: open("work.ext4") };
    let view = Arc::new(View::open(disks).unwrap());
    let reader = Files::new(Budget::new(Duration::from_mins(5)), || {
        let (here, there) = UnixStream::pair().unwrap();
        let view = Arc::clone(&view);
        thread::spawn(move || serve_still(there, &*view));
        Ok(here)
    });
    let found = scanned(&reader, "/");
    for (path, entry) in &expected {
        assert_eq!(found.get(path), Some(entry), "'{}'", path.escape_ascii());
    }
    let more: Vec<_> = found.keys().filter(|path| !expected.contains_key(*path)).collect();
    assert!(more.is_empty(), "what Linux does not show: {more:?}");
    let ours = reader.hash("/", &names).unwrap();
    for ((name, sum), ours) in names.iter().zip(&sums).zip(&ours) {
        assert_eq!(sum, ours, "the content of '{}'", name.escape_ascii());
    }
    for (path, entry) in names.iter().zip(reader.stat("/", &names).unwrap()) {
        let entry = entry.map(|entry| Entry { ino: 0, ..entry });
        assert_eq!(entry.as_ref(), expected.get(*path), "'{}'", path.escape_ascii());
    }
    for (name, tree) in TREES.iter().zip(trees) {
        let Some(tree) = tree else { continue };
        let ours = unpacked(&reader, &format!("/{name}"), &top.join(format!("ours-{name}")));
        for (line, ours) in tree.iter().zip(&ours) {
            assert_eq!(line, ours, "the tar of '{name}'");
        }
        assert_eq!(tree.len(), ours.len());
    }
    // The work disk by each of its names.
    let home = scanned(&reader, "/home/dev");
    for name in ["~", "/link", "/var/../home/dev/."] {
        assert_eq!(scanned(&reader, name), home, "'{name}'");
    }
    reader.scan("/proc", |_| panic!("nothing is there")).unwrap();
    let error = reader.scan("/no/such", |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), banger_doc::Kind::NotFound);
    let error = reader.remove("/", &[b"link"]).unwrap_err().chain();
    assert!(error.contains("its files are only read"), "{error}");
}

#[test]
fn disks_are_read_as_linux_shows_them() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(top) = env::var_os(WORLD).map(PathBuf::from) {
        one(&top, number("BANGER_SEED").unwrap());
        return;
    }
    let can = run("unshare", &["-m", "sh", "-c", "mount -t tmpfs none /mnt && losetup -f"]);
    if !can.status.success() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no disk can be mounted here");
        return;
    }
    let first = number("BANGER_SEED").unwrap_or(1);
    for seed in first..first + number("BANGER_CASES").unwrap_or(CASES) {
        let top = tempfile::tempdir().unwrap();
        let this = env::current_exe().unwrap();
        let mut command = Command::new("timeout");
        command.args(["240", "unshare", "-m", this.to_str().unwrap(), "--exact", "--nocapture"]);
        command.arg("disks_are_read_as_linux_shows_them");
        command.env(WORLD, top.path()).env("BANGER_SEED", seed.to_string());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "seed {seed}: {said}\n{why}");
    }
}
