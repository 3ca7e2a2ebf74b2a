//! Archives that two programs could read in two ways, and broken ones.

use crate::support::{Head, Tar, built, record, refused, sum};

fn head(name: &str, size: u64) -> Head {
    Head { size, ..Head::new(b'0', name) }
}

#[test]
fn an_extended_size_counts_for_content_and_for_skipping() {
    // The content looks like an entry; who believes the header's size sees it.
    let fake = Tar::new().file("evil", "x").0;
    let one = Tar::new()
        .pax(&[("size", fake.len().to_string().as_bytes())])
        .raw(&head("a", 0), &fake)
        .file("b", "2")
        .end();
    let paths = built(vec![one]).paths();
    assert!(
        paths.starts_with("a:") && paths.ends_with(" b:2") && !paths.contains(" evil"),
        "{paths}"
    );
    let one = Tar::new().pax(&[("size", b"0")]).raw(&head("a", 1024), b"").file("b", "2").end();
    assert_eq!(built(vec![one]).paths(), "a: b:2");
    let one = Tar::new().pax(&[("size", b"3")]).raw(&head("a", 700), b"abc").file("b", "2").end();
    assert_eq!(built(vec![one]).paths(), "a:abc b:2");
}

#[test]
fn an_extended_header_is_for_the_file_after_it_in_any_order() {
    let long = "n".repeat(150);
    let one = |tar: Tar| built(vec![tar.raw(&head("x", 1), b"1").file("b", "2").end()]).paths();
    let size: &[(&str, &[u8])] = &[("size", b"1")];
    assert_eq!(one(Tar::new().pax(size).gnu_long(b'L', long.as_bytes())), format!("b:2 {long}:1"));
    assert_eq!(one(Tar::new().gnu_long(b'L', long.as_bytes()).pax(size)), format!("b:2 {long}:1"));
    assert_eq!(one(Tar::new().pax_raw(b'g', &record("path", b"all")).pax(size)), "b:2 x:1");
}

#[test]
fn announcements_without_an_entry_are_refused() {
    let part = "before the entry that was announced";
    refused(vec![Tar::new().pax(&[("path", b"a")]).end()], part);
    refused(vec![Tar::new().gnu_long(b'K', b"a").end()], part);
    refused(vec![Tar::new().gnu_long(b'L', b"a").0], part);
}

