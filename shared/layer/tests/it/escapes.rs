//! Entries that want out of the disk, and paths that go in circles.

use crate::support::{Head, Tar, built, refused};
use std::fs;

mod a_path_that_goes_up_is_refused {
    use super::*;

    fn file(name: &str) {
        refused(vec![Tar::new().dir("a").file(name, "x").end()], "goes up with '..'");
    }

    fn link(name: &str) {
        refused(vec![Tar::new().dir("a").symlink(name, "/etc/").end()], "goes up with '..'");
    }

    each! { file {
        relative: "../victim/x";
        absolute: "/../victim/x";
        out_of_a_directory: "a/../../x";
        to_the_root: "a/..";
        alone: "..";
        within_the_image: "a/../b";
        before_a_marker: "dne/../.wh.etc";
    } }

    each! { link {
        link_relative: "../victim/x";
        link_absolute: "/../victim/x";
        link_out_of_a_directory: "a/../../x";
        link_to_the_root: "a/..";
        link_alone: "..";
        link_within_the_image: "a/../b";
        link_before_a_marker: "dne/../.wh.etc";
    } }
}

#[test]
fn a_hard_link_s_target_that_goes_up_is_refused() {
    refused(vec![Tar::new().hard("p", "../../etc/passwd").end()], "goes up with '..'");
}

mod slashes_and_dots_in_a_path_mean_nothing {
    use super::*;

    fn same(name: &str) {
        assert_eq!(built(vec![Tar::new().file(name, "1").end()]).paths(), "abs/ abs/x:1");
    }

    each! { same {
        absolute: "/abs/x";
        double_slashes: "//abs//x";
        dots: "./abs/./x";
        plain: "abs/x";
        a_dot_after_the_root: "/./abs/x";
    } }

    #[test]
    fn at_the_end_of_directories() {
        assert_eq!(built(vec![Tar::new().dir("a/").dir("a//b/").end()]).paths(), "a/ a/b/");
    }
}

mod only_a_directory_has_no_name {
    use super::*;

    fn link(name: &str) {
        refused(vec![Tar::new().symlink(name, "/etc/").end()], "no name");
    }

    each! { link {
        link_without_a_name: "";
        link_named_dot: ".";
        link_named_dot_slash: "./";
        link_named_slash: "/";
    } }

    #[test]
    fn file_without_a_name() {
        refused(vec![Tar::new().file("", "x").end()], "no name");
    }
}

#[test]
fn absolute_links_stay_inside() {
    let image = built(vec![
        Tar::new().dir("etc").symlink("localetc", "/etc").file("/localetc/unbroken", "1").end(),
    ]);
    assert_eq!(image.paths(), "etc/ etc/unbroken:1 localetc@/etc");
}

mod links_that_climb_stop_at_the_root {
    use super::*;

    fn through(target: &str) {
        let one = Tar::new().dir("dummy").dir("etc").symlink("l", target).file("l/x", "1").end();
        assert!(built(vec![one]).paths().contains("etc/x:1"));
    }

    each! { through {
        over_another_directory: "/dummy/../etc";
        far_above: "../../../../etc";
        above_the_root: "/../../etc";
        relative: "dummy/../etc";
    } }

    #[test]
    fn an_empty_file_truncates_nothing_outside() {
        let one =
            Tar::new().dir("a").dir("a/b").symlink("a/b/l", "../..").file("a/b/l/x", "").end();
        assert!(built(vec![one]).paths().ends_with("x:"));
    }
}

#[test]
fn a_link_to_the_root_is_the_image_s_root() {
    let one = Tar::new()
        .dir("dummy")
        .symlink("dummy/etc", "/")
        .symlink("etc", "/dummy/etc")
        .file("etc/passwd", "")
        .end();
    assert!(built(vec![one]).paths().ends_with("passwd:"));
}

#[test]
fn a_dead_link_s_target_is_made() {
    let one = Tar::new().symlink("l", "/new/deep").file("l/x", "1").end();
    assert_eq!(built(vec![one]).paths(), "l@/new/deep new/ new/deep/ new/deep/x:1");
}

mod circles_of_links_are_refused {
    use super::*;

    const PART: &str = "too many symbolic links";

