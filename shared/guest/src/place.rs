//! Where the guest programs keep their things: a memory file system that the image does not reach.

/// The folder of all of it.
pub const RUN: &str = "/run/banger";
/// What the guest was told at boot, a `banger.guest/1` document.
pub const DOCUMENT: &str = "/run/banger/guest.json";
/// The first program, and the agent.
pub const INIT: &str = "/run/banger/banger-guest-init";
/// A folder with `modprobe`, for images that have none; put it last in `PATH`.
pub const BIN: &str = "/run/banger/bin";
/// `modprobe` for images that have none.
pub const MODPROBE: &str = "/run/banger/bin/modprobe";
/// What sort of init runs the guest: `systemd`, `openrc`, `busybox`, `other`, `own`, what the image's configuration
/// says to run, or `minimal`.
pub const INIT_KIND: &str = "/run/banger/init";
/// The devices of the writable disks, one a line.
pub const DEVICES: &str = "/run/banger/devices";
/// There when guest-init is done with all it does before the image's init.
pub const PREPARED: &str = "/run/banger/prepared";
/// There when the image's init is past what it does before logins: `yes`, `degraded`, or `unknown`.
pub const BOOTED: &str = "/run/banger/booted";
/// What guest-init had to say, besides the console.
pub const LOG: &str = "/run/banger/boot.log";
/// What the process is called that sees to an ssh server, and its word where one is asked for.
pub const SSH_TASK: &str = "banger-first-boot";
/// See [`SSH_TASK`].
pub const SSH_ASKED: &str = "asked";
/// The image's disk as it is.
pub const BASE: &str = "/run/banger/disk/base";
/// The disk that holds changes to the image's files.
pub const OVERLAY: &str = "/run/banger/disk/overlay";
/// The directory at which that disk of the user's work lies: the home of the guest's user, or what stands
/// in for it.
pub const PLACE: &str = "/run/banger/place";
/// Keys that let a user in, by its name.
pub const KEYS: &str = "/run/banger/ssh";
/// The disk that is the home of the guest's user.
pub const WORK: &str = "/run/banger/disk/work";
/// Where systemd looks for the program that ends the machine (systemd-shutdown(8)).
pub const SHUTDOWN_ROOT: &str = "/run/initramfs";
/// How each line begins that guest-init has on the console, and how what it says goes on where that ends the machine.
pub const SAYS: &str = "banger-guest-init: ";
/// See [`SAYS`].
pub const GAVE_UP: &str = "gave up: ";
/// How each line begins that the image's program has on the console. The kernel's and those of guest-init never
/// begin so.
pub const MARK: &str = "| ";
/// Directories that cannot lie on an overlayfs, because their owners stack another one on it: docker;
/// containerd; podman, buildah, skopeo and CRI-O; k3s and rke2; kubelet; buildkit; k0s; snaps; LXC, LXD and
/// Incus; systemd-nspawn.
pub const DIRECT: &[&str] = &[
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/rancher",
    "/var/lib/kubelet",
    "/var/lib/buildkit",
    "/var/lib/k0s",
    "/var/lib/lxc",
    "/var/lib/lxd",
    "/var/lib/incus",
    "/var/lib/machines",
    "/var/snap",
];
