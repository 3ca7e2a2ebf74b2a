//! Names, owners, times, devices and attributes, kept to the letter.

use crate::support::{Head, Tar, built, record, refused};

#[test]
fn a_name_of_255_bytes() {
    let name = "n".repeat(255);
    assert_eq!(built(vec![Tar::new().file(&name, "").end()]).paths(), format!("{name}:"));
}

#[test]
fn a_name_of_256_bytes_is_refused() {
    refused(vec![Tar::new().file("n".repeat(256), "").end()], "more than 255 bytes");
}

#[test]
fn a_directory_s_name_of_256_bytes_is_refused() {
    let path = format!("{}/x", "n".repeat(256));
    refused(vec![Tar::new().file(path, "").end()], "more than 255 bytes");
}

fn long(last: usize) -> String {
    format!("{}e/{}", format!("{}/", "d".repeat(255)).repeat(15), "f".repeat(last))
}

#[test]
fn a_path_of_4096_bytes() {
    assert_eq!(long(254).len(), 4096);
    assert_eq!(built(vec![Tar::new().file(long(254), "").end()]).summary.inodes, 18);
}

#[test]
fn a_path_of_4097_bytes_is_refused() {
    refused(vec![Tar::new().file(long(255), "").end()], "more than the limit of 4096");
}

#[test]
fn a_depth_of_255() {
    built(vec![Tar::new().dir("d/".repeat(255)).end()]);
}

#[test]
fn a_depth_of_256_is_refused() {
    refused(vec![Tar::new().dir("d/".repeat(256)).end()], "directories deep");
}

#[test]
fn a_depth_of_2000_is_refused() {
    refused(vec![Tar::new().dir("d/".repeat(2000)).end()], "directories deep");
}

#[test]
fn every_byte_but_two_may_be_in_a_name() {
    let mut tar = Tar::new();
    let mut expected = Vec::new();
    for byte in 1..=255u8 {
        if byte != b'/' {
            let name = [b'x', byte, b'y'];
            tar = tar.file(name, "");
            expected.push(name.to_vec());
        }
    }
    let found: Vec<_> = built(vec![tar.end()]).tree().into_keys().collect();
    assert_eq!(found, expected);
}

mod a_name_that_means_something_elsewhere_is_a_name {
    use super::*;

    fn kept(name: &[u8]) {
        let tree = built(vec![Tar::new().file(name, "1").end()]).tree();
        assert_eq!(tree.keys().collect::<Vec<_>>(), [name]);
    }

    each! { kept {
        quote: b"\"";
        newline: b"\nrm passwd";
        an_inode_of_debugfs: b"<2>";
        the_journal_of_debugfs: b"<8>";
        option: b"-rf";
        leading_space: b" lead";
        comment: b"#x";
        wildcard: b"*";
        trailing_dot: b"trail.";
        backslash: b"back\\slash";
        overlong_utf8: b"\xc0\xaf";
        no_utf8: b"\xff\xfe";
        decomposed: b"e\xcc\x81";
        composed: b"\xc3\xa9";
        tab: b"\t";
    } }

    #[test]
    fn composed_and_decomposed_are_two() {
        let tar = Tar::new().file(b"e\xcc\x81", "1").file(b"\xc3\xa9", "2");
        assert_eq!(built(vec![tar.end()]).tree().len(), 2);
    }
}

#[test]
fn names_that_differ_in_case_differ() {
    assert_eq!(built(vec![Tar::new().file("a", "1").file("A", "2").end()]).paths(), "A:2 a:1");
}

#[test]
fn a_nul_ends_a_long_name_and_slashes_divide_it() {
    let one = Tar::new().gnu_long(b'L', b"dir/name\0more").raw(&Head::new(b'0', "x"), b"").end();
    assert_eq!(built(vec![one]).paths(), "dir/ dir/name:");
}

mod a_link_s_target {
    use super::*;

    fn target(length: usize) -> String {
        "t/".repeat(length)[..length].to_owned()
    }

    fn kept(target: &str) {
        let tree = built(vec![Tar::new().symlink("l", target).end()]).tree();
        assert_eq!(tree[&b"l"[..]].content, target.as_bytes());
    }

    each! { kept {
        of_1_byte: &target(1);
        of_59_bytes: &target(59);
        of_60_bytes: &target(60);
        of_61_bytes: &target(61);
        of_255_bytes: &target(255);
        of_4095_bytes: &target(4095);
        with_a_newline: "a\nb";
    } }