    #[test]
    fn two_links_to_each_other() {
        refused(vec![Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "").end()], PART);
    }

    #[test]
    fn a_link_below_itself() {
        refused(vec![Tar::new().symlink("a", "a/b").file("a/x", "").end()], PART);
    }

    #[test]
    fn a_hard_link_through_a_link_to_itself() {
        refused(vec![Tar::new().symlink("a", ".//a").hard("x", "a/y").end()], PART);
    }

    fn chain(length: usize) -> Vec<u8> {
        let mut tar = Tar::new().dir("l0");
        for number in 1..=length {
            tar = tar.symlink(format!("l{number}"), format!("l{}", number - 1));
        }
        tar.file(format!("l{length}/x"), "").end()
    }

    #[test]
    fn a_chain_of_40_is_none() {
        assert!(built(vec![chain(40)]).paths().contains("l0/x:"));
    }

    #[test]
    fn a_chain_of_41() {
        refused(vec![chain(41)], PART);
    }
}

#[test]
fn links_that_grow_are_refused() {
    let target = "a/".repeat(2000);
    refused(
        vec![Tar::new().symlink("a", &target).file("a/x", "").end()],
        "too many symbolic links",
    );
}

#[test]
fn a_marker_in_a_circle_does_nothing() {
    let below = Tar::new().symlink("a", "b").symlink("b", "a").end();
    let top = Tar::new().file("a/.wh.x", "").file("b/.wh..wh..opq", "").end();
    assert_eq!(built(vec![below, top]).paths(), "a@b b@a");
}

#[test]
fn a_hard_link_gets_the_image_s_file() {
    let one = Tar::new().dir("etc").file("etc/passwd", "image").hard("p", "/etc/passwd").end();
    assert!(built(vec![one]).paths().ends_with("p:image"));
}

#[test]
fn a_hard_link_to_the_host_s_file_is_refused() {
    refused(vec![Tar::new().hard("p", "/etc/passwd").end()], "'etc/passwd' is not there");
}

#[test]
fn a_hard_link_to_the_host_s_file_through_a_link_is_refused() {
    let one = Tar::new().symlink("d", "../../etc").hard("p", "d/passwd").end();
    refused(vec![one], "is not there");
}

#[test]
fn a_file_below_a_hard_link_that_leads_out_is_refused() {
    let one = Tar::new().hard("loophole", "../victim").file("loophole/file", "x").end();
    refused(vec![one], "goes up");
}

#[test]
fn a_hard_link_through_a_link_that_leads_out_is_refused() {
    let one = Tar::new().symlink("loophole", "../victim").hard("x", "loophole/hello").end();
    refused(vec![one], "is not there");
}

#[test]
fn a_link_through_a_link_that_leads_out_stays_a_link() {
    let one = Tar::new().symlink("loophole", "../victim").symlink("x", "loophole/hello").end();
    assert_eq!(built(vec![one]).paths(), "loophole@../victim x@loophole/hello");
}

#[test]
fn a_file_over_a_link_that_leads_out_takes_its_place() {
    let one = Tar::new().symlink("loophole", "../victim").file("loophole", "1").end();
    assert_eq!(built(vec![one]).paths(), "loophole:1");
}

#[test]
fn a_link_s_own_mode_changes_nothing_else() {
    let victim = tempfile::tempdir().unwrap();
    let path = victim.path().join("p400");
    fs::write(&path, "secret").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let mut head = Head::new(b'1', "sk").link("p400");
    head.mode = 0o777;
    let one =
        Tar::new().symlink("p400", path.to_str().unwrap()).entry(head, b"").file("p400", "x").end();
    assert!(built(vec![one]).paths().starts_with("p400:x sk@/"));
    assert_eq!(fs::read(&path).unwrap(), b"secret");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap()) & 0o777, 0o400);
}

#[test]
fn a_directory_swapped_for_a_link_and_back() {
    let one = Tar::new()
        .dir("foo")
        .dir("foo/tmp")
        .file("foo/tmp/b", "1")
        .symlink("foo", "/")
        .file("foo/tmp/b", "2")
        .dir("foo")
        .dir("foo/tmp")
        .file("foo/tmp/b", "3")
        .end();
    // The middle one went to the image's own /tmp.
    assert_eq!(built(vec![one]).paths(), "foo/ foo/tmp/ foo/tmp/b:3 tmp/ tmp/b:2");
}

