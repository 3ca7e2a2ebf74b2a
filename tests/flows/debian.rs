//! Debian with systemd: layers, owners, modes, capabilities, and what systemd makes of a VM.

use crate::guest::Guest;

#[test]
fn debian_with_systemd_is_what_its_layers_say() {
    let guest = Guest::boot("debian:bookworm", &["sh", "-c"]);
    guest.has_booted();
    guest.exec_is_exact();
    guest.the_image_counts();
    assert_eq!(guest.says("pwd"), "/opt/app\n");
    assert_eq!(guest.says("cat /proc/1/comm"), "systemd\n");
    layers_are_merged(&guest);
    guest.base_directories_and_modules("/opt/base-dir");
    guest.much_passes_through();
    guest.fences_hold();
    crate::ssh::packages_that_are_not_to_be_had_are_said(&guest);
    // The guest's own tools see the machine as it is.
    assert_eq!(
        guest.says("cat /etc/machine-id").trim(),
        guest.view()["id"].as_str().expect("an id")
    );
    assert!(guest.says("cat /etc/os-release").contains("bookworm"));
    no_unit_waits_in_vain(&guest);
    guest.says(&format!(
        "cat > /etc/systemd/system/slow.service <<'X'\n{SLOW}X\nsystemctl enable slow"
    ));
    guest.stop_and_start_by(|| a_unit_holds_the_boot_up(&guest));
    let console = std::fs::read(guest.folder().join("console.log.1")).expect("the first boot's");
    let console = String::from_utf8_lossy(&console);
    for word in ["FAILED", "DEPEND", "Timed out"] {
        assert!(!console.contains(word), "a unit failed:\n{console}");
    }
    guest.nothing_remains(&[]);
}

/// Whatever its image's boot waits for.
const SLOW: &str = "[Unit]\nDefaultDependencies=no\nBefore=basic.target\n\
    [Service]\nType=oneshot\nExecStart=/bin/sh -c 'until test -e /run/go; do sleep 1; done; false'\n\
    [Install]\nWantedBy=basic.target\n";

/// One can look into a boot that hangs; its unit is named, and what fails of it comes back as a note.
fn a_unit_holds_the_boot_up(guest: &Guest) {
    guest.run("vm-start", &["--wait", "agent", "web"]).ok();
    // The supervisor asks again after a while.
    let late = guest.run("vm-wait", &["--timeout", "40", "web"]);
    late.fails(1, "VM 'web' has not finished booting after 40 s: it waits for 'slow.service'");
    let looked = guest.script("systemctl is-system-running");
    assert!(looked.stderr.contains("the boot of 'web' goes on"), "{}", looked.all());
    guest.says("touch /run/go");
    let running = guest.run("vm-wait", &["web"]).document()["running"].clone();
    assert_eq!(running["booted"], "degraded", "{running}");
    let note = "in the guest: the unit 'slow.service' failed";
    assert!(running["notes"].to_string().contains(note), "{running}");
}

/// The network is up and the devices are there before systemd begins: nobody waits for them or fails.
fn no_unit_waits_in_vain(guest: &Guest) {
    let online = "systemctl start systemd-networkd && \
        timeout 30 systemctl start systemd-networkd-wait-online && \
        systemctl show -p ConditionResult systemd-networkd-wait-online";
    assert_eq!(guest.says(online), "ConditionResult=no\n");
    guest.says("systemctl stop systemd-networkd.socket systemd-networkd");
    assert_eq!(guest.says("systemctl --failed --plain --no-legend"), "");
    assert_eq!(guest.says("stat -c %a /dev/net/tun /dev/fuse"), "666\n666\n");
    assert_eq!(guest.says("ulimit -Hn; ls /proc/$$/fd; true"), "524288\n0\n1\n2\n");
}

/// Owners, modes, setuid, capabilities, attributes, links, devices, whiteouts: as the layers say.
fn layers_are_merged(guest: &Guest) {
    let stat = |path: &str| guest.says(&format!("stat -c '%F %a %u %g' {path}")).trim().to_owned();
    for (path, wanted) in [
        ("/opt/app/kept", "regular file 640 1000 1001"),
        ("/opt/sticky", "directory 1777 0 0"),
        ("/opt/setgid", "directory 2755 0 50"),
        ("/opt/setuid/busybox", "regular file 4755 0 0"),
        ("/opt/capable/busybox", "regular file 755 0 0"),
        ("/opt/fifo", "fifo 600 7 7"),
        ("/opt/symlink", "symbolic link 777 0 0"),
        ("/opt/empty", "directory 700 0 0"),
        ("/opt/null", "character special file 666 0 0"),
        ("/usr/bin/su", "regular file 4755 0 0"),
        ("/root/from-the-image", "regular file 600 0 0"),
    ] {
        assert_eq!(stat(path), wanted, "{path}");
    }
    assert_eq!(guest.says("stat -c '%t %T' /opt/null"), "1 3\n");
    assert_eq!(guest.says("stat -c %Y /opt/app/kept"), "1700000000\n");
    assert_eq!(guest.says("readlink /opt/symlink"), "app/kept\n");
    assert_eq!(
        guest.says("/sbin/getcap /opt/capable/busybox"),
        "/opt/capable/busybox cap_net_raw=ep\n"
    );
    // A hard link to a file of a layer below is the same file.
    assert_eq!(
        guest.says("stat -c '%h %i' /opt/across"),
        guest.says("stat -c '%h %i' /opt/app/kept")
    );
    assert_eq!(guest.says("stat -c %h /opt/across /opt/app/kept-too"), "3\n3\n");
    // Whiteouts remove what is below, and only that.
    assert_eq!(guest.says("ls /opt/app | tr '\\n' ' '"), "kept kept-too ");
    assert_eq!(guest.says("ls -A /opt/opaque"), "above\n");
    assert_eq!(guest.says("cat /etc/motd"), "replaced by a layer\n");
    // A setuid binary works, and a capability is honoured. busybox itself says what it lacks: it
    // keeps a setuid bit's rights only for the few of its names that need them.
    let nobody = |command: &str| {
        guest.script(&format!("setpriv --reuid 65534 --clear-groups /opt/{command}")).all()
    };
    assert!(nobody("capable/busybox crontab -l").contains("must be suid"));
    assert!(!nobody("setuid/busybox crontab -l").contains("must be suid"));
    let rights = nobody("capable/busybox grep CapEff /proc/self/status");
    assert!(rights.contains("CapEff:\t0000000000002000"), "{rights}");
}
