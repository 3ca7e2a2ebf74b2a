//! `FROM scratch`: one static binary, no init, no shell of its own, no `/root`.

use crate::guest::Guest;

#[test]
fn one_static_binary_is_a_machine() {
    let guest = Guest::boot("scratch:1", &["/busybox", "sh", "-c"]);
    guest.has_booted();
    guest.exec_is_exact();
    assert_eq!(guest.says("echo $FROM_IMAGE"), "yes\n");
    assert_eq!(
        guest.exec(&["busybox", "echo", "by the image's PATH"]).ok().text(),
        "by the image's PATH\n"
    );
    // Nothing of banger's lies in the image.
    assert!(!guest.says("ls -a /").contains("banger"));
    guest.much_passes_through();
    guest.stop_and_start_lose_nothing();
    guest.nothing_remains(&[]);
}
