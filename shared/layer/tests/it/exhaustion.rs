//! Layers that want all of the disk, the memory or the day.

use crate::support::{Head, Tar, built, refused, refused_by};
use banger_layer::Limits;
use flate2::{Compression, write::GzEncoder};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

/// A packed layer with one large file, made of a piece that repeats.
fn bomb(size: u64, piece: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(&Head { size, ..Head::new(b'0', "bomb") }.encode()).unwrap();
    for _ in 0..size / piece.len() as u64 {
        out.write_all(piece).unwrap();
    }
    out.finish().unwrap()
}

#[test]
fn zeros_packed_by_gzip_stop_at_the_limit_of_bytes() {
    let limits = Limits { bytes: 16 << 20, ..Limits::default() };
    refused_by(vec![bomb(64 << 20, &[0; 1 << 20])], &limits, "more than 16777216 bytes");
}

#[test]
fn zeros_packed_by_zstd_stop_at_the_limit_of_bytes() {
    let limits = Limits { bytes: 16 << 20, ..Limits::default() };
    let zeros = vec![0u8; 64 << 20];
    let packed = zstd::encode_all(
        &[&Head { size: 64 << 20, ..Head::new(b'0', "b") }.encode()[..], &zeros].concat()[..],
        1,
    )
    .unwrap();
    refused_by(vec![packed], &limits, "more than 16777216 bytes");
}

#[test]
fn zeros_take_no_room() {
    let image = built(vec![bomb(100 << 20, &[0; 1 << 20])]);
    assert!(std::fs::metadata(&image.path).unwrap().blocks() < 1000);
    assert!(image.debugfs("stat /bomb").contains("Size: 104857600"));
}

#[test]
fn what_grows_too_much_is_refused() {
    let piece: Vec<u8> = (0..4096u32).map(|at| (at * 7 + at / 256) as u8).collect();
    refused_by(
        vec![bomb(300 << 20, &piece)],
        &Limits { ratio: 20, ..Limits::default() },
        "'bomb' cannot be used: the layer grows to more than 20 times",
    );
}

mod entries_have_a_limit {
    use super::*;

    fn many(count: usize, name: &str) -> Vec<u8> {
        (0..count).fold(Tar::new(), |tar, number| tar.file(format!("{name}{number}"), "")).end()
    }

    fn over(stack: Vec<Vec<u8>>) {
        let limits = Limits { entries: 100, ..Limits::default() };
        refused_by(stack, &limits, "more than 100 entries");
    }

    each! { over {
        in_one_layer: vec![many(101, "f")];
        in_two_layers: vec![many(60, "f"), many(41, "f")];
        of_markers: vec![many(101, ".wh.f")];
        of_one_name: vec![(0..101).fold(Tar::new(), |tar, _| tar.file("same", "")).end()];
    } }
}

#[test]
fn directories_that_no_entry_made_have_a_limit() {
    let limits = Limits { entries: 100, ..Limits::default() };
    let deep = (0..60).fold(Tar::new(), |tar, number| tar.file(format!("{number}/a/b"), "")).end();
    refused_by(vec![deep], &limits, "directories without an entry");
}

mod what_is_kept_in_memory_has_a_limit {
    use super::*;

    fn over(add: impl Fn(Tar, u8) -> Tar) {
        let limits = Limits { name_bytes: 10_000, ..Limits::default() };
        let tar = (0..100u8).fold(Tar::new(), add);
        refused_by(vec![tar.end()], &limits, "bytes of names and attributes");
    }

    each! { over {
        names: |tar, number| tar.file(format!("{number:0200}"), "");
        targets: |tar, number| tar.symlink(format!("{number}"), "t".repeat(200));
        attributes: |tar, number| tar
            .pax(&[("SCHILY.xattr.user.x", &[number; 60])])
            .file(format!("{number}"), "");
    } }
}

mod extended_headers_have_a_limit {
    use super::*;

    fn over(kind: u8) {
        let body = vec![b'x'; (1 << 20) + 1];
        let one = Tar::new().pax_raw(kind, &body).file("a", "").end();
        refused(vec![one], "more than the limit of 1048576");
    }

    each! { over {
        for_an_entry: b'x';
        for_all_entries: b'g';
        for_a_name: b'L';
        for_a_target: b'K';
    } }

    #[test]
    fn before_any_of_it_came() {
        let head = Head { size: 1 << 40, ..Head::new(b'x', "x") };
        refused(vec![Tar::new().raw(&head, b"").end()], "more than the limit of 1048576");
    }
}

#[test]
fn files_have_a_limit() {
    let map: &[(&str, &[u8])] =
        &[("GNU.sparse.map", b""), ("GNU.sparse.size", b"9223372036854775807")];
    refused(
        vec![Tar::new().pax(map).file("a", "").end()],
        "'a' cannot be used: it has 9223372036854775807 bytes",
    );
}

