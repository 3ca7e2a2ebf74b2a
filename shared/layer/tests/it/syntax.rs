//! Archives that two programs could read in two ways, and broken ones.

use crate::support::{Head, Tar, built, old_sparse, record, refused, sum};

fn head(name: &str, size: u64) -> Head {
    Head { size, ..Head::new(b'0', name) }
}

mod an_extended_size_that_is_not_the_header_s_is_refused {
    use super::*;

    fn size(size: &str, told: u64, content: &[u8]) {
        let one = Tar::new().pax(&[("size", size.as_bytes())]).raw(&head("a", told), content);
        refused(vec![one.file("b", "2").end()], "two sizes");
    }

    each! { size {
        above_it: "1024", 0, &Tar::new().file("evil", "x").0;
        below_it: "3", 700, b"abc";
        of_nothing: "0", 1024, b"";
        as_large_as_octal_digits_go: "8589934591", 0, b"";
    } }
}

#[test]
fn an_extended_size_beyond_octal_digits_counts() {
    let one = Tar::new().pax(&[("size", b"8589934592")]).raw(&head("a", 0), b"").end();
    refused(vec![one], "ends within the content");
}

#[test]
fn no_size_is_beyond_all_numbers() {
    for size in [u64::MAX, u64::MAX - 510, 1 << 63] {
        let size = size.to_string();
        let one = Tar::new().pax(&[("size", size.as_bytes())]).raw(&head("a", 0), b"").end();
        refused(vec![one], "more than any file's");
    }
    let largest = i64::MAX.to_string();
    let one = Tar::new().pax(&[("size", largest.as_bytes())]).raw(&head("a", 0), b"").end();
    refused(vec![one], "more than the limit");
}

mod an_extended_header_is_for_the_file_after_it {
    use super::*;

    const SIZE: &[(&str, &[u8])] = &[("size", b"1")];

    fn read(tar: Tar, name: &str) {
        let one = tar.raw(&head("x", 1), b"1").file("b", "2").end();
        assert_eq!(built(vec![one]).paths(), format!("b:2 {name}:1"));
    }

    fn long() -> String {
        "n".repeat(150)
    }

    each! { read {
        before_a_long_name: Tar::new().pax(SIZE).gnu_long(b'L', long().as_bytes()), &long();
        after_a_long_name: Tar::new().gnu_long(b'L', long().as_bytes()).pax(SIZE), &long();
        after_one_for_all: Tar::new().pax_raw(b'g', &record("comment", b"all")).pax(SIZE), "x";
    } }
}

mod an_announcement_without_an_entry_is_refused {
    use super::*;

    fn alone(archive: Vec<u8>) {
        refused(vec![archive], "before the entry that was announced");
    }

    each! { alone {
        an_extended_header: Tar::new().pax(&[("path", b"a")]).end();
        a_long_target: Tar::new().gnu_long(b'K', b"a").end();
        a_long_name_without_an_end: Tar::new().gnu_long(b'L', b"a").0;
    } }
}

mod two_announcements_of_one_kind_are_refused {
    use super::*;

    fn two(tar: Tar, part: &str) {
        refused(vec![tar.file("c", "").end()], part);
    }

    each! { two {
        extended_headers:
            Tar::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]), "two extended headers";
        names: Tar::new().gnu_long(b'L', b"a").gnu_long(b'L', b"b"), "two long names";
        targets: Tar::new().gnu_long(b'K', b"a").gnu_long(b'K', b"b"), "two long link targets";
    } }
}

mod a_malformed_extended_header_is_refused {
    use super::*;

    /// For one entry, and for all.
    fn body(body: &str) {
        for kind in *b"xg" {
            let one = Tar::new().pax_raw(kind, body.as_bytes()).file("a", "").end();
            refused(vec![one], "extended header");
        }
    }

    each! { body {
        length_0: "0 a=b\n";
        length_beyond_the_end: "99 a=b\n";
        without_an_equals_sign: "6 ab\n";
        without_a_newline: "6 a=bc";
        leading_zero: "06 a=b\n";
        leading_space: " 6 a=b\n";
        length_that_is_no_number: "x a=b\n";
        negative_length: "-6 a=b\n";
        zeros_after_it: "6 a=b\n\0\0";
    } }
}

mod an_extended_value_that_is_none_is_refused {
    use super::*;

    fn value(key: &str, value: &str) {
        let body = record(key, value.as_bytes());
        let one = Tar::new().pax_raw(b'x', &body).file("a", "").end();
        refused(vec![one], &format!("'{key}' is wrong"));
    }

