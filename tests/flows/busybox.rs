//! A guest with busybox's init and no systemd.

use crate::guest::Guest;

#[test]
fn busybox_is_a_machine() {
    let guest = Guest::boot("busybox:1", &["sh", "-c"]);
    assert_eq!(guest.status(), "running");
    // What starts it up is done, and the image's table is its own again.
    guest.has_booted();
    assert_eq!(guest.says("cat /run/started"), "started\n");
    assert_eq!(guest.says("cat /etc/inittab"), crate::fixture::INITTAB);
    assert_eq!(guest.says("grep -c inittab /proc/mounts || true"), "0\n");
    guest.exec_is_exact();
    guest.the_image_counts();
    guest.base_directories_and_modules("/base");
    guest.much_passes_through();
    // The image's init is process 1, and owns what it should.
    assert_eq!(guest.says("readlink /proc/1/exe"), "/bin/busybox\n");
    assert_eq!(guest.says("stat -c '%a %u %g' /root/from-the-image"), "600 0 0\n");
    guest.pause_and_resume();
    guest.what_it_frees_is_the_host_s();
    guest.a_fork_storm_leaves_room("/sys/fs/cgroup");
    guest.stop_and_start_lose_nothing();
    guest.nothing_remains(&[]);
}
