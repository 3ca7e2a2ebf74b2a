//! What layers do to each other.

use crate::support::{Head, Tar, built, refused};

fn base() -> Vec<u8> {
    Tar::new()
        .dir("etc")
        .file("etc/x", "1")
        .file("etc/y", "2")
        .dir("usr")
        .dir("usr/bin")
        .file("usr/bin/sh", "sh")
        .symlink("bin", "usr/bin")
        .symlink("l", "/etc")
        .end()
}

/// Builds a stack over the base and returns what changed of `etc`, `l` and `d`.
fn over(top: Tar) -> String {
    let paths = built(vec![base(), top.end()]).paths();
    let usual = ["bin@usr/bin", "usr/", "usr/bin/", "usr/bin/sh:sh"];
    paths.split(' ').filter(|word| !usual.contains(word)).collect::<Vec<_>>().join(" ")
}

#[test]
fn nothing_changes_nothing() {
    assert_eq!(over(Tar::new()), "etc/ etc/x:1 etc/y:2 l@/etc");
}

#[test]
fn an_image_without_layers_is_an_empty_disk() {
    assert_eq!(built(vec![]).paths(), "");
}

#[test]
fn a_whiteout_takes_away_below() {
    assert_eq!(over(Tar::new().file("etc/.wh.x", "")), "etc/ etc/y:2 l@/etc");
    assert_eq!(over(Tar::new().file(".wh.etc", "")), "l@/etc");
}

#[test]
fn a_whiteout_goes_through_a_link_and_takes_only_the_link() {
    assert_eq!(over(Tar::new().file("l/.wh.x", "")), "etc/ etc/y:2 l@/etc");
    assert_eq!(over(Tar::new().file(".wh.l", "")), "etc/ etc/x:1 etc/y:2");
}

#[test]
fn a_whiteout_below_a_replaced_link_spares_what_it_pointed_to() {
    let top = || Tar::new().dir("l").file("l/.wh.x", "");
    assert_eq!(over(top()), "etc/ etc/x:1 etc/y:2 l/");
    assert_eq!(over(Tar::new().file("l/.wh..wh..opq", "").dir("l")), "etc/ etc/x:1 etc/y:2 l/");
}

#[test]
fn a_whiteout_of_nothing_does_nothing() {
    let same = "etc/ etc/x:1 etc/y:2 l@/etc";
    assert_eq!(over(Tar::new().file("dead/.wh.x", "")), same);
    assert_eq!(over(Tar::new().file("etc/x/.wh.y", "")), same);
    assert_eq!(over(Tar::new().file(".wh.none", "")), same);
    let dead = Tar::new().symlink("dead", "/nowhere").end();
    let top = Tar::new().file("dead/.wh.x", "").end();
    assert_eq!(built(vec![dead, top]).paths(), "dead@/nowhere");
}

#[test]
fn an_opaque_marker_works_wherever_it_stands() {
    let expected = "etc/ etc/a: l@/etc";
    let opaque = "etc/.wh..wh..opq";
    assert_eq!(over(Tar::new().dir("etc").file("etc/a", "").file(opaque, "")), expected);
    assert_eq!(over(Tar::new().file(opaque, "").dir("etc").file("etc/a", "")), expected);
    assert_eq!(over(Tar::new().dir("etc").file(opaque, "").file("etc/a", "")), expected);
}

#[test]
fn an_opaque_root_keeps_only_what_is_new() {
    assert_eq!(
        built(vec![base(), Tar::new().file("a", "").file(".wh..wh..opq", "").end()]).paths(),
        "a:"
    );
}

#[test]
fn an_opaque_marker_goes_through_a_link() {
    assert_eq!(over(Tar::new().file("l/.wh..wh..opq", "")), "etc/ l@/etc");
}

#[test]
fn an_opaque_marker_below_a_file_does_nothing() {
    assert_eq!(over(Tar::new().file("etc/x/.wh..wh..opq", "")), "etc/ etc/x:1 etc/y:2 l@/etc");
    assert_eq!(
        over(Tar::new().file("a/b/.wh..wh..opq", "").file("a/b/c", "")),
        "a/ a/b/ a/b/c: etc/ etc/x:1 etc/y:2 l@/etc"
    );
}

#[test]
fn an_opaque_directory_over_a_file_and_over_a_link() {
    let top = || Tar::new().dir("etc/x").file("etc/x/.wh..wh..opq", "").file("etc/x/new", "");
    assert_eq!(over(top()), "etc/ etc/x/ etc/x/new: etc/y:2 l@/etc");
    let top = Tar::new().file("l/.wh..wh..opq", "").dir("l").file("l/new", "");
    assert_eq!(over(top), "etc/ etc/x:1 etc/y:2 l/ l/new:");
}