    each! { value {
        negative_size: "size", "-1";
        size_that_is_no_number: "size", "x";
        size_beyond_64_bits: "size", "99999999999999999999";
        uid_with_a_fraction: "uid", "1.5";
        time_that_is_no_number: "mtime", "nan";
        time_with_an_exponent: "mtime", "1e9";
        path_with_a_nul: "path", "a\0b";
        target_with_a_nul: "linkpath", "\0";
    } }
}

mod what_is_told_twice_is_refused {
    use super::*;

    fn twice(records: &[(&str, &[u8])]) {
        refused(vec![Tar::new().pax(records).file("a", "").end()], "told twice");
    }

    each! { twice {
        path: &[("path", b"a"), ("path", b"../a")];
        target: &[("linkpath", b"a"), ("linkpath", b"b")];
        size: &[("size", b"0"), ("size", b"0")];
        owner: &[("uid", b"0"), ("uid", b"1")];
        time: &[("mtime", b"0"), ("mtime", b"1")];
        sparse_size: &[("GNU.sparse.size", b"1"), ("GNU.sparse.realsize", b"2")];
        sparse_name: &[("GNU.sparse.name", b"1"), ("GNU.sparse.name", b"2")];
        map: &[("GNU.sparse.map", b"0,1"), ("GNU.sparse.map", b"0,2")];
    } }

    fn two(tar: Tar, part: &str) {
        refused(vec![tar.end()], part);
    }

    each! { two {
        names: Tar::new().gnu_long(b'L', b"a").pax(&[("path", b"b")]).file("c", ""), "two names";
        names_the_other_way:
            Tar::new().pax(&[("path", b"b")]).gnu_long(b'L', b"a").file("c", ""), "two names";
        targets:
            Tar::new().gnu_long(b'K', b"a").pax(&[("linkpath", b"b")]).symlink("c", "d"),
            "two link targets";
    } }
}

mod what_is_empty_is_refused {
    use super::*;

    fn record_of(key: &str) {
        let one = Tar::new().pax(&[(key, b"")]).file("a", "").end();
        refused(vec![one], &format!("'{key}' is wrong"));
    }

    each! { record_of {
        path: "path";
        target: "linkpath";
        size: "size";
        owner: "gid";
        time: "mtime";
    } }
}

mod what_holds_for_all_entries_is_refused {
    use super::*;

    fn key(key: &str) {
        let one = Tar::new().pax_raw(b'g', &record(key, b"1")).file("a", "").end();
        refused(vec![one], "for all entries");
    }

    each! { key {
        path: "path";
        target: "linkpath";
        size: "size";
        owner: "uid";
        time: "mtime";
        letters: "hdrcharset";
        map: "GNU.sparse.map";
        attribute: "SCHILY.xattr.user.a";
    } }

    #[test]
    fn between_an_entry_and_what_announces_it() {
        let comment = record("comment", b"x");
        let one = Tar::new().gnu_long(b'L', b"a").pax_raw(b'g', &comment).file("b", "").end();
        refused(vec![one], "before one's own");
    }
}

mod a_target_of_what_is_no_link_is_refused {
    use super::*;

    fn announced(tar: Tar) {
        refused(vec![tar.file("a", "").end()], "a link's target and is none");
    }

    each! { announced {
        in_an_extended_header: Tar::new().pax(&[("linkpath", b"b")]);
        at_length: Tar::new().gnu_long(b'K', b"b");
    } }
}

mod a_prefix_is_one_only_where_the_format_has_it {
    use super::*;

    fn prefixed(magic: [u8; 8]) -> Vec<u8> {
        let head = Head { magic, prefix: b"a/b".to_vec(), ..Head::new(b'0', "n") };
        Tar::new().raw(&head, b"").end()
    }

    #[test]
    fn in_posix_archives() {
        assert_eq!(built(vec![prefixed(*b"ustar\x0000")]).paths(), "a/ a/b/ a/b/n:");
    }

    fn elsewhere(magic: [u8; 8], part: &str) {
        refused(vec![prefixed(magic)], part);
    }

    each! { elsewhere {
        in_gnu_archives: *b"ustar  \0", "a prefix to some";
        in_old_archives: *b"\0\0\0\0\0\0\0\0", "a prefix to some";
        in_archives_of_no_kind: *b"ustarXYZ", "a kind that is not known";
    } }
}

#[test]
fn a_slash_after_an_empty_file_s_name_is_refused() {
    refused(vec![Tar::new().file("d/", "").end()], "ends with a slash");
}

