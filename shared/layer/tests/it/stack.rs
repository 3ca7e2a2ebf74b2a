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

mod a_whiteout {
    use super::*;

    const SAME: &str = "etc/ etc/x:1 etc/y:2 l@/etc";

    fn leaves(marker: &str, left: &str) {
        assert_eq!(over(Tar::new().file(marker, "")), left);
    }

    each! { leaves {
        takes_a_file: "etc/.wh.x", "etc/ etc/y:2 l@/etc";
        takes_a_directory: ".wh.etc", "l@/etc";
        goes_through_a_link: "l/.wh.x", "etc/ etc/y:2 l@/etc";
        takes_only_the_link: ".wh.l", "etc/ etc/x:1 etc/y:2";
        in_a_missing_directory_does_nothing: "dead/.wh.x", SAME;
        below_a_file_does_nothing: "etc/x/.wh.y", SAME;
        of_nothing_does_nothing: ".wh.none", SAME;
    } }

    #[test]
    fn through_a_dead_link_does_nothing() {
        let dead = Tar::new().symlink("dead", "/nowhere").end();
        let top = Tar::new().file("dead/.wh.x", "").end();
        assert_eq!(built(vec![dead, top]).paths(), "dead@/nowhere");
    }

    #[test]
    fn below_a_replaced_link_spares_what_it_pointed_to() {
        let top = Tar::new().dir("l").file("l/.wh.x", "");
        assert_eq!(over(top), "etc/ etc/x:1 etc/y:2 l/");
    }

    #[test]
    fn before_its_own_layer_s_file_spares_that() {
        let top = Tar::new().file("etc/.wh.x", "").file("etc/x", "new");
        assert_eq!(over(top), "etc/ etc/x:new etc/y:2 l@/etc");
    }

    #[test]
    fn after_its_own_layer_s_file_spares_that() {
        let top = Tar::new().file("etc/x", "new").file("etc/.wh.x", "");
        assert_eq!(over(top), "etc/ etc/x:new etc/y:2 l@/etc");
    }

    #[test]
    fn of_a_directory_leaves_what_is_new_after_it() {
        let top = Tar::new().file(".wh.etc", "").file("etc/new", "");
        assert_eq!(over(top), "etc/ etc/new: l@/etc");
    }

    #[test]
    fn of_a_directory_leaves_what_is_new_before_it() {
        let top = Tar::new().file("etc/new", "").file(".wh.etc", "");
        assert_eq!(over(top), "etc/ etc/new: l@/etc");
    }

    #[test]
    fn of_a_directory_and_one_below_it_are_both_taken() {
        assert_eq!(over(Tar::new().file(".wh.etc", "").file("etc/.wh.x", "")), "l@/etc");
    }
}

mod an_opaque_marker {
    use super::*;

    const MARKER: &str = "etc/.wh..wh..opq";

    fn leaves(top: Tar, left: &str) {
        assert_eq!(over(top), left);
    }

    each! { leaves {
        at_the_end:
            Tar::new().dir("etc").file("etc/a", "").file(MARKER, ""), "etc/ etc/a: l@/etc";
        at_the_beginning:
            Tar::new().file(MARKER, "").dir("etc").file("etc/a", ""), "etc/ etc/a: l@/etc";
        in_the_middle:
            Tar::new().dir("etc").file(MARKER, "").file("etc/a", ""), "etc/ etc/a: l@/etc";
        through_a_link: Tar::new().file("l/.wh..wh..opq", ""), "etc/ l@/etc";
        below_a_replaced_link:
            Tar::new().file("l/.wh..wh..opq", "").dir("l"), "etc/ etc/x:1 etc/y:2 l/";
        below_a_file:
            Tar::new().file("etc/x/.wh..wh..opq", ""), "etc/ etc/x:1 etc/y:2 l@/etc";
        below_directories_that_are_missing:
            Tar::new().file("a/b/.wh..wh..opq", "").file("a/b/c", ""),
            "a/ a/b/ a/b/c: etc/ etc/x:1 etc/y:2 l@/etc";
        over_a_file:
            Tar::new().dir("etc/x").file("etc/x/.wh..wh..opq", "").file("etc/x/new", ""),
            "etc/ etc/x/ etc/x/new: etc/y:2 l@/etc";
        over_a_link:
            Tar::new().file("l/.wh..wh..opq", "").dir("l").file("l/new", ""),
            "etc/ etc/x:1 etc/y:2 l/ l/new:";
        and_another_below_it:
            Tar::new().file("etc/d/.wh..wh..opq", "").file("etc/d/a", "").file(MARKER, ""),
            "etc/ etc/d/ etc/d/a: l@/etc";
    } }

    #[test]
    fn in_the_root_keeps_only_what_is_new() {
        let top = Tar::new().file("a", "").file(".wh..wh..opq", "").end();
        assert_eq!(built(vec![base(), top]).paths(), "a:");
    }
}

mod a_marker_for_no_name_is_refused {
    use super::*;

    fn marker(name: &str) {
        refused(vec![base(), Tar::new().file(name, "").end()], "a marker for no name");
    }

    each! { marker {
        nothing: ".wh.";
        a_dot: ".wh..";
        two_dots: ".wh...";
        nothing_in_a_directory: "etc/.wh.";
        a_dot_in_a_directory: "etc/.wh..";
        two_dots_in_a_directory: "etc/.wh...";
    } }
}

mod only_files_are_markers {
    use super::*;

    fn no_file(tar: Tar) {
        refused(vec![tar.end()], "a marker is not a file");
    }

