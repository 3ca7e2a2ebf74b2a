//! The disks of a VM, small ones, and bytes of them that become others.

use banger_channel::files::Still;
use banger_offline::{Disks, View};
use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    sync::{LazyLock, Mutex},
};

/// As small as a file system with all of this can be.
const SIZE: u64 = 1 << 20;
const BLOCK: usize = 1024;
/// What is looked at of a tree, which may be a circle.
const MOST_NODES: usize = 4000;
const MOST_BYTES: u64 = 1 << 20;
/// What is asked for beside the tree.
const PLACES: [&[u8]; 5] = [b"/", b"~/repo", b"/home/link/../dev", b"/var/lib/docker/x", b"/run/x"];

/// What debugfs does with each disk.
const SCRIPTS: [&str; 3] = [
    "mkdir home\nmkdir home/dev\nsymlink home/link dev\nmkdir var\nmkdir var/lib\nmkdir var/lib/docker\nmkdir old\n\
     cd old\nwrite $CONTENT file\ncd /\nln old/file var/second\nsif old/file links_count 2\n",
    "mkdir upper\nmkdir upper/home\nmkdir upper/moved\nea_set upper/moved trusted.overlay.redirect /old\n\
     mkdir upper/anew\nea_set upper/anew trusted.overlay.opaque y\ncd upper\nmknod old c 0 0\nwrite $CONTENT file\n\
     symlink long aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n\
     cd /\nmkdir work\nmkdir work/index\ncd work/index\n\
     write $CONTENT 00fb1d000100112233445566778899aabbccddeeff1200000000000000\ncd /\nmkdir direct\nmkdir direct/var\n\
     mkdir direct/var/lib\nmkdir direct/var/lib/docker\nea_set direct/var/lib/docker trusted.banger.seeded 1\n",
    "ea_set / trusted.banger.seeded 1\nea_set / trusted.banger.place /home/link\nmkdir repo\ncd repo\nwrite $CONTENT a\n\
     write $CONTENT b\nwrite $HOLES c\nmkdir .git\nmkdir d\nmknod p p\n",
];

/// A disk and its blocks that hold anything.
struct Disk {
    file: File,
    bytes: Vec<u8>,
    blocks: Vec<usize>,
}

static ALL: LazyLock<Mutex<Vec<Disk>>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    Mutex::new((0..3).map(|number| make(dir.path(), number)).collect())
});

fn make(dir: &Path, number: usize) -> Disk {
    let path = |name: &str| dir.join(name).to_str().expect("text").to_owned();
    fs::write(path("content"), [7; 3000]).expect("a file");
    let holes = File::create(path("holes")).expect("a file");
    for part in 0..12 {
        holes.write_all_at(&[9; 700], part * 9000).expect("a file");
    }
    let script = SCRIPTS[number].replace("$CONTENT", &path("content")).replace("$HOLES", &path("holes"));
    let many: String = (0..40).map(|n| format!("symlink name-of-a-file-{n} x\n")).collect();
    fs::write(path("script"), script + "mkdir many\ncd many\n" + &many).expect("a file");
    let image = path("image");
    File::create(&image).and_then(|file| file.set_len(SIZE)).expect("a file");
    // One of them in the older form, without extents.
    let features = ["^has_journal", "^has_journal,inline_data", "^has_journal,^extents,^64bit"][number];
    let words = ["-q", "-F", "-t", "ext4", "-b", "1024", "-N", "200", "-O", features, image.as_str()];
    let status = Command::new("/usr/sbin/mke2fs").args(words).status().expect("mke2fs");
    assert!(status.success());
    let words = ["-w", "-f", &path("script"), &image];
    let output = Command::new("/usr/sbin/debugfs").args(words).output().expect("debugfs");
    assert!(output.status.success(), "{output:?}");
    let bytes = fs::read(&image).expect("the disk");
    let holds = |block: &usize| bytes[block * BLOCK..][..BLOCK].iter().any(|byte| *byte != 0);
    let blocks = (0..bytes.len() / BLOCK).filter(holds).collect();
    let file = File::options().read(true).write(true).open(&image).expect("the disk");
    Disk { file, bytes, blocks }
}

/// Feeds changes to the disks, each a disk, a place on it, a count and so many bytes: whatever they say, all
/// that can be read is read and ends.
pub fn offline(input: &[u8]) {
    let disks = ALL.lock().expect("because nobody panics");
    let mut changed = Vec::new();
    let mut rest = input;
    while let [which, low, middle, high, count, more @ ..] = rest {
        let disk = &disks[usize::from(*which) % disks.len()];
        let at = usize::from(*low) | usize::from(*middle) << 8 | usize::from(*high) << 16;
        let block = disk.blocks[at / BLOCK % disk.blocks.len()];
        let at = block * BLOCK + at % BLOCK;
        let size = (usize::from(*count) % 8 + 1).min(more.len()).min(disk.bytes.len() - at);
        disk.file.write_all_at(&more[..size], at as u64).expect("it is written");
        changed.push((disk, at, size));
        rest = &more[size..];
    }
    let open = |number: usize| disks[number].file.try_clone().expect("a descriptor");
    if let Ok(view) = View::open(Disks { base: open(0), overlay: open(1), work: open(2) }) {
        let mut left = MOST_NODES;
        for place in PLACES {
            if let Ok(dir) = view.directory(place) {
                walk(&view, &dir, &mut left, 0);
            }
        }
    }
    for (disk, at, size) in changed {
        disk.file.write_all_at(&disk.bytes[at..at + size], at as u64).expect("it is written");
    }
}

fn walk<T: Still>(view: &T, node: &T::Node, left: &mut usize, depth: usize) {
    if *left == 0 || depth > 40 {
        return;
    }
    *left -= 1;
    let stat = view.stat(node);
    let _ = view.target(node);
    if let Ok(stretches) = view.data(node, 100) {
        for (from, size) in stretches.unwrap_or_default() {
            assert!(size > 0 && from + size <= stat.size);
        }
    }
    if let Ok(content) = view.content(node, 0) {
        let mut bytes = Vec::new();
        let _ = content.take(MOST_BYTES / 16).read_to_end(&mut bytes);
        assert!(bytes.len() as u64 <= stat.size);
    }
    for (name, listed) in view.list(node).unwrap_or_default() {
        assert!(!name.is_empty() && name.len() <= 255 && name != b"." && name != b"..");
        assert!(!name.contains(&b'/') && !name.contains(&0));
        if let Ok(Some(child)) = view.look(node, &name, listed) {
            walk(view, &child, left, depth + 1);
        }
    }
}

/// Changes that reach something each.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    for which in 0..3_u8 {
        for block in 0..60_usize {
            let at = block * BLOCK + 40;
            all.push(vec![which, at as u8, (at >> 8) as u8, (at >> 16) as u8, 3, 1, 2, 3, 4]);
        }
    }
    all
}
