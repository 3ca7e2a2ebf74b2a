//! `vm cp` with a real guest.

use crate::guest::Guest;
use banger_tests::program;
use std::{fs, os::unix::fs::FileExt, path::Path};

/// Says what a tree is, in words that busybox and coreutils share: names, modes, links, contents.
const SUM: &str = "export LC_ALL=C; find . | sort; \
                   find . ! -type l -exec stat -c '%n %a %Y' {} + | sort; \
                   find . -type l -exec readlink {} + | sort; \
                   find . -type f -exec sha256sum {} + | sort";

/// Thousands of files, holes and streams, in and out.
pub(crate) fn files_go_both_ways(guest: &Guest) {
    let dir = guest.sandbox.dir();
    let tree = dir.join("tree");
    plant(&tree);
    let copy = |from: &str, to: &str| guest.run("vm-cp", &[from, to]);
    let sum = |dir: &Path| {
        let script = format!("cd '{}' && {SUM}", dir.display());
        guest.sandbox.raw("/bin/sh", &["-c", &script]).ok().text()
    };
    let inside = |dir: &str| guest.says(&format!("cd {dir} && {SUM}"));

    let given = copy("tree", "web:");
    assert_eq!(given.document()["entries"], 5_104, "{}", given.all());
    same(&inside("/root/tree"), &sum(&tree));
    assert_eq!(guest.says("stat -c '%h %u' /root/tree/d1/f1"), "2 0\n");
    let blocks: u64 = guest.says("stat -c %b /root/tree/holes").trim().parse().expect("a number");
    assert!(blocks < 1000, "{blocks} blocks of a hole");
    let taken = copy("web:tree", "back");
    assert_eq!(taken.document()["entries"], 5_104, "{}", taken.all());
    same(&sum(&dir.join("back")), &sum(&tree));

    // A stream out of one directory of the guest and into another.
    guest.says("mkdir /tmp/again");
    let stream = guest.sandbox.raw(program("banger-vm-cp"), &["web:/root/tree", "-"]);
    let fed =
        guest.sandbox.feed(program("banger-vm-cp"), &["-", "web:/tmp/again"], &stream.ok().stdout);
    fed.ok();
    same(&inside("/tmp/again/tree"), &sum(&tree));

    // A disk of the guest that is full is said, and what was there is as it was.
    guest.says("mkdir /tmp/small && mount -t tmpfs -o size=1m none /tmp/small && echo kept >/tmp/small/file");
    fs::write(dir.join("large"), vec![1; 3 << 20]).expect("a file");
    copy("large", "web:/tmp/small/file").fails(1, "no space left");
    assert_eq!(guest.says("cat /tmp/small/*; ls -A /tmp/small; umount /tmp/small"), "kept\nfile\n");
    guest.says("rm -r /root/tree /tmp/again");
    eprint(&given, &taken);
}

/// Fails with the first lines that are not on both sides.
fn same(one: &str, other: &str) {
    let apart: Vec<_> =
        one.lines().zip(other.lines()).filter(|(one, other)| one != other).collect();
    assert!(one == other, "{:#?}", &apart[..apart.len().min(3)]);
}

#[expect(clippy::print_stderr, reason = "figures for whoever watches a test")]
fn eprint(given: &banger_tests::Answer, taken: &banger_tests::Answer) {
    eprintln!("5,000 files: {:?} in, {:?} out", given.took, taken.took);
}

fn plant(tree: &Path) {
    for dir in 0..100 {
        let dir = tree.join(format!("d{dir}"));
        fs::create_dir_all(&dir).expect("a directory");
        for file in 0..50 {
            let content = format!("{}/{file}\n", dir.display()).repeat(1 + file);
            fs::write(dir.join(format!("f{file}")), content).expect("a file");
        }
    }
    fs::hard_link(tree.join("d1/f1"), tree.join("same")).expect("a link");
    std::os::unix::fs::symlink("d1/f2", tree.join("link")).expect("a link");
    let holes = fs::File::create(tree.join("holes")).expect("a file");
    holes.set_len(64 << 20).expect("a size");
    holes.write_all_at(b"in the middle", 30 << 20).expect("a write");
}