    each! { no_file {
        a_directory: Tar::new().dir(".wh.x");
        a_link: Tar::new().symlink(".wh.x", "y");
        a_device: Tar::new().entry(Head::new(b'3', ".wh.x"), b"");
        an_opaque_directory: Tar::new().dir("a/.wh..wh..opq");
    } }

    #[test]
    fn nothing_lies_below_one() {
        refused(vec![Tar::new().file(".wh.etc/file", "").end()], "below a marker");
    }
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
fn a_directory_becomes_a_file_over_layers() {
    assert_eq!(over(Tar::new().file("etc", "now")), "etc:now l@/etc");
}

#[test]
fn a_directory_becomes_a_file_and_a_directory_again_over_layers() {
    let image = built(vec![
        Tar::new().dir("a").file("a/b", "").end(),
        Tar::new().file("a", "f").end(),
        Tar::new().dir("a").file("a/c", "").end(),
    ]);
    assert_eq!(image.paths(), "a/ a/c:");
}

mod within_a_layer {
    use super::*;

    fn is(tar: Tar, paths: &str) {
        assert_eq!(built(vec![tar.end()]).paths(), paths);
    }

    each! { is {
        a_file_becomes_a_shorter_one: Tar::new().file("a", vec![b'1'; 9000]).file("a", "2"), "a:2";
        a_file_becomes_a_directory: Tar::new().file("b", "").dir("b").file("b/x", ""), "b/ b/x:";
        a_directory_becomes_a_file: Tar::new().dir("c").file("c/x", "").file("c", "3"), "c:3";
        a_link_becomes_a_directory: Tar::new().dir("a").symlink("d", "a").dir("d"), "a/ d/";
        a_file_becomes_a_link: Tar::new().file("e", "1").symlink("e", "a"), "e@a";
    } }
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
}

#[test]
fn a_linked_directory_becomes_one_of_its_own() {
    let image =
        built(vec![base(), Tar::new().file("bin/foo", "foo").end(), Tar::new().dir("bin").end()]);
    assert!(image.paths().starts_with("bin/ etc/"), "{}", image.paths());
    assert!(image.paths().contains("usr/bin/foo:foo"), "{}", image.paths());
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
    let one = Tar::new().file("a", "").file("a/b", "").end();
    refused(vec![one], "'a' on its path is not a directory");
}

#[test]
fn a_file_of_a_lower_layer_is_no_parent() {
    refused(vec![base(), Tar::new().file("etc/x/y", "").end()], "'etc/x/y'");
}

mod the_root_has_its_own_metadata {
    use super::*;

    fn named(name: &str) {
        let image = built(vec![Tar::new().dir_mode(name, 0o700).file("a", "").end()]);
        assert_eq!(image.root().mode, 0o700);
    }

    each! { named {
        as_dot_slash: "./";
        as_dot: ".";
        as_slash: "/";
        as_nothing: "";
    } }
}

#[test]
fn hard_links_share_a_file_over_layers() {
    let image = built(vec![base(), Tar::new().hard("copy", "etc/x").hard("more", "copy").end()]);
    assert_eq!(image.links("/copy"), 3);
}

#[test]
fn a_hard_link_keeps_what_its_target_was() {
    let image = built(vec![
        base(),
        Tar::new().hard("copy", "etc/x").end(),
        Tar::new().file("etc/x", "changed").end(),
    ]);
    assert_eq!(image.links("/copy"), 1);
    assert!(image.paths().starts_with("bin@usr/bin copy:1 etc/ etc/x:changed"));
}

#[test]
fn a_whiteout_of_one_of_two_names_leaves_the_other() {
    let below = Tar::new().file("a", "data").hard("b", "a").end();
    let image = built(vec![below, Tar::new().file(".wh.a", "").end()]);
    assert_eq!(image.paths(), "b:data");
    assert_eq!(image.links("/b"), 1);
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

mod a_hard_link_to_what_is_not_there_is_refused {
    use super::*;

    fn missing(tar: Tar) {
        refused(vec![base(), tar.end()], "is not there");
    }

    each! { missing {
        to_a_later_entry: Tar::new().hard("a", "later").file("later", "");
        to_what_its_layer_took_away: Tar::new().file("etc/.wh.x", "").hard("a", "etc/x");
        to_the_root: Tar::new().hard("a", "./");
    } }

    #[test]
    fn to_what_a_lower_layer_took_away() {
        let stack = [Tar::new().file("etc/.wh.x", ""), Tar::new().hard("a", "etc/x")];
        let stack = [base()].into_iter().chain(stack.into_iter().map(Tar::end)).collect();
        refused(stack, "is not there");
    }
}

#[test]
fn a_hard_link_to_a_directory_is_refused() {
    refused(vec![base(), Tar::new().hard("a", "etc").end()], "second name");
}

#[test]
fn a_hard_link_to_a_directory_in_place_of_a_file_is_refused() {
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

mod lost_and_found_belongs_to_the_image {
    use super::*;

    fn is(tar: Tar, paths: &str) {
        assert_eq!(built(vec![tar.end()]).paths(), paths);
    }

    each! { is {
        as_a_directory:
            Tar::new().dir("lost+found").file("lost+found/a", ""), "lost+found/ lost+found/a:";
        as_a_file: Tar::new().file("lost+found", "f"), "lost+found:f";
        as_a_link: Tar::new().symlink("lost+found", "x"), "lost+found@x";
    } }
}

#[test]
fn a_later_layer_takes_setuid_away() {
    let mut head = Head::new(b'0', "su");
    head.mode = 0o4755;
    let image = built(vec![Tar::new().entry(head, b"1").end(), Tar::new().file("su", "2").end()]);
    assert_eq!(image.tree()[&b"su"[..]].mode, 0o644);
}