#[test]
fn a_sparse_file_of_a_tebibyte_takes_no_room() {
    let map: &[(&str, &[u8])] =
        &[("GNU.sparse.map", b"1099511627770,5"), ("GNU.sparse.size", b"1099511627776")];
    let image = built(vec![Tar::new().pax(map).file("a", "12345").end()]);
    assert!(std::fs::metadata(&image.path).unwrap().blocks() < 1000);
    assert!(image.debugfs("stat /a").contains("Size: 1099511627776"));
}

#[test]
fn the_longest_file_there_can_be() {
    let limits = Limits { file_bytes: u64::MAX, ..Limits::default() };
    let map: &[(&str, &[u8])] =
        &[("GNU.sparse.map", b"17592186040316,4"), ("GNU.sparse.size", b"17592186040320")];
    let tar = Tar::new().pax(map).file("a", "1234").end();
    let image = crate::support::try_build(vec![tar], &limits).unwrap();
    assert!(image.debugfs("stat /a").contains("Size: 17592186040320"));
}

#[test]
fn a_file_longer_than_there_can_be_is_refused() {
    let limits = Limits { file_bytes: u64::MAX, ..Limits::default() };
    let map: &[(&str, &[u8])] = &[("GNU.sparse.map", b""), ("GNU.sparse.size", b"17592186044417")];
    refused_by(vec![Tar::new().pax(map).file("a", "").end()], &limits, "16 TiB or more");
}

#[test]
fn a_chequered_file_needs_a_deep_extent_tree() {
    // Data and holes in turn: one extent for each piece of data.
    let pieces = 3000;
    let map: Vec<String> = (0..pieces).map(|piece| format!("{},4096", piece * 8192)).collect();
    let content: Vec<u8> =
        (0..pieces).flat_map(|piece| vec![(piece % 255 + 1) as u8; 4096]).collect();
    let size = (pieces * 8192).to_string();
    let tar = Tar::new()
        .pax(&[("GNU.sparse.map", map.join(",").as_bytes()), ("GNU.sparse.size", size.as_bytes())]);
    let image = built(vec![tar.file("a", &content).end()]);
    let read = &image.tree()[&b"a"[..]].content;
    for piece in 0..pieces {
        assert_eq!(read[piece * 8192], (piece % 255 + 1) as u8);
        assert_eq!(read[piece * 8192 + 4096], 0);
    }
}

#[test]
fn stretches_of_data_have_a_limit() {
    let map: Vec<String> = (0..300).map(|piece| format!("{},512", piece * 8192)).collect();
    let tar = Tar::new()
        .pax(&[("GNU.sparse.map", map.join(",").as_bytes()), ("GNU.sparse.size", b"10000000")]);
    refused_by(
        vec![tar.file("a", vec![1; 300 * 512]).end()],
        &Limits { extents: 200, ..Limits::default() },
        "separate stretches",
    );
}

#[test]
fn duplicates_leave_room_behind() {
    let tar = (0..50u8).fold(Tar::new(), |tar, number| tar.file("same", vec![number + 1; 1 << 20]));
    let image = built(vec![tar.end()]);
    assert_eq!(image.tree()[&b"same"[..]].content, vec![50; 1 << 20]);
    assert!(std::fs::metadata(&image.path).unwrap().blocks() * 512 < 3 << 20);
    assert!(image.summary.used_bytes < 3 << 20);
}

#[test]
fn layers_have_a_limit() {
    let limits = Limits { layers: 10, ..Limits::default() };
    refused_by(vec![Vec::new(); 11], &limits, "11 layers");
}

#[test]
fn one_layer_three_hundred_times_is_one_layer() {
    let same = Tar::new().file("a", "1").end();
    assert_eq!(built(vec![same; 300]).paths(), "a:1");
}

fn links(count: u32) -> Vec<u8> {
    let mut tar = Tar::new().file("a", "1");
    for number in 0..count {
        tar = tar.hard(format!("{number}"), "a");
    }
    tar.end()
}

#[test]
fn sixty_five_thousand_names_of_one_file() {
    assert_eq!(built(vec![links(64_999)]).links("/a"), 65_000);
}

#[test]
fn one_name_more_than_a_file_can_have_is_refused() {
    refused(vec![links(65_000)], "more than 65000 names");
}

#[test]
fn seventy_thousand_subdirectories_and_a_large_index() {
    let mut tar = Tar::new();
    for number in 0..70_000 {
        tar = tar.dir(format!("d/a-longer-name-so-that-the-index-needs-two-levels-{number:060}"));
    }
    let image = built(vec![tar.end()]);
    assert_eq!(image.links("/d"), 1);
    assert_eq!(image.summary.inodes, 70_002);
    let name = format!("stat /d/a-longer-name-so-that-the-index-needs-two-levels-{:060}", 69_999);
    assert!(image.debugfs(&name).contains("Type: directory"));
    assert!(image.debugfs("htree_dump /d").contains("Indirect levels: 1"));
}
