//! Images that the usual tools and banger's own writer made, read as those see them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use banger_ext4::{from_directory, write_empty};
use banger_ext4read::{Disk, Inode, Sort};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
};

/// What is compared of a thing.
struct Seen {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    links: u64,
    device: (u32, u32),
    content: Vec<u8>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new("timeout").arg("60").arg(program).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {words:?}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// The attributes of everything in a tree of this machine, by path.
fn get_attributes(root: &Path) -> BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>> {
    let script = "import os,sys\nroot=sys.argv[1].encode()\nos.chdir(root)\n\
        for dir,dirs,files in os.walk(b'.'):\n  for name in [b'.'] + dirs + files:\n    \
        path=os.path.normpath(os.path.join(dir,name))\n    \
        for n in os.listxattr(path,follow_symlinks=False):\n      \
        print(path.hex(), n, os.getxattr(path,n,follow_symlinks=False).hex())";
    let said = run("python3", &["-c", script, root.to_str().unwrap()]);
    let hex = |text: &str| -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digit).collect()
    };
    let mut all: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for line in said.lines() {
        let [path, name, value] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        all.entry(hex(path)).or_default().insert(name.as_bytes().to_vec(), hex(value));
    }
    all
}

/// Reads a tree of this machine.
fn of_host(root: &Path, with_attributes: bool) -> BTreeMap<Vec<u8>, Seen> {
    let mut all = BTreeMap::new();
    let mut attributes = if with_attributes { get_attributes(root) } else { BTreeMap::new() };
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() {
            fs::read(&path).unwrap()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else {
            Vec::new()
        };
        if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let rdev = meta.rdev();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let seen = Seen {
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec() as u32),
            links: if meta.is_dir() { 0 } else { meta.nlink() },
            device: (
                ((rdev >> 8) & 0xfff) as u32,
                ((rdev & 0xff) | (rdev >> 12 & 0xf_ff00)) as u32,
            ),
            content,
            attributes: attributes.remove(name.as_slice()).unwrap_or_default(),
        };
        all.insert(name, seen);
    }
    all
}

/// Reads a tree of an image.
fn of_image(disk: &Disk, with_attributes: bool) -> BTreeMap<Vec<u8>, Seen> {
    let mut all = BTreeMap::new();
    let mut waiting: Vec<(Vec<u8>, Inode)> = vec![(Vec::new(), disk.root().unwrap())];
    while let Some((path, inode)) = waiting.pop() {
        let mut content = Vec::new();
        match inode.sort {
            Sort::File => {
                disk.content(&inode).unwrap().read_to_end(&mut content).unwrap();
            }
            Sort::Link => content = disk.target(&inode).unwrap(),
            Sort::Dir => disk
                .list(&inode, |name, number| {
                    let below = if path.is_empty() {
                        name.to_vec()
                    } else {
                        [&path, &b"/"[..], name].concat()
                    };
                    waiting.push((below, disk.inode(number).unwrap()));
                    Ok(())
                })
                .unwrap(),
            _ => {}
        }
        let is_device = matches!(inode.sort, Sort::Character | Sort::Block);
        let names = if with_attributes { disk.attributes(&inode).unwrap() } else { Vec::new() };
        let value = |name: &Vec<u8>| disk.attribute(&inode, name).unwrap().unwrap();
        let seen = Seen {
            mode: inode.mode,
            owner: (inode.uid, inode.gid),
            mtime: (inode.mtime.seconds, inode.mtime.nanos),
            links: if inode.sort == Sort::Dir { 0 } else { u64::from(inode.links) },
            device: if is_device { inode.device } else { (0, 0) },
            content,
            attributes: names.iter().map(|name| (name.clone(), value(name))).collect(),
        };
        all.insert(path, seen);
    }
    all
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Fills a directory with all sorts of things; `whole` with those that banger's writer takes from nobody.
fn fill(root: &Path, dice: &mut Dice, whole: bool) {
    let mut dirs = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    for number in 0..300_u64 {
        let dir = dirs[dice.roll(dirs.len() as u64) as usize].clone();
        let long = "n".repeat(1 + dice.roll(200) as usize);
        let path = dir.join(format!("{number}-{long}"));
        match dice.roll(12) {
            0 | 1 => {
                fs::create_dir(&path).unwrap();
                dirs.push(path);
            }
            2 => symlink("x".repeat(1 + dice.roll(59) as usize), &path).unwrap(),
            3 => symlink("y/".repeat(30 + dice.roll(450) as usize), &path).unwrap(),
            4 if !files.is_empty() => {
                let first = &files[dice.roll(files.len() as u64) as usize];
                fs::hard_link(first, &path).unwrap();
            }
            5 => {
                // Holes at the beginning, between, and at the end.
                let file = File::create(&path).unwrap();
                for _ in 0..dice.roll(40) {
                    let at = dice.roll(2000) * 4096;
                    file.write_all_at(&vec![7; 1 + dice.roll(9000) as usize], at).unwrap();
                }
                file.set_len(dice.roll(3000) * 4000).unwrap();
            }
            6 if whole => {
                run("mknod", &[path.to_str().unwrap(), "c", "300", &(number * 9).to_string()]);
            }
            7 if whole => {
                run("mkfifo", &[path.to_str().unwrap()]);
            }
            _ => {
                let bytes: Vec<u8> =
                    (0..dice.roll(30_000)).map(|at| (at * number % 251) as u8).collect();
                fs::write(&path, bytes).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(dice.roll(0o10000) as u32))
                    .unwrap();
                files.push(path);
            }
        }
    }
    // Large enough for an index over its names.
    let many = root.join("many");
    fs::create_dir(&many).unwrap();
    for number in 0..3000 {
        fs::write(many.join(format!("a rather long name of file number {number}")), "").unwrap();
    }
}