#[test]
fn a_directory_swapped_for_a_link_by_the_next_layer() {
    let image = built(vec![
        Tar::new().dir("etc").file("etc/x", "old").dir("a").dir("a/b").end(),
        Tar::new().symlink("a", "/etc").file("a/b/x", "1").end(),
    ]);
    assert_eq!(image.paths(), "a@/etc etc/ etc/b/ etc/b/x:1 etc/x:old");
}

#[test]
fn a_link_swapped_for_a_directory_by_the_next_layer() {
    let image = built(vec![
        Tar::new().dir("etc").file("etc/x", "old").symlink("a", "/etc").end(),
        Tar::new().dir("a").file("a/x", "new").end(),
    ]);
    assert_eq!(image.paths(), "a/ a/x:new etc/ etc/x:old");
}

mod names_that_a_shell_would_run_are_names {
    use super::*;

    fn kept(name: &str) {
        let tree = built(vec![Tar::new().file(name, "x").end()]).tree();
        assert_eq!(tree[name.as_bytes()].content, b"x");
    }

    each! { kept {
        an_option: "-rf";
        a_substitution: "$(touch /tmp/victim)";
        a_command_of_debugfs: "\"\nrm /etc/passwd\n";
    } }
}

mod what_hosts_have_in_these_places_is_not_looked_at {
    use super::*;

    fn through(link: &str, file: &str) {
        let image = built(vec![Tar::new().symlink("l", link).file(file, "x").end()]);
        assert!(image.paths().contains(&format!("{}:x", &file[2..])), "{}", image.paths());
    }

    each! { through {
        the_folder_of_everybody: "/tmp", "l/victim";
        the_same_from_far_below: "../../../../../../tmp", "l/victim";
        a_process: "/proc/self", "l/mem";
        a_disk: "/dev", "l/sda";
        a_configuration: "/etc/ssl", "l/openssl.cnf";
    } }

    #[test]
    fn a_link_to_a_file_becomes_a_file() {
        let one = Tar::new().symlink("l", "/etc/passwd").file("l", "x").end();
        assert_eq!(built(vec![one]).paths(), "l:x");
    }

    #[test]
    fn another_name_of_a_link_becomes_a_file() {
        let one = Tar::new().symlink("p", "/etc/passwd").hard("q", "p").file("q", "x").end();
        assert_eq!(built(vec![one]).paths(), "p@/etc/passwd q:x");
    }

    #[test]
    fn a_device_becomes_a_file() {
        let disk = Head { device: (8, 0), ..Head::new(b'4', "dev/sda") };
        let one = Tar::new().entry(disk, b"").file("dev/sda", "x").end();
        assert_eq!(built(vec![one]).paths(), "dev/ dev/sda:x");
    }
}

mod markers_through_a_link_to_the_root_stay_inside {
    use super::*;

    fn left_by(marker: &str, left: &str) {
        let below = Tar::new().symlink("a", "/").dir("etc").file("etc/x", "").end();
        assert_eq!(built(vec![below, Tar::new().file(marker, "").end()]).paths(), left);
    }

    each! { left_by {
        whiteout: "a/.wh.etc", "a@/";
        opaque: "a/.wh..wh..opq", "";
    } }
}

#[test]
fn links_that_cost_more_to_follow_than_they_are_worth() {
    // Each of these paths means 40 links of 4,000 bytes.
    let mut tar = Tar::new().dir("d");
    for number in 0..40 {
        let next = if number == 39 { "/d".to_owned() } else { format!("/l{}", number + 1) };
        tar = tar.symlink(format!("l{number}"), format!("{}{next}", "/./".repeat(1300)));
    }
    for number in 0..4000 {
        // Two parents in turn, so that none is remembered.
        tar = tar.file(format!("l0/{number}"), "").file(format!("l1/x{number}"), "");
    }
    let start = std::time::Instant::now();
    refused(vec![tar.end()], "too many of its paths go through symbolic links");
    assert!(start.elapsed() < std::time::Duration::from_mins(1), "{:?}", start.elapsed());
}