#[test]
fn a_whiteout_spares_its_own_layer() {
    let expected = "etc/ etc/x:new etc/y:2 l@/etc";
    assert_eq!(over(Tar::new().file("etc/.wh.x", "").file("etc/x", "new")), expected);
    assert_eq!(over(Tar::new().file("etc/x", "new").file("etc/.wh.x", "")), expected);
}

#[test]
fn a_whiteout_of_a_directory_leaves_only_what_is_new_in_it() {
    let expected = "etc/ etc/new: l@/etc";
    assert_eq!(over(Tar::new().file(".wh.etc", "").file("etc/new", "")), expected);
    assert_eq!(over(Tar::new().file("etc/new", "").file(".wh.etc", "")), expected);
}

#[test]
fn a_whiteout_of_a_file_and_one_below_it_are_both_taken() {
    assert_eq!(over(Tar::new().file(".wh.etc", "").file("etc/.wh.x", "")), "l@/etc");
}

#[test]
fn markers_for_no_name_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "etc/.wh.", "etc/.wh..", "etc/.wh..."] {
        refused(vec![base(), Tar::new().file(name, "").end()], "a marker for no name");
    }
}

#[test]
fn only_files_are_markers() {
    refused(vec![Tar::new().dir(".wh.x").end()], "a marker is not a file");
    refused(vec![Tar::new().symlink(".wh.x", "y").end()], "a marker is not a file");
    refused(vec![Tar::new().dir("a/.wh..wh..opq").end()], "a marker is not a file");
    refused(vec![Tar::new().file(".wh.etc/file", "").end()], "below a marker");
}

#[test]
fn markers_may_be_links_to_one_and_have_content() {
    let top = Tar::new().file("etc/.wh.x", "content").hard("etc/.wh.y", "etc/.wh.x");
    assert_eq!(over(top), "etc/ l@/etc");
}

#[test]
fn what_a_layer_store_kept_for_itself_is_ignored() {
    let top = Tar::new().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "").file(".wh..wh.aufs", "");
    assert_eq!(over(top), "etc/ etc/x:1 etc/y:2 l@/etc");
}

#[test]
fn a_name_with_the_prefix_inside_is_a_name() {
    assert_eq!(built(vec![Tar::new().file("a.wh.b", "").end()]).paths(), "a.wh.b:");
}

#[test]
fn devices_and_attributes_of_overlays_are_plain() {
    let mut head = Head::new(b'3', "etc/x");
    head.device = (0, 0);
    let top = Tar::new()
        .entry(head, b"")
        .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")])
        .dir("etc")
        .end();
    let image = built(vec![base(), top]);
    assert!(image.paths().contains("etc/x=c etc/y:2"), "{}", image.paths());
    assert_eq!(image.xattr("/etc", "trusted.overlay.opaque"), b"y");
}

#[test]
fn a_directory_over_a_directory_keeps_what_is_in_it() {
    let image = built(vec![base(), Tar::new().dir_mode("etc", 0o700).end()]);
    assert!(image.paths().contains("etc/x:1"));
    assert_eq!(image.tree()[&b"etc"[..]].mode, 0o700);
}

#[test]
fn types_change_over_layers() {
    assert_eq!(
        over(Tar::new().file("etc", "now a file")),
        "etc:now\\ a\\ file l@/etc".replace("\\ ", " ")
    );
    let image = built(vec![
        Tar::new().dir("a").file("a/b", "").end(),
        Tar::new().file("a", "f").end(),
        Tar::new().dir("a").file("a/c", "").end(),
    ]);
    assert_eq!(image.paths(), "a/ a/c:");
}

#[test]
fn types_change_within_a_layer() {
    let one = Tar::new()
        .file("a", vec![b'1'; 9000])
        .file("a", "2")
        .file("b", "")
        .dir("b")
        .file("b/x", "")
        .dir("c")
        .file("c/x", "")
        .file("c", "3")
        .symlink("d", "a")
        .dir("d")
        .end();
    assert_eq!(built(vec![one]).paths(), "a:2 b/ b/x: c:3 d/");
}

#[test]
fn a_directory_replaces_a_link_and_spares_what_it_pointed_to() {
    let image = built(vec![
        Tar::new().dir_mode("x", 0o700).symlink("dir", "/x").end(),
        Tar::new().dir_mode("dir", 0o777).end(),
    ]);
    assert_eq!(image.paths(), "dir/ x/");
    assert_eq!(image.tree()[&b"x"[..]].mode, 0o700);
}