fn set_attributes(root: &Path) {
    for (name, count, size) in [("few", 1, 5), ("block", 3, 60), ("large", 1, 400)] {
        let path = root.join(name);
        fs::write(&path, name).unwrap();
        for number in 0..count {
            let script =
                "import os,sys\nos.setxattr(sys.argv[1],sys.argv[2],b'v'*int(sys.argv[3]))";
            for space in ["user", "trusted"] {
                let attribute = format!("{space}.{name}.{number}");
                let words = ["-c", script, path.to_str().unwrap(), &attribute, &size.to_string()];
                run("python3", &words);
            }
        }
    }
}

#[test]
fn what_mke2fs_makes_of_a_directory_is_read_as_it_was() {
    if !nix_is_root() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fill(&tree, &mut Dice(0x1234_5678), true);
    set_attributes(&tree);
    let mut expected = of_host(&tree, true);
    // It copies whole seconds.
    for seen in expected.values_mut() {
        seen.mtime.1 = 0;
    }
    for (number, options) in [
        &["-t", "ext4"][..],
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext4", "-b", "2048", "-I", "512"],
        &["-t", "ext4", "-O", "^64bit,^metadata_csum"],
        &["-t", "ext4", "-O", "inline_data"],
        &["-t", "ext4", "-O", "meta_bg,^resize_inode"],
        &["-t", "ext4", "-O", "bigalloc", "-C", "16384"],
        &["-t", "ext4", "-O", "sparse_super2,^resize_inode"],
        &["-t", "ext4", "-O", "ea_inode,large_dir"],
        &["-t", "ext3"],
        &["-t", "ext2", "-I", "256"],
    ]
    .iter()
    .enumerate()
    {
        let image = dir.path().join(format!("image-{number}"));
        let path = image.to_str().unwrap();
        let from =
            ["-q", "-F", "-E", "no_copy_xattrs=0", "-d", tree.to_str().unwrap(), path, "160M"];
        let words: Vec<&str> =
            options.iter().chain(&from[..2]).chain(&from[4..]).copied().collect();
        run("/usr/sbin/mke2fs", &words);
        let disk = Disk::open(File::open(&image).unwrap()).unwrap();
        let mut found = of_image(&disk, true);
        found.remove(&b"lost+found"[..]);
        compare(&found, &expected, &format!("{options:?}"));
        fs::remove_file(&image).unwrap();
    }
}

fn compare(found: &BTreeMap<Vec<u8>, Seen>, expected: &BTreeMap<Vec<u8>, Seen>, what: &str) {
    let names = |all: &BTreeMap<Vec<u8>, Seen>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{what}");
    for (path, seen) in expected {
        // The root's own time is that of mke2fs.
        let mut other = &found[path];
        let adopted;
        if path.is_empty() {
            adopted = Seen {
                mtime: seen.mtime,
                content: Vec::new(),
                attributes: BTreeMap::new(),
                ..*other
            };
            other = &adopted;
        }
        let shown = String::from_utf8_lossy(path);
        // What mke2fs 1.47 makes of holes beside data in inodes, Linux reads otherwise than it was, too.
        let is_spared =
            what.contains("inline") && seen.content.split(|byte| *byte == 0).count() > 2001;
        assert!(is_spared || other.content == seen.content, "{what}: the content of '{shown}'");
        let rest = |seen: &Seen| {
            let Seen { mode, owner, mtime, links, device, .. } = seen;
            format!("{mode:o} {owner:?} {mtime:?} {links} {device:?} {:?}", seen.attributes)
        };
        assert_eq!(rest(other), rest(seen), "{what}: '{shown}'");
    }
}