mod a_slash_is_in_both_names_or_in_none {
    use super::*;

    fn named(tar: Tar, short: &str) {
        let head = Head { kind: 0, ..head(short, 0) };
        refused(vec![tar.raw(&head, b"").end()], "ends with a slash");
    }

    each! { named {
        not_in_the_short_one: Tar::new().pax(&[("path", b"d")]), "d/";
        not_in_the_long_one: Tar::new().gnu_long(b'L', b"d/"), "d";
    } }
}

mod a_sparse_file_of_another_format_is_refused {
    use super::*;

    const MAP: &[(&str, &[u8])] = &[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"1")];

    fn sparse(tar: Tar) {
        refused(vec![tar.end()], "not known to all");
    }

    each! { sparse {
        gnu_s_in_posix: Tar::new().raw(&Head::new(b'S', "a"), b"");
        posix_s_in_gnu:
            Tar::new().pax(MAP).raw(&Head { magic: *b"ustar  \0", ..head("a", 1) }, b"1");
        of_a_directory: Tar::new().pax(MAP).dir("a");
    } }
}

#[test]
fn star_has_a_shorter_prefix() {
    let mut bytes = Head { prefix: b"a".to_vec(), ..Head::new(b'0', "n") }.encode();
    bytes[476..488].copy_from_slice(b"00000000001 ");
    bytes[508..512].copy_from_slice(b"tar\0");
    sum(&mut bytes);
    assert_eq!(built(vec![Tar::new().bytes(&bytes).end()]).paths(), "a/ a/n:");
}

fn summed_as_signed() -> [u8; 512] {
    let mut bytes = Head::new(b'0', b"\xff\xfe").encode();
    let signed: i32 = bytes
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { i32::from(*byte as i8) })
        .sum();
    bytes[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
    bytes
}

#[test]
fn a_checksum_of_signed_bytes_is_right() {
    let one = Tar::new().bytes(&summed_as_signed()).end();
    assert_eq!(built(vec![one]).paths(), "\\xff\\xfe:");
}

#[test]
fn a_wrong_checksum_is_refused() {
    let mut bytes = summed_as_signed();
    bytes[0] = b'x';
    refused(vec![Tar::new().bytes(&bytes).end()], "wrong checksum");
}

mod a_number_with_garbage_is_refused {
    use super::*;

    fn field(at: usize, field: &[u8]) {
        let mut bytes = Head::new(b'0', "a").encode();
        bytes[at..at + field.len()].copy_from_slice(field);
        sum(&mut bytes);
        refused(vec![Tar::new().bytes(&bytes).end()], "that is no number");
    }

    each! { field {
        mode: 100, b"64x4   \0";
        uid: 108, b"99     \0";
        size: 124, b"1 1        \0";
        time: 136, b"garbage    \0";
    } }
}

mod a_number_may_be_padded {
    use super::*;

    fn size(field: &[u8; 12]) {
        let mut bytes = head("a", 1).encode();
        bytes[124..136].copy_from_slice(field);
        sum(&mut bytes);
        let one = Tar::new().bytes(&bytes).bytes(&[b'x'; 1]).bytes(&[0; 511]).end();
        assert_eq!(built(vec![one]).paths(), "a:x");
    }

    each! { size {
        by_spaces_before: b"          1\0";
        by_spaces_after: b"1          \0";
        by_nuls_after: b"1\0\0\0\0\0\0\0\0\0\0\0";
        without_an_end: b"000000000001";
    } }
}

mod a_size_beyond_all_bounds_is_refused {
    use super::*;

    fn size(field: &[u8; 12], part: &str) {
        let mut bytes = Head::new(b'0', "a").encode();
        bytes[124..136].copy_from_slice(field);
        sum(&mut bytes);
        refused(vec![Tar::new().bytes(&bytes).end()], part);
    }

    each! { size {
        above_63_bits: b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "size";
        negative: b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "size";
        above_64_bits: b"\x80\0\0\x01\0\0\0\0\0\0\0\0", "size";
        of_63_bits: b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", "more than the limit";
    } }
}

mod only_files_have_content {
    use super::*;

    fn of(kind: u8) {
        let link = if matches!(kind, b'1' | b'2') { "a" } else { "" };
        let head = Head { size: 1000, ..Head::new(kind, "b").link(link) };
        let one = Tar::new().file("a", "").raw(&head, b"").file("c", "").end();
        let paths = built(vec![one]).paths();
        assert!(paths.starts_with("a: b") && paths.ends_with(" c:"), "{paths}");
    }