#[test]
fn files_go_through_linked_directories() {
    let image = built(vec![base(), Tar::new().file("bin/foo", "foo").file("l/z", "z").end()]);
    let paths = image.paths();
    assert!(paths.contains("usr/bin/foo:foo") && paths.contains("etc/z:z"), "{paths}");
    assert!(paths.contains("bin@usr/bin"), "{paths}");
    let image =
        built(vec![base(), Tar::new().file("bin/foo", "foo").end(), Tar::new().dir("bin").end()]);
    assert!(image.paths().starts_with("bin/ etc/"), "{}", image.paths());
}

#[test]
fn parents_that_no_layer_has_are_made() {
    let image = built(vec![Tar::new().file("a/b/c", "").dir_mode("a/b", 0o700).end()]);
    assert_eq!(image.paths(), "a/ a/b/ a/b/c:");
    assert_eq!(image.tree()[&b"a"[..]].mode, 0o755);
    assert_eq!(image.tree()[&b"a/b"[..]].mode, 0o700);
}

#[test]
fn a_file_is_no_parent() {
    refused(
        vec![Tar::new().file("a", "").file("a/b", "").end()],
        "'a' on its path is not a directory",
    );
    refused(vec![base(), Tar::new().file("etc/x/y", "").end()], "'etc/x/y'");
}

#[test]
fn the_root_has_its_own_metadata() {
    for name in ["./", ".", "/", ""] {
        let image = built(vec![Tar::new().dir_mode(name, 0o700).file("a", "").end()]);
        assert_eq!(image.root().mode, 0o700, "{name}");
    }
}

#[test]
fn hard_links_share_a_file_over_layers() {
    let image = built(vec![base(), Tar::new().hard("copy", "etc/x").hard("more", "copy").end()]);
    assert_eq!(image.links("/copy"), 3);
    let image = built(vec![
        base(),
        Tar::new().hard("copy", "etc/x").end(),
        Tar::new().file("etc/x", "changed").end(),
    ]);
    assert_eq!(image.links("/copy"), 1);
    assert!(image.paths().starts_with("bin@usr/bin copy:1 etc/ etc/x:changed"));
}

#[test]
fn a_hard_link_survives_the_whiteout_of_its_other_name() {
    let below = Tar::new().dir("d").file("d/a", "data").hard("b", "d/a").end();
    let image = built(vec![below, Tar::new().file(".wh.d", "").end()]);
    assert_eq!(image.paths(), "b:data");
    assert_eq!(image.links("/b"), 1);
}

#[test]
fn a_hard_link_to_itself_changes_nothing() {
    let image = built(vec![Tar::new().file("a", "1").hard("a", "a").end()]);
    assert_eq!(image.paths(), "a:1");
    assert_eq!(image.links("/a"), 1);
}

#[test]
fn a_hard_link_may_take_the_place_of_its_target_s_directory() {
    let image = built(vec![Tar::new().dir("d").file("d/a", "1").hard("d", "d/a").end()]);
    assert_eq!(image.paths(), "d:1");
}

#[test]
fn hard_links_to_what_is_not_there_are_refused() {
    refused(vec![Tar::new().hard("a", "later").file("later", "").end()], "'later' is not there");
    refused(
        vec![base(), Tar::new().file("etc/.wh.x", "").hard("a", "etc/x").end()],
        "is not there",
    );
    refused(vec![Tar::new().hard("a", "").end()], "is not there");
}

#[test]
fn hard_links_to_directories_are_refused() {
    refused(vec![base(), Tar::new().hard("a", "etc").end()], "second name");
    refused(vec![base(), Tar::new().file("a", "").hard("a", "etc").end()], "second name");
}

#[test]
fn a_hard_link_to_a_link_is_that_link() {
    let one =
        Tar::new().file("file", "1").symlink("s1", "file").hard("s2", "s1").file("file", "2").end();
    let image = built(vec![one]);
    assert_eq!(image.paths(), "file:2 s1@file s2@file");
    assert_eq!(image.links("/s1"), 2);
}

#[test]
fn lost_and_found_belongs_to_the_image() {
    assert_eq!(
        built(vec![Tar::new().dir("lost+found").file("lost+found/a", "").end()]).paths(),
        "lost+found/ lost+found/a:"
    );
    assert_eq!(built(vec![Tar::new().file("lost+found", "f").end()]).paths(), "lost+found:f");
    assert_eq!(built(vec![Tar::new().symlink("lost+found", "x").end()]).paths(), "lost+found@x");
}

#[test]
fn a_later_layer_takes_setuid_away() {
    let mut head = Head::new(b'0', "su");
    head.mode = 0o4755;
    let image = built(vec![Tar::new().entry(head, b"1").end(), Tar::new().file("su", "2").end()]);
    assert_eq!(image.tree()[&b"su"[..]].mode, 0o644);
}
