//! What `vm set` changed is what the guest has after its next boot.

use crate::guest::Guest;

#[test]
fn a_vm_that_was_set_boots_larger_with_what_it_had() {
    let guest = Guest::create("busybox:1", &["sh", "-c"]);
    guest.run("vm-set", &["web", "--vcpu", "1", "--memory", "160M"]).ok();
    guest.run("vm-start", &["web"]).ok();
    let number = |script: &str| guest.says(script).trim().parse::<u64>().expect("a number");
    let size = |path: &str| number(&format!("df -k {path} | tail -n 1 | awk '{{ print $2 }}'"));
    let memory = || number("awk '/MemTotal/ { print $2 }' /proc/meminfo");
    assert_eq!(number("nproc"), 1);
    let (little, root, work) = (memory(), size("/"), size("/root"));
    guest.says("echo kept > /root/kept; echo kept > /kept");
    // A VM that runs is not changed.
    guest.run("vm-set", &["web", "--vcpu", "2"]).fails(4, "banger vm stop web");
    guest.run("vm-stop", &["web"]).ok();

    let spec = guest.view()["spec"].clone();
    let more = |field: &str| (spec[field].as_u64().expect("a size") + (512 << 20)).to_string();
    let (disk, overlay) = (more("disk_bytes"), more("overlay_bytes"));
    let words = [
        "web",
        "--vcpu",
        "2",
        "--memory",
        "320M",
        "--disk-size",
        &disk,
        "--overlay-size",
        &overlay,
        "--net",
        "none",
    ];
    guest.run("vm-set", &words).ok();
    guest.run("vm-start", &["web"]).ok();
    assert_eq!(number("nproc"), 2);
    assert!(memory() > little + 100_000, "{} KiB of memory", memory());
    assert!(size("/root") > work + 400_000, "/root has {} KiB", size("/root"));
    assert!(size("/") > root + 400_000, "/ has {} KiB", size("/"));
    assert_eq!(guest.says("cat /root/kept /kept"), "kept\nkept\n");
    assert_eq!(guest.says("ls /sys/class/net | tr '\\n' ' '"), "lo ");
    guest.run("vm-stop", &["web"]).ok();
    assert_eq!(guest.view()["last_exit"]["disks_clean"], true, "{}", guest.view());
}