    each! { of {
        not_hard_links: b'1';
        not_links: b'2';
        not_characters: b'3';
        not_disks: b'4';
        not_directories: b'5';
        not_pipes: b'6';
    } }
}

#[test]
fn a_slash_makes_a_directory_of_an_empty_file_of_before_there_were_any() {
    let head = Head { kind: 0, magic: [0; 8], ..head("d/", 0) };
    assert_eq!(built(vec![Tar::new().raw(&head, b"").end()]).paths(), "d/");
    let head = Head { magic: *b"ustar\x0000", ..head };
    refused(vec![Tar::new().raw(&head, b"").end()], "ends with a slash");
}

#[test]
fn a_slash_after_a_file_with_content_is_refused() {
    refused(vec![Tar::new().file("d/", "x").end()], "ends with a slash");
}

#[test]
fn an_old_file_has_a_nul_for_a_type() {
    let head = Head { kind: 0, magic: [0; 8], ..head("a", 1) };
    assert_eq!(built(vec![Tar::new().raw(&head, b"1").end()]).paths(), "a:1");
}

#[test]
fn a_contiguous_file_is_a_file() {
    let head = Head { kind: b'7', ..head("a", 1) };
    assert_eq!(built(vec![Tar::new().raw(&head, b"1").end()]).paths(), "a:1");
}

mod an_unknown_type_is_refused {
    use super::*;

    fn of(kind: u8) {
        refused(vec![Tar::new().raw(&Head::new(kind, "a"), b"").end()], "its type");
    }

    each! { of {
        volume: b'V';
        continued: b'M';
        dumped_directory: b'D';
        old_long_name: b'N';
        access_list: b'A';
        star_s: b'Z';
        eight: b'8';
        nine: b'9';
    } }
}

#[test]
fn the_end_may_be_missing() {
    assert_eq!(built(vec![Tar::new().file("a", "1").0]).paths(), "a:1");
}

#[test]
fn half_of_the_end_may_be_missing() {
    assert_eq!(built(vec![Tar::new().file("a", "1").bytes(&[0; 512]).0]).paths(), "a:1");
}

