//! Large disks, read by the kernel of a guest.

use crate::{
    fixture,
    guest::Guest,
    oci::{Pack, layout},
    tape::{Entry, archive},
};
use std::{fs, path::Path, path::PathBuf, process::Command, time::Duration};

const FILES: u64 = 200_000;
/// What stands in the file of holes: beyond what 31 and 32 bits count, and at its end.
const MARKS: [(u64, &str); 4] =
    [(0, "begin"), (3 << 30, "three"), ((5 << 30) + 7, "fifth"), ((6 << 30) - 5, "ended")];

#[test]
fn a_guest_reads_many_files_and_one_of_holes() {
    let work = tempfile::tempdir().expect("a folder");
    let many = many_files(work.path());
    let holes = file_of_holes(work.path());
    let image = work.path().join("large");
    let base = fixture::busybox_layer(work.path());
    let layers = [(base, Pack::Gzip), (many, Pack::Gzip), (holes, Pack::Zstd)];
    layout(&image, &layers, &fixture::busybox_config());
    let guest = Guest::create_of(&format!("oci:{}", image.display()), &["sh", "-c"]);

    // On the host it takes the room of what is in it: a block a file and their inodes.
    let disk = guest.sandbox.state().join("images/large/rootfs.ext4");
    let taken = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&disk).expect("a disk")) * 512;
    assert!(taken < 1200 << 20, "{taken} bytes");
    let check = guest.sandbox.raw("/usr/sbin/e2fsck", &["-f", "-n", disk.to_str().expect("text")]);
    assert_eq!(check.status, 0, "{}", check.all());

    guest.run("vm-start", &["web"]).ok();
    // Each file holds its number, so their sum shows that each was read once.
    let said = guest.says(
        "cd /many; find . -type f | wc -l; \
         find . -type f | xargs cat | awk '{ sum += $1 } END { printf \"%d %.0f\\n\", NR, sum }'; \
         cat flat/99999 spread/317/100317; ls flat | wc -l",
    );
    let sum = FILES * (FILES - 1) / 2;
    assert_eq!(said, format!("{FILES}\n{FILES} {sum}\n99999\n100317\n100000\n"));
    let size = 6_u64 << 30;
    let blocks = guest.says("stat -c '%s %b' /holes");
    let (seen, blocks) = blocks.trim().split_once(' ').expect("two numbers");
    assert_eq!(seen, size.to_string());
    assert!(blocks.parse::<u64>().expect("a number") <= 64, "{blocks} blocks");
    for (at, mark) in MARKS {
        let script = format!(
            "dd if=/holes bs=4096 skip={} count=2 2>/dev/null | tail -c +{} | head -c 5",
            at / 4096,
            at % 4096 + 1
        );
        assert_eq!(guest.says(&script), mark, "at {at}");
    }
    assert_eq!(
        guest.says("dd if=/holes bs=1M skip=4000 count=64 2>/dev/null | tr -d '\\0' | wc -c"),
        "0\n"
    );
    guest.run("vm-delete", &["--force", "web"]).ok();
}

/// Half of them in one directory, the others in a thousand.
fn many_files(work: &Path) -> PathBuf {
    let mut entries = vec![Entry::dir("many/flat", 0o755)];
    for number in 0..FILES {
        let dir = if number < FILES / 2 {
            "flat".to_owned()
        } else {
            format!("spread/{}", number % 1000)
        };
        entries.push(Entry::file(&format!("many/{dir}/{number}"), 0o644, format!("{number}\n")));
    }
    let path = work.join("many.tar");
    fs::write(&path, archive(&entries)).expect("a layer");
    path
}

/// A file of 6 GiB, as tar(1) packs it.
fn file_of_holes(work: &Path) -> PathBuf {
    let file = fs::File::create(work.join("holes")).expect("a file");
    for (at, mark) in MARKS {
        std::os::unix::fs::FileExt::write_all_at(&file, mark.as_bytes(), at).expect("a mark");
    }
    assert_eq!(file.metadata().expect("its size").len(), 6 << 30);
    let path = work.join("holes.tar");
    let mut tar = Command::new("tar");
    tar.args(["--sparse", "--format=posix", "-C"]).arg(work).arg("-cf").arg(&path).arg("holes");
    fixture::tool(&mut tar, Duration::from_mins(2));
    path
}