fn nix_is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn what_bangers_own_writer_makes_is_read_as_it_was() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fill(&tree, &mut Dice(0x9abc_def1), false);
    let image = dir.path().join("image");
    let file = File::options().read(true).write(true).create_new(true).open(&image).unwrap();
    from_directory(&tree, &file, "label").unwrap();
    let disk = Disk::open(File::open(&image).unwrap()).unwrap();
    let (mut expected, mut found) = (of_host(&tree, false), of_image(&disk, false));
    for seen in expected.values_mut().chain(found.values_mut()) {
        seen.owner = (0, 0);
    }
    found.remove(&b"lost+found"[..]);
    compare(&found, &expected, "from_directory");
    assert!(!disk.needs_recovery());
}

#[test]
fn an_empty_disk_that_debugfs_filled_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let file = File::options().read(true).write(true).create_new(true).open(&image).unwrap();
    write_empty(&file, 1 << 30, [9; 16], "work").unwrap();
    let big: Vec<u8> = (0..9 << 20).map(|at: u32| (at / 4096 % 251) as u8).collect();
    fs::write(dir.path().join("big"), &big).unwrap();
    let script = format!(
        "mkdir upper\ncd upper\nwrite {} big\nmknod white c 0 0\nsymlink link /else/where\n\
         ea_set big trusted.overlay.origin -f {}\n",
        dir.path().join("big").display(),
        dir.path().join("script").display()
    );
    fs::write(dir.path().join("script"), script).unwrap();
    let words = ["-w", "-f", dir.path().join("script").to_str().unwrap(), image.to_str().unwrap()]
        .map(ToOwned::to_owned);
    run("/usr/sbin/debugfs", &words.each_ref().map(String::as_str));
    let disk = Disk::open(File::open(&image).unwrap()).unwrap();
    let upper = disk.find(&disk.root().unwrap(), b"upper").unwrap().unwrap();
    let find = |name: &[u8]| disk.find(&upper, name).unwrap();
    let file = find(b"big").unwrap();
    let mut content = Vec::new();
    disk.content(&file).unwrap().read_to_end(&mut content).unwrap();
    assert!(content == big);
    let mut tail = disk.content(&file).unwrap();
    tail.seek(big.len() as u64 - 5);
    let mut last = Vec::new();
    tail.read_to_end(&mut last).unwrap();
    assert_eq!(last, big[big.len() - 5..]);
    let origin = disk.attribute(&file, b"trusted.overlay.origin").unwrap().unwrap();
    assert_eq!(origin, fs::read(dir.path().join("script")).unwrap());
    let white = find(b"white").unwrap();
    assert_eq!((white.sort, white.device), (Sort::Character, (0, 0)));
    assert_eq!(disk.target(&find(b"link").unwrap()).unwrap(), b"/else/where");
    assert!(find(b"nothing").is_none());
}

#[test]
fn stretches_of_a_file_with_holes_are_told() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let file = File::create(tree.join("holes")).unwrap();
    file.write_all_at(&[1; 4096], 1 << 20).unwrap();
    file.write_all_at(&[2; 100], 3 << 20).unwrap();
    file.set_len(9 << 20).unwrap();
    let image = dir.path().join("image");
    let words = [
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-d",
        tree.to_str().unwrap(),
        image.to_str().unwrap(),
        "32M",
    ];
    run("/usr/sbin/mke2fs", &words);
    let disk = Disk::open(File::open(&image).unwrap()).unwrap();
    let inode = disk.find(&disk.root().unwrap(), b"holes").unwrap().unwrap();
    let data = disk.data(&inode, 100).unwrap();
    assert_eq!(data, Some(vec![(1 << 20, 4096), (3 << 20, 4096)]));
    assert_eq!(disk.data(&inode, 0).unwrap(), None);
    assert!(inode.sectors * 512 < inode.size);
}

#[test]
fn what_is_no_ext4_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let open = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Disk::open(File::open(&path).unwrap()).unwrap_err().to_string()
    };
    assert_eq!(open(b""), "it holds no ext4 file system");
    assert_eq!(open(&[0; 8192]), "it holds no ext4 file system");
    let mut bytes = vec![0; 8192];
    bytes[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
    assert_eq!(open(&bytes), "the disk is damaged: its superblock");
    bytes[1024 + 0x4c] = 1;
    bytes[1024 + 0x60] = 1;
    assert_eq!(open(&bytes), "it uses features of ext4 that are not read: 0x1");
}