#[test]
fn a_block_of_zeros_between_entries_is_refused() {
    let one = Tar::new().file("a", "1").bytes(&[0; 512]).file("b", "").0;
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
fn a_layer_without_a_byte_is_empty() {
    assert_eq!(built(vec![vec![]]).paths(), "");
}

#[test]
fn a_layer_of_the_end_alone_is_empty() {
    assert_eq!(built(vec![vec![0; 1024]]).paths(), "");
}

mod an_archive_cut_off_is_refused {
    use super::*;

    fn after(length: usize) {
        let whole = Tar::new().pax(&[("path", &[b'n'; 200])]).file("a", vec![b'x'; 700]).0;
        refused(vec![whole[..length].to_vec()], "the archive ends");
    }

    each! { after {
        after_its_first_byte: 1;
        before_the_end_of_its_first_header: 511;
        after_a_byte_of_an_extended_header: 513;
        in_an_extended_header: 1000;
        in_the_next_header: 1030;
        after_a_byte_of_content: 1537;
        in_content: 2000;
        in_padding: 2559;
    } }
}

#[test]
fn garbage_is_refused() {
    refused(vec![vec![b'x'; 5000]], "wrong checksum");
}

#[test]
fn a_sentence_is_refused() {
    refused(vec![b"not an archive".to_vec()], "ends within a header");
}

#[test]
fn an_error_between_entries_names_the_layer_and_the_entry_before() {
    refused(
        vec![Tar::new().end(), Tar::new().file("good", "").raw(&Head::new(b'Z', "bad"), b"").end()],
        "the layer 'L2' cannot be used: after the entry 'good'",
    );
}

#[test]
fn an_error_in_an_entry_names_the_layer_and_the_entry() {
    refused(
        vec![Tar::new().file("d/evil", "").hard("d/x", "none").end()],
        "the layer 'L1' cannot be used: the entry 'd/x' cannot be used",
    );
}

fn sparse_pax(records: &[(&str, &[u8])], stored: &[u8]) -> Tar {
    Tar::new().pax(records).raw(&head("GNUSparseFile.0/s", stored.len() as u64), stored)
}

/// A block at 5 and ten bytes at 100,000, of 200,000.
fn expected() -> Vec<u8> {
    let mut content = vec![0; 200_000];
    content[5..517].fill(b'x');
    content[100_000..100_010].copy_from_slice(b"abcdefghij");
    content
}

const STORED: &[u8] = &{
    let mut stored = [b'x'; 522];
    let (_, last) = stored.split_at_mut(512);
    last.copy_from_slice(b"abcdefghij");
    stored
};

mod a_sparse_file {
    use super::*;

    fn read(tar: Tar) {
        let image = built(vec![tar.file("z", "").end()]);
        let tree = image.tree();
        assert_eq!(tree.len(), 2);
        assert!(tree[&b"s"[..]].content == expected());
        // Two blocks of data, the rest is holes.
        let said = image.debugfs("stat /s");
        assert!(said.contains("Blockcount: 16"), "{said}");
    }

    fn with_its_map_before_its_content() -> Tar {
        let mut map = b"2\n5\n512\n100000\n10\n".to_vec();
        map.resize(512, 0);
        map.extend_from_slice(STORED);
        sparse_pax(
            &[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.realsize", b"200000"),
            ],
            &map,
        )
    }

    each! { read {
        of_version_1_0: with_its_map_before_its_content();
        of_version_0_1: sparse_pax(
            &[
                ("GNU.sparse.size", b"200000"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.map", b"5,512,100000,10"),
            ],
            STORED,
        );
        of_version_0_0: sparse_pax(
            &[
                ("GNU.sparse.size", b"200000"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", b"5"),
                ("GNU.sparse.numbytes", b"512"),
                ("GNU.sparse.offset", b"100000"),
                ("GNU.sparse.numbytes", b"10"),
                ("path", b"s"),
            ],
            STORED,
        );
        of_old_gnu_archives: Tar::new()
            .bytes(&old_sparse(head("s", 522), &[(5, 512), (100_000, 10)], 200_000))
            .content(STORED);
    } }
}

#[test]
fn old_sparse_files_have_more_map_blocks() {
    let pieces: Vec<_> = (0..60).map(|number| (number * 8192, 4096)).collect();
    let data: Vec<u8> = (0..60u8).flat_map(|number| vec![number + 1; 4096]).collect();
    let one = Tar::new()
        .bytes(&old_sparse(head("s", 60 * 4096), &pieces, 600_000))
        .bytes(&data)
        .file("z", "")
        .end();
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

mod a_sparse_map_that_lies_is_refused {
    use super::*;

    fn map(map: &str, size: &str) {
        let tar = sparse_pax(
            &[("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())],
            STORED,
        );
        refused(vec![tar.end()], "does not fit");
    }

    each! { map {
        overlapping: "5,10,10,10", "200000";
        out_of_order: "100,10,5,10", "200000";
        behind_the_end: "5,10,100000,10", "100005";
        shorter_than_the_content: "5,10", "200000";
        at_the_end_of_numbers: "5,10,18446744073709551615,10", "200000";
        longer_than_the_content: "0,512,1000,20", "200000";
    } }

    #[test]
    fn of_pieces_that_are_no_whole_blocks() {
        let map: &[(&str, &[u8])] =
            &[("GNU.sparse.size", b"200000"), ("GNU.sparse.map", b"5,10,100000,512")];
        refused(vec![sparse_pax(map, STORED).end()], "no whole blocks");
    }

    fn records(records: &[(&str, &[u8])], part: &str) {
        refused(vec![sparse_pax(records, STORED).end()], part);
    }

    each! { records {
        cut_off:
            &[("GNU.sparse.map", b"5,10,100"), ("GNU.sparse.size", b"200000")], "cut off";
        without_a_size: &[("GNU.sparse.map", b"5,512,100000,10")], "size is not told";
        of_another_length:
            &[
                ("GNU.sparse.size", b"200000"),
                ("GNU.sparse.numblocks", b"3"),
                ("GNU.sparse.map", b"5,512,100000,10"),
            ],
            "wrong length";
        with_a_length_before_its_place: &[("GNU.sparse.numbytes", b"5")], "out of order";
        of_version_2: &[("GNU.sparse.major", b"2"), ("GNU.sparse.size", b"5")], "not known";
        without_a_number: &[("GNU.sparse.map", b"x")], "no number";
    } }

    fn stored(map: &str) {
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

    each! { stored {
        stored_as_nothing: "";
        stored_as_no_number: "x\n";
        stored_and_cut_off: "2\n5\n10\n";
        stored_with_a_number_beyond_64_bits: "99999999999999999999999\n";
        stored_with_too_many_pieces: "999999999\n";
    } }
}