    fn no_target(target: &str) {
        refused(vec![Tar::new().symlink("l", target).end()], "must be from 1 to 4095");
    }

    each! { no_target {
        of_4096_bytes_is_refused: &target(4096);
    } }
}

#[test]
fn a_link_without_a_target_is_refused() {
    refused(vec![Tar::new().symlink("a", "").end()], "a link without a target");
}

mod an_owner {
    use super::*;

    fn kept(id: u32) {
        let head = Head { uid: id, gid: id, ..Head::new(b'0', "a") };
        let text = id.to_string();
        let tar = Tar::new()
            .entry(head, b"")
            .pax(&[("uid", text.as_bytes()), ("gid", text.as_bytes())])
            .file("b", "");
        let tree = built(vec![tar.end()]).tree();
        for name in [&b"a"[..], b"b"] {
            assert_eq!((tree[name].uid, tree[name].gid), (id, id));
        }
    }

    each! { kept {
        root: 0;
        largest_of_16_bits: 65_535;
        first_beyond_16_bits: 65_536;
        above_31_bits: 4_000_000_000;
        largest: u32::MAX - 1;
    } }
}

mod an_owner_that_cannot_be_is_refused {
    use super::*;

    fn extended(key: &str, id: &str) {
        refused(vec![Tar::new().pax(&[(key, id.as_bytes())]).file("a", "").end()], key);
    }

    each! { extended {
        uid_that_means_none: "uid", "4294967295";
        gid_that_means_none: "gid", "4294967295";
        uid_of_33_bits: "uid", "4294967296";
        gid_of_33_bits: "gid", "4294967296";
        uid_far_above: "uid", "99999999999";
        gid_far_above: "gid", "99999999999";
    } }

    fn negative(at: usize, part: &str) {
        let mut bytes = Head::new(b'0', "a").encode();
        bytes[at..at + 8].fill(0xff);
        crate::support::sum(&mut bytes);
        refused(vec![Tar::new().bytes(&bytes).end()], part);
    }

    each! { negative {
        negative_uid: 108, "uid -1 cannot be";
        negative_gid: 116, "gid -1 cannot be";
    } }
}

mod a_mode {
    use super::*;

    fn kept(mode: u32, kept: u16) {
        let head = Head { mode, ..Head::new(b'0', "a") };
        let dir = Head { mode, ..Head::new(b'5', "d") };
        let tree = built(vec![Tar::new().entry(head, b"").entry(dir, b"").end()]).tree();
        assert_eq!((tree[&b"a"[..]].mode, tree[&b"a"[..]].kind), (kept, 'f'));
        assert_eq!((tree[&b"d"[..]].mode, tree[&b"d"[..]].kind), (kept, 'd'));
    }

    each! { kept {
        with_setuid_and_setgid: 0o6755, 0o6755;
        with_the_sticky_bit: 0o1777, 0o1777;
        of_nothing: 0, 0;
        with_bits_above: 0o107_644, 0o7644;
        that_says_directory: 0o040_700, 0o700;
    } }
}

mod a_time {
    use super::*;

    fn is(text: &str, seconds: i64, nanos: u32) {
        let image = built(vec![Tar::new().pax(&[("mtime", text.as_bytes())]).file("a", "").end()]);
        assert_eq!(image.time("/a"), (seconds, nanos));
    }

    each! { is {
        of_1970: "0", 0, 0;
        a_second_before: "-1", -1, 0;
        the_first_of_1901: "-2147483648", -2_147_483_648, 0;
        before_the_first_of_1901: "-2147483649", -2_147_483_648, 0;
        of_2038: "2147483648", 2_147_483_648, 0;
        of_2106: "4294967296", 4_294_967_296, 0;
        the_last_of_2446: "15032385535", 15_032_385_535, 0;
        after_the_last_of_2446: "15032385536", 15_032_385_535, 999_999_999;
        at_the_end_of_numbers: "9223372036854775807", 15_032_385_535, 999_999_999;
        with_nanoseconds: "1.123456789", 1, 123_456_789;
        with_more_digits: "1.1234567891", 1, 123_456_789;
        with_one_digit: "1.5", 1, 500_000_000;
        with_a_negative_fraction: "-0.5", -1, 500_000_000;
    } }
}

#[test]
fn negative_binary_times() {
    let mut bytes = Head::new(b'0', "a").encode();
    bytes[136..148].fill(0xff);
    crate::support::sum(&mut bytes);
    assert_eq!(built(vec![Tar::new().bytes(&bytes).end()]).time("/a"), (-1, 0));
}

