//! Names, owners, times, devices and attributes, kept to the letter.

use crate::support::{Head, Tar, built, record, refused};

#[test]
fn names_of_255_bytes_are_the_longest() {
    let name = "n".repeat(255);
    assert_eq!(built(vec![Tar::new().file(&name, "").end()]).paths(), format!("{name}:"));
    refused(vec![Tar::new().file("n".repeat(256), "").end()], "more than 255 bytes");
    refused(
        vec![Tar::new().file(format!("{}/x", "n".repeat(256)), "").end()],
        "more than 255 bytes",
    );
}

#[test]
fn paths_have_a_limit() {
    // 15 names of 255 bytes, and one that makes 4096 bytes of it all.
    let long = format!("{}{}", format!("{}/", "d".repeat(255)).repeat(15), "f".repeat(256 - 1));
    let full = format!("{long}/");
    assert_eq!(full.len(), 4096);
    assert_eq!(built(vec![Tar::new().file(&long, "").end()]).summary.inodes, 17);
    refused(vec![Tar::new().file(format!("{long}/x"), "").end()], "more than the limit of 4096");
}

#[test]
fn depth_has_a_limit() {
    built(vec![Tar::new().dir("d/".repeat(255)).end()]);
    refused(vec![Tar::new().dir("d/".repeat(256)).end()], "directories deep");
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

#[test]
fn names_that_mean_something_elsewhere_are_names() {
    let names: [&[u8]; 14] = [
        b"\"",
        b"\nrm passwd",
        b"<2>",
        b"<8>",
        b"-rf",
        b" lead",
        b"#x",
        b"*",
        b"trail.",
        b"back\\slash",
        b"\xc0\xaf",
        b"e\xcc\x81",
        b"\xc3\xa9",
        b"\t",
    ];
    let tar = names.iter().fold(Tar::new(), |tar, name| tar.file(name, "1"));
    let tree = built(vec![tar.end()]).tree();
    assert!(names.iter().all(|name| tree.contains_key(*name)));
    assert_eq!(tree.len(), names.len());
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

#[test]
fn link_targets_of_every_length() {
    let target = |length: usize| "t/".repeat(length)[..length].to_owned();
    let mut tar = Tar::new();
    for length in [1, 59, 60, 61, 255, 4095] {
        tar = tar.symlink(format!("l{length}"), target(length));
    }
    let image = built(vec![tar.symlink("newline", "a\nb").end()]);
    let tree = image.tree();
    for length in [1, 59, 60, 61, 255, 4095] {
        assert_eq!(tree[format!("l{length}").as_bytes()].content, target(length).as_bytes());
    }
    assert_eq!(tree[&b"newline"[..]].content, b"a\nb");
    refused(vec![Tar::new().symlink("l", "").end()], "must be from 1 to 4095");
    refused(vec![Tar::new().symlink("l", target(4096)).end()], "must be from 1 to 4095");
}

#[test]
fn owners_of_32_bits() {
    for id in [0, 65_535, 65_536, 4_000_000_000, u32::MAX - 1] {
        let head = Head { uid: id, gid: id, ..Head::new(b'0', "a") };
        let seen = &built(vec![Tar::new().entry(head, b"").end()]).tree()[&b"a"[..]];
        assert_eq!((seen.uid, seen.gid), (id, id));
        let text = id.to_string();
        let tar = Tar::new().pax(&[("uid", text.as_bytes()), ("gid", text.as_bytes())]);
        let seen = &built(vec![tar.file("a", "").end()]).tree()[&b"a"[..]];
        assert_eq!((seen.uid, seen.gid), (id, id));
    }
}

#[test]
fn owners_that_cannot_be_are_refused() {
    for id in ["4294967295", "4294967296", "99999999999"] {
        refused(vec![Tar::new().pax(&[("uid", id.as_bytes())]).file("a", "").end()], "uid");
        refused(vec![Tar::new().pax(&[("gid", id.as_bytes())]).file("a", "").end()], "gid");
    }
    let mut bytes = Head::new(b'0', "a").encode();
    bytes[108..116].fill(0xff);
    crate::support::sum(&mut bytes);
    refused(vec![Tar::new().bytes(&bytes).end()], "uid -1 cannot be");
}

#[test]
fn modes_are_kept_and_only_modes() {
    for (mode, kept) in
        [(0o6755, 0o6755), (0o1777, 0o1777), (0, 0), (0o107_644, 0o7644), (0o040_700, 0o700)]
    {
        let head = Head { mode, ..Head::new(b'0', "a") };
        let dir = Head { mode, ..Head::new(b'5', "d") };
        let tree = built(vec![Tar::new().entry(head, b"").entry(dir, b"").end()]).tree();
        assert_eq!((tree[&b"a"[..]].mode, tree[&b"a"[..]].kind), (kept, 'f'));
        assert_eq!((tree[&b"d"[..]].mode, tree[&b"d"[..]].kind), (kept, 'd'));
    }
}

#[test]
fn times_before_1970_and_after_2038() {
    for (text, time) in [
        ("0", (0, 0)),
        ("-1", (-1, 0)),
        ("-2147483648", (-2_147_483_648, 0)),
        ("-2147483649", (-2_147_483_648, 0)),
        ("2147483648", (2_147_483_648, 0)),
        ("4294967296", (4_294_967_296, 0)),
        ("15032385535", (15_032_385_535, 0)),
        ("15032385536", (15_032_385_535, 999_999_999)),
        ("9223372036854775807", (15_032_385_535, 999_999_999)),
        ("1.123456789", (1, 123_456_789)),
        ("1.1234567891", (1, 123_456_789)),
        ("-0.5", (-1, 500_000_000)),
    ] {
        let image = built(vec![Tar::new().pax(&[("mtime", text.as_bytes())]).file("a", "").end()]);
        assert_eq!(image.time("/a"), time, "{text}");
    }
}

#[test]
fn negative_binary_times() {
    let mut bytes = Head::new(b'0', "a").encode();
    bytes[136..148].fill(0xff);
    crate::support::sum(&mut bytes);
    assert_eq!(built(vec![Tar::new().bytes(&bytes).end()]).time("/a"), (-1, 0));
}

#[test]
fn devices_pipes_and_what_cannot_be() {
    let device =
        |kind, device| Tar::new().entry(Head { device, ..Head::new(kind, "dev") }, b"").end();
    for (kind, numbers) in [
        (b'3', (1, 3)),
        (b'4', (259, 70_000)),
        (b'3', (4095, 1_048_575)),
        (b'4', (0, 0)),
        (b'3', (255, 256)),
    ] {
        let image = built(vec![device(kind, numbers)]);
        let said = image.debugfs("stat /dev");
        let expected = format!("{:02}:{:02}", numbers.0, numbers.1);
        assert!(said.contains(&format!("Device major/minor number: {expected}")), "{said}");
        assert_eq!(image.paths(), if kind == b'3' { "dev=c" } else { "dev=b" });
    }
    refused(vec![device(b'3', (4096, 0))], "there is no device 4096:0");
    refused(vec![device(b'4', (0, 1_048_576))], "there is no device 0:1048576");
    assert_eq!(built(vec![Tar::new().entry(Head::new(b'6', "p"), b"").end()]).paths(), "p=p");
}

#[test]
fn negative_device_numbers_are_refused() {
    for at in [329, 337] {
        let mut bytes = Head::new(b'3', "dev").encode();
        bytes[at..at + 8].fill(0xff);
        crate::support::sum(&mut bytes);
        refused(vec![Tar::new().bytes(&bytes).end()], "negative device");
    }
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
fn attributes_in_the_inode_and_in_a_block() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let large = vec![b'v'; 1800];
    let almost = vec![b'w'; 4000];
    let image = built(vec![with(&[("SCHILY.xattr.security.capability", &capability)]).end()]);
    assert_eq!(image.xattr("/a", "security.capability"), capability);
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

#[test]
fn many_attributes_fill_a_block() {
    let names: Vec<String> =
        (0..150).map(|number| format!("SCHILY.xattr.user.{number:03}")).collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"v"[..])).collect();
    let image = built(vec![with(&records).end()]);
    assert_eq!(image.xattr("/a", "user.149"), b"v");
    assert_eq!(image.debugfs("ea_list /a").matches("user.").count(), 150);
    let names: Vec<String> = (0..257).map(|number| format!("SCHILY.xattr.user.{number}")).collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    refused(vec![with(&records).end()], "more than 256 extended attributes");
}

#[test]
fn attributes_larger_than_a_block_are_refused() {
    for size in [4060, 5000, 65_536] {
        refused(
            vec![with(&[("SCHILY.xattr.user.x", &vec![1; size])]).end()],
            "more than one block",
        );
    }
}

#[test]
fn attribute_names_have_a_limit() {
    let name = format!("SCHILY.xattr.user.{}", "n".repeat(250));
    built(vec![with(&[(&name, b"v")]).end()]);
    refused(vec![with(&[(&format!("{name}n"), b"v")]).end()], "more than 255 bytes");
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
    refused(
        vec![with(&[("SCHILY.xattr.system.posix_acl_access", b"nonsense")]).end()],
        "not an ACL",
    );
}