#[test]
fn two_announcements_of_one_kind_are_refused() {
    let tar = || Tar::new().file("a", "");
    refused(
        vec![tar().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", "").end()],
        "two extended headers",
    );
    refused(
        vec![tar().gnu_long(b'L', b"a").gnu_long(b'L', b"b").file("c", "").end()],
        "two long names",
    );
    refused(
        vec![tar().gnu_long(b'K', b"a").gnu_long(b'K', b"b").file("c", "").end()],
        "two long link targets",
    );
}

#[test]
fn malformed_extended_headers_are_refused() {
    for body in [
        "0 a=b\n",
        "99 a=b\n",
        "6 ab\n",
        "6 a=bc",
        "06 a=b\n",
        " 6 a=b\n",
        "x a=b\n",
        "-6 a=b\n",
        "6 a=b\n\0\0",
    ] {
        refused(
            vec![Tar::new().pax_raw(b'x', body.as_bytes()).file("a", "").end()],
            "extended header",
        );
        refused(
            vec![Tar::new().pax_raw(b'g', body.as_bytes()).file("a", "").end()],
            "extended header",
        );
    }
}

#[test]
fn extended_values_that_are_none_are_refused() {
    for (key, value) in [
        ("size", "-1"),
        ("size", "x"),
        ("size", "99999999999999999999"),
        ("uid", "1.5"),
        ("mtime", "nan"),
        ("mtime", "1e9"),
        ("path", "a\0b"),
        ("linkpath", "\0"),
    ] {
        let body = record(key, value.as_bytes());
        refused(
            vec![Tar::new().pax_raw(b'x', &body).file("a", "").end()],
            &format!("'{key}' is wrong"),
        );
    }
}

#[test]
fn an_empty_value_takes_back_what_was_said() {
    let body =
        [record("path", b"other"), record("path", b""), record("uid", b"5"), record("uid", b"")]
            .concat();
    let image = built(vec![Tar::new().pax_raw(b'x', &body).file("a", "").end()]);
    assert_eq!(image.paths(), "a:");
    assert_eq!(image.tree()[&b"a"[..]].uid, 0);
}

#[test]
fn a_prefix_is_one_only_where_the_format_has_it() {
    let prefixed = |magic: &[u8; 8], prefix: &str| {
        let head = Head { magic: *magic, prefix: prefix.into(), ..Head::new(b'0', "n") };
        built(vec![Tar::new().raw(&head, b"").end()]).paths()
    };
    assert_eq!(prefixed(b"ustar\x0000", "a/b"), "a/ a/b/ a/b/n:");
    assert_eq!(prefixed(b"ustar  \0", "a/b"), "n:");
    assert_eq!(prefixed(b"\0\0\0\0\0\0\0\0", "a/b"), "n:");
}

#[test]
fn star_has_a_shorter_prefix() {
    let mut bytes = Head { prefix: b"a".to_vec(), ..Head::new(b'0', "n") }.encode();
    bytes[476..488].copy_from_slice(b"00000000001 ");
    bytes[508..512].copy_from_slice(b"tar\0");
    sum(&mut bytes);
    assert_eq!(built(vec![Tar::new().bytes(&bytes).end()]).paths(), "a/ a/n:");
}

#[test]
fn checksums_must_be_right_in_one_way_of_summing() {
    let mut bytes = Head::new(b'0', b"\xff\xfe").encode();
    let signed: i32 = bytes
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { i32::from(*byte as i8) })
        .sum();
    bytes[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
    assert_eq!(built(vec![Tar::new().bytes(&bytes).end()]).paths(), "\\xff\\xfe:");
    bytes[0] = b'x';
    refused(vec![Tar::new().bytes(&bytes).end()], "wrong checksum");
}

#[test]
fn numbers_with_garbage_are_refused() {
    for (at, field) in [
        (100, &b"64x4   \0"[..]),
        (108, b"99     \0"),
        (124, b"1 1        \0"),
        (136, b"garbage    \0"),
    ] {
        let mut bytes = Head::new(b'0', "a").encode();
        bytes[at..at + field.len()].copy_from_slice(field);
        sum(&mut bytes);
        refused(vec![Tar::new().bytes(&bytes).end()], "that is no number");
    }
}

#[test]
fn sizes_beyond_all_bounds_are_refused() {
    for field in [
        &b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\0\0\x01\0\0\0\0\0\0\0\0",
    ] {
        let mut bytes = Head::new(b'0', "a").encode();
        bytes[124..136].copy_from_slice(field);
        sum(&mut bytes);
        refused(vec![Tar::new().bytes(&bytes).end()], "size");
    }
    let mut bytes = Head::new(b'0', "a").encode();
    bytes[124..136].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    sum(&mut bytes);
    refused(vec![Tar::new().bytes(&bytes).end()], "more than the limit");
}

#[test]
fn only_files_have_content() {
    for kind in [b'1', b'2', b'3', b'4', b'5', b'6'] {
        let head = Head { size: 1000, ..Head::new(kind, "b").link("a") };
        let one = Tar::new().file("a", "").raw(&head, b"").file("c", "").end();
        let paths = built(vec![one]).paths();
        assert!(paths.starts_with("a: b") && paths.ends_with(" c:"), "{paths}");
    }
}

#[test]
fn a_slash_makes_a_directory_of_an_empty_file() {
    assert_eq!(
        built(vec![Tar::new().raw(&Head { kind: 0, ..head("d/", 0) }, b"").end()]).paths(),
        "d/"
    );
    refused(vec![Tar::new().file("d/", "x").end()], "ends with a slash");
}

#[test]
fn old_files_have_a_nul_for_a_type() {
    let head = Head { kind: 0, magic: [0; 8], ..head("a", 1) };
    assert_eq!(built(vec![Tar::new().raw(&head, b"1").end()]).paths(), "a:1");
    assert_eq!(
        built(vec![Tar::new().raw(&Head { kind: b'7', ..head }, b"1").end()]).paths(),
        "a:1"
    );
}

#[test]
fn unknown_types_are_refused() {
    for kind in *b"VMDNAZ89" {
        refused(vec![Tar::new().raw(&Head::new(kind, "a"), b"").end()], "its type");
    }
}

#[test]
fn the_end_may_be_missing() {
    let body = Tar::new().file("a", "1").0;
    assert_eq!(built(vec![body.clone()]).paths(), "a:1");
    let mut one = body.clone();
    one.extend_from_slice(&[0; 512]);
    assert_eq!(built(vec![one.clone()]).paths(), "a:1");
    one.extend_from_slice(&Tar::new().file("b", "").0);
    refused(vec![one], "zeros stands between");
}

#[test]
fn what_follows_the_end_is_not_read() {
    let mut one = Tar::new().file("a", "1").end();
    one.extend_from_slice(&Tar::new().file("b", "").0);
    one.extend_from_slice(b"garbage");
    assert_eq!(built(vec![one]).paths(), "a:1");
}

#[test]
fn empty_layers_are_empty() {
    assert_eq!(built(vec![vec![]]).paths(), "");
    assert_eq!(built(vec![vec![0; 1024]]).paths(), "");
}

#[test]
fn archives_cut_off_anywhere_are_refused() {
    let whole = Tar::new().pax(&[("path", &[b'n'; 200])]).file("a", vec![b'x'; 700]).0;
    for length in [1, 511, 513, 1000, 1030, 1537, 2000, 2559] {
        refused(vec![whole[..length].to_vec()], "the archive ends");
    }
}

#[test]
fn garbage_is_refused() {
    refused(vec![vec![b'x'; 5000]], "wrong checksum");
    refused(vec![b"not an archive".to_vec()], "ends within a header");
}

#[test]
fn errors_name_the_layer_and_the_entry() {
    refused(
        vec![Tar::new().end(), Tar::new().file("good", "").raw(&Head::new(b'Z', "bad"), b"").end()],
        "the layer 'L2' cannot be used: after the entry 'good'",
    );
    refused(
        vec![Tar::new().file("d/evil", "").hard("d/x", "none").end()],
        "the layer 'L1' cannot be used: the entry 'd/x' cannot be used",
    );
}

fn sparse_pax(records: &[(&str, &[u8])], stored: &[u8]) -> Tar {
    Tar::new().pax(records).raw(&head("GNUSparseFile.0/s", stored.len() as u64), stored)
}

/// Ten bytes at 5 and at 100,000, of 200,000.
fn expected() -> Vec<u8> {
    let mut content = vec![0; 200_000];
    content[5..15].copy_from_slice(b"0123456789");
    content[100_000..100_010].copy_from_slice(b"abcdefghij");
    content
}

const STORED: &[u8] = b"0123456789abcdefghij";

#[test]
fn sparse_files_of_every_kind() {
    let mut map = b"2\n5\n10\n100000\n10\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(STORED);
    let kinds = [
        sparse_pax(
            &[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.realsize", b"200000"),
            ],
            &map,
        ),
        sparse_pax(
            &[
                ("GNU.sparse.size", b"200000"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.map", b"5,10,100000,10"),
            ],
            STORED,
        ),
        sparse_pax(
            &[
                ("GNU.sparse.size", b"200000"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", b"5"),
                ("GNU.sparse.numbytes", b"10"),
                ("GNU.sparse.offset", b"100000"),
                ("GNU.sparse.numbytes", b"10"),
                ("path", b"s"),
            ],
            STORED,
        ),
        Tar::new()
            .bytes(&old_sparse(&[(5, 10), (100_000, 10)], 20, 200_000))
            .bytes(&[STORED, &[0; 492]].concat()),
    ];
    for tar in kinds {
        let image = built(vec![tar.file("z", "").end()]);
        let tree = image.tree();
        assert_eq!(tree.len(), 2);
        assert!(tree[&b"s"[..]].content == expected());
        // Two blocks of data, the rest is holes.
        assert!(
            image.debugfs("stat /s").contains("Blockcount: 16"),
            "{}",
            image.debugfs("stat /s")
        );
    }
}

fn old_sparse(pieces: &[(u64, u64)], stored: u64, size: u64) -> Vec<u8> {
    let octal = |value: u64| format!("{value:011o}\0").into_bytes();
    let mut bytes =
        Head { kind: b'S', magic: *b"ustar  \0", ..head("s", stored) }.encode().to_vec();
    bytes[345..512].fill(0);
    let entry = |(offset, length): &(u64, u64)| [octal(*offset), octal(*length)].concat();
    for (slot, piece) in pieces.iter().take(4).enumerate() {
        bytes[386 + 24 * slot..][..24].copy_from_slice(&entry(piece));
    }
    bytes[482] = u8::from(pieces.len() > 4);
    bytes[483..495].copy_from_slice(&octal(size));
    sum(&mut bytes);
    let rest = pieces.get(4..).unwrap_or_default();
    for (number, part) in rest.chunks(21).enumerate() {
        let mut block = [0; 512];
        for (slot, piece) in part.iter().enumerate() {
            block[24 * slot..][..24].copy_from_slice(&entry(piece));
        }
        block[504] = u8::from((number + 1) * 21 < rest.len());
        bytes.extend_from_slice(&block);
    }
    bytes
}

#[test]
fn old_sparse_files_have_more_map_blocks() {
    let pieces: Vec<_> = (0..60).map(|number| (number * 8192, 4096)).collect();
    let data: Vec<u8> = (0..60u8).flat_map(|number| vec![number + 1; 4096]).collect();
    let one =
        Tar::new().bytes(&old_sparse(&pieces, 60 * 4096, 600_000)).bytes(&data).file("z", "").end();
    let image = built(vec![one]);
    let content = &image.tree()[&b"s"[..]].content;
    assert_eq!(content.len(), 600_000);
    assert_eq!((content[59 * 8192], content[59 * 8192 + 4096]), (60, 0));
    assert!(
        image.debugfs("stat /s").contains(&format!("Blockcount: {}", 61 * 8)),
        "{}",
        image.debugfs("stat /s")
    );
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let part = "does not fit";
    for (map, size) in [
        ("5,10,10,10", "200000"),
        ("100,10,5,10", "200000"),
        ("5,10,100000,10", "100005"),
        ("5,10", "200000"),
        ("5,10,18446744073709551615,10", "200000"),
        ("5,5,10,5,20,5,25,6", "200000"),
    ] {
        let tar = sparse_pax(
            &[("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())],
            STORED,
        );
        refused(vec![tar.end()], part);
    }
    for (records, part) in [
        (vec![("GNU.sparse.map", &b"5,10,100"[..]), ("GNU.sparse.size", b"200000")], "cut off"),
        (vec![("GNU.sparse.map", b"5,10,100000,10")], "size is not told"),
        (
            vec![
                ("GNU.sparse.size", b"200000"),
                ("GNU.sparse.numblocks", b"3"),
                ("GNU.sparse.map", b"5,10,100000,10"),
            ],
            "wrong length",
        ),
        (vec![("GNU.sparse.numbytes", b"5")], "out of order"),
        (vec![("GNU.sparse.major", b"2"), ("GNU.sparse.size", b"5")], "not known"),
        (vec![("GNU.sparse.map", b"x")], "no number"),
    ] {
        refused(vec![sparse_pax(&records, STORED).end()], part);
    }
    for map in ["", "x\n", "2\n5\n10\n", "99999999999999999999999\n", "999999999\n"] {
        let tar = sparse_pax(
            &[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", b"200000"),
            ],
            map.as_bytes(),
        );
        refused(vec![tar.end()], "sparse");
    }
}