mod a_device {
    use super::*;

    fn device(kind: u8, device: (u32, u32)) -> Vec<u8> {
        Tar::new().entry(Head { device, ..Head::new(kind, "dev") }, b"").end()
    }

    fn kept(kind: u8, major: u32, minor: u32) {
        let image = built(vec![device(kind, (major, minor))]);
        let said = image.debugfs("stat /dev");
        let expected = format!("{major:02}:{minor:02}");
        assert!(said.contains(&format!("Device major/minor number: {expected}")), "{said}");
        assert_eq!(image.paths(), if kind == b'3' { "dev=c" } else { "dev=b" });
    }

    each! { kept {
        small: b'3', 1, 3;
        of_a_minor_above_16_bits: b'4', 259, 70_000;
        the_largest: b'3', 4095, 1_048_575;
        zero: b'4', 0, 0;
        of_a_minor_above_8_bits: b'3', 255, 256;
    } }

    fn impossible(kind: u8, major: u32, minor: u32) {
        let part = format!("there is no device {major}:{minor}");
        refused(vec![device(kind, (major, minor))], &part);
    }

    each! { impossible {
        of_a_major_above_12_bits_is_refused: b'3', 4096, 0;
        of_a_minor_above_20_bits_is_refused: b'4', 0, 1_048_576;
    } }

    fn negative(at: usize) {
        let mut bytes = Head::new(b'3', "dev").encode();
        bytes[at..at + 8].fill(0xff);
        crate::support::sum(&mut bytes);
        refused(vec![Tar::new().bytes(&bytes).end()], "negative device");
    }

    each! { negative {
        of_a_negative_major_is_refused: 329;
        of_a_negative_minor_is_refused: 337;
    } }
}

#[test]
fn a_pipe() {
    assert_eq!(built(vec![Tar::new().entry(Head::new(b'6', "p"), b"").end()]).paths(), "p=p");
}

#[test]
fn attributes_without_number_are_refused_at_once() {
    let body: Vec<u8> =
        (0..30_000).flat_map(|number| record(&format!("SCHILY.xattr.x{number:05}"), b"")).collect();
    let start = std::time::Instant::now();
    refused(
        vec![Tar::new().pax_raw(b'x', &body).file("a", "").end()],
        "more than 256 extended attributes",
    );
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn capabilities_of_another_user_namespace_are_kept() {
    let capability = [1, 0, 0, 3, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0];
    let image = built(vec![with(&[("SCHILY.xattr.security.capability", &capability)]).end()]);
    assert_eq!(image.xattr("/a", "security.capability"), capability);
}

fn with(xattrs: &[(&str, &[u8])]) -> Tar {
    Tar::new().pax(xattrs).file("a", "content")
}

#[test]
fn a_capability_is_in_the_inode() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let image = built(vec![with(&[("SCHILY.xattr.security.capability", &capability)]).end()]);
    assert_eq!(image.xattr("/a", "security.capability"), capability);
}

#[test]
fn attributes_of_1800_bytes_and_of_none_are_in_a_block() {
    let large = vec![b'v'; 1800];
    let image = built(vec![
        with(&[
            ("SCHILY.xattr.user.large", &large),
            ("SCHILY.xattr.user.small", b"s"),
            ("SCHILY.xattr.user.empty", b""),
        ])
        .end(),
    ]);
    assert_eq!(image.xattr("/a", "user.large"), large);
    assert_eq!(image.xattr("/a", "user.small"), b"s");
    assert!(image.debugfs("ea_list /a").contains("user.empty (0)"));
}

#[test]
fn an_attribute_of_4000_bytes_is_in_a_block() {
    let almost = vec![b'w'; 4000];
    let image = built(vec![with(&[("SCHILY.xattr.user.almost", &almost)]).end()]);
    assert_eq!(image.xattr("/a", "user.almost"), almost);
}

#[test]
fn attributes_with_any_bytes_on_anything() {
    let value = b"a\0b\nc=d";
    let mut tar = Tar::new();
    for (kind, name) in [(b'0', "f"), (b'5', "d"), (b'6', "p")] {
        tar = tar.pax(&[("SCHILY.xattr.trusted.x", value)]).entry(Head::new(kind, name), b"");
    }
    tar = tar.pax(&[("SCHILY.xattr.trusted.x", value)]).symlink("l", "t".repeat(100));
    let image = built(vec![tar.end()]);
    for name in ["f", "d", "p", "l"] {
        assert_eq!(image.xattr(&format!("/{name}"), "trusted.x"), value, "{name}");
    }
}

fn named(count: usize, value: &[u8]) -> Tar {
    let names: Vec<String> =
        (0..count).map(|number| format!("SCHILY.xattr.user.{number:03}")).collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), value)).collect();
    with(&records)
}

#[test]
fn a_hundred_and_fifty_attributes_fill_a_block() {
    let image = built(vec![named(150, b"v").end()]);
    assert_eq!(image.xattr("/a", "user.149"), b"v");
    assert_eq!(image.debugfs("ea_list /a").matches("user.").count(), 150);
}

#[test]
fn one_attribute_more_than_the_limit_is_refused() {
    refused(vec![named(257, b"").end()], "more than 256 extended attributes");
}

mod an_attribute_larger_than_a_block_is_refused {
    use super::*;

    fn of(size: usize) {
        let one = with(&[("SCHILY.xattr.user.x", &vec![1; size])]).end();
        refused(vec![one], "more than one block");
    }

    each! { of {
        of_4060_bytes: 4060;
        of_5000_bytes: 5000;
        of_65536_bytes: 65_536;
    } }
}

#[test]
fn an_attribute_s_name_of_255_bytes() {
    let name = format!("SCHILY.xattr.user.{}", "n".repeat(250));
    built(vec![with(&[(&name, b"v")]).end()]);
}

#[test]
fn an_attribute_s_name_of_256_bytes_is_refused() {
    let name = format!("SCHILY.xattr.user.{}", "n".repeat(251));
    refused(vec![with(&[(&name, b"v")]).end()], "more than 255 bytes");
}

#[test]
fn of_two_values_the_last_counts() {
    let body = [record("SCHILY.xattr.user.x", b"1"), record("SCHILY.xattr.user.x", b"2")].concat();
    let image = built(vec![Tar::new().pax_raw(b'x', &body).file("a", "").end()]);
    assert_eq!(image.xattr("/a", "user.x"), b"2");
}

#[test]
fn attributes_of_other_systems_are_left_out() {
    let image = built(vec![
        with(&[
            ("SCHILY.xattr.com.apple.provenance", b"x"),
            ("SCHILY.xattr.user.", b"x"),
            ("SCHILY.xattr.user.y", b"1"),
        ])
        .end(),
    ]);
    let said = image.debugfs("ea_list /a");
    assert!(said.contains("user.y") && !said.contains("apple"), "{said}");
}

#[test]
fn three_ways_to_write_an_attribute() {
    let image = built(vec![
        with(&[
            ("LIBARCHIVE.xattr.user.a%3Db", b"AQI="),
            ("LIBARCHIVE.xattr.user.both", b"AQI="),
            ("SCHILY.xattr.user.both", b"strong"),
            ("RHT.security.selinux", b"system_u:object_r:etc_t:s0"),
        ])
        .end(),
    ]);
    assert_eq!(image.xattr("/a", "user.a=b"), [1, 2]);
    assert_eq!(image.xattr("/a", "user.both"), b"strong");
    assert_eq!(image.xattr("/a", "security.selinux"), b"system_u:object_r:etc_t:s0");
}

#[test]
fn an_attribute_that_is_badly_encoded_is_refused() {
    refused(vec![with(&[("LIBARCHIVE.xattr.user.x", b"!")]).end()], "not encoded");
}

#[test]
fn acls_are_stored_in_the_disk_s_own_form() {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in [(1u16, 6u16, 0u32), (2, 4, 1000), (4, 4, 0), (16, 4, 0), (32, 4, 0)] {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&bits.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    let image = built(vec![
        Tar::new()
            .pax(&[
                ("SCHILY.xattr.system.posix_acl_access", &acl),
                ("SCHILY.xattr.system.posix_acl_default", &acl),
            ])
            .dir("d")
            .end(),
    ]);
    // The tool turns them back into the form of system calls, with zeros where no number belongs.
    assert_eq!(image.xattr("/d", "system.posix_acl_access"), acl);
    assert_eq!(image.xattr("/d", "system.posix_acl_default"), acl);
}

#[test]
fn an_acl_that_is_none_is_refused() {
    let one = with(&[("SCHILY.xattr.system.posix_acl_access", b"nonsense")]).end();
    refused(vec![one], "not an ACL");
}
