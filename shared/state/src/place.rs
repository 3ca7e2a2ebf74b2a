//! Every path, as one table. A name in capitals stands for the name of an object.

/// The number of the layout.
pub const LAYOUT: &str = "layout";
/// Images, a folder each.
pub const IMAGES: &str = "images";
/// Kernels, a folder each.
pub const KERNELS: &str = "kernels";
/// VMs, a folder each.
pub const VMS: &str = "vms";
/// Copies of what exports brought out of VMs, a folder each.
pub const EXPORTS: &str = "exports";
/// Blobs of OCI images, an OCI image layout (OCI image-spec, `image-layout.md`).
pub const CACHE: &str = "cache/oci";
/// Blobs on their way into the cache, each locked by who downloads it.
pub const PARTIAL: &str = "cache/partial";
/// Keys and known hosts of ssh.
pub const SSH: &str = "ssh";

/// What the user said yes to, a document for each repository.
pub const ALLOWED: &str = "allowed";

/// What was brought out of VMs by git, a document for each VM and repository of the host's.
pub const KEPT: &str = "kept";

/// Banger's own key for ssh.
pub const SSH_KEY: &str = "ssh/id_ed25519";
/// The public half of it.
pub const SSH_PUBLIC_KEY: &str = "ssh/id_ed25519.pub";
/// What `~/.ssh/config` includes.
pub const SSH_CONFIG: &str = "ssh/config";

/// A variable in the environment of every process that a supervisor starts: the VM's id, a space and
/// the root of the state. `banger gc` ends what bears it although its supervisor is gone.
pub const MARK: &str = "BANGER_RUN";
/// What has to be unique over several VMs, an SQLite database.
pub const LEASES: &str = "leases.db";
/// Held by the one `banger-dns`.
pub const DNS_LOCK: &str = "dns.lock";
/// Shared by the supervisors of VMs whose names `banger-dns` is to know.
pub const DNS_USERS: &str = "dns.users";

/// Directories that opening the state makes.
pub const DIRS: &[&str] = &["", IMAGES, KERNELS, VMS, EXPORTS, CACHE, SSH];

/// An image's document.
pub const IMAGE_DOCUMENT: &str = "image.json";
/// An image's base disk.
pub const IMAGE_DISK: &str = "rootfs.ext4";
/// A kernel's document.
pub const KERNEL_DOCUMENT: &str = "kernel.json";
/// The kernel itself.
pub const KERNEL_FILE: &str = "vmlinux";
/// The first part of the initramfs, the same for every VM of the kernel.
pub const KERNEL_INITRAMFS: &str = "initramfs.cpio";
/// The disk mounted at `/lib/modules/RELEASE`.
pub const KERNEL_MODULES: &str = "modules.ext4";
/// The document of an export's copy, beside it as `patch` or `mbox`.
pub const EXPORT_DOCUMENT: &str = "export.json";
/// A VM's fixed record.
pub const VM_DOCUMENT: &str = "vm.json";
/// A VM's changeable spec.
pub const VM_SPEC: &str = "spec.json";
/// Held by the supervisor as long as the VM lives.
pub const VM_LOCK: &str = "lock";
/// Empty; locked by every process that writes the VM's disks.
pub const VM_DISKS_LOCK: &str = "disks.lock";
/// What is asked of the supervisor.
pub const VM_WANTED: &str = "wanted.json";
/// What the supervisor answers.
pub const VM_RUNNING: &str = "running.json";
/// How the last run ended.
pub const VM_EXIT: &str = "last-exit.json";
/// The upper layer of the guest's root.
pub const VM_OVERLAY: &str = "overlay.ext4";
/// The home of the guest's user.
pub const VM_WORK: &str = "work.ext4";
/// The serial console, capped.
pub const VM_CONSOLE: &str = "console.log";
/// What the supervisor and the VMM print.
pub const VM_LOG: &str = "supervise.log";
/// Keys that the guest shows over ssh.
pub const VM_SSH: &str = "ssh";
/// The guest's host key.
pub const VM_HOST_KEY: &str = "ssh/host_ed25519";
/// The public half of it.
pub const VM_PUBLIC_HOST_KEY: &str = "ssh/host_ed25519.pub";
/// The same as a line of known_hosts.
pub const VM_KNOWN_HOST: &str = "ssh/known_host";
/// Whom ssh logs in as, as a part of ssh's configuration.
pub const VM_SSH_LOGIN: &str = "ssh/login";
/// The VMM's own measurements, while it runs.
pub const VM_METRICS: &str = "metrics.json";
/// Sockets and other things of one run, mode 0700.
pub const VM_RUN: &str = "run";
/// The socket to the guest's agent, Firecracker's hybrid-vsock handshake.
pub const VM_CHANNEL: &str = "run/channel.sock";
/// What prepares left on the host of the workspaces in the VM, a folder each.
pub const VM_WORKSPACES: &str = "workspaces";
/// The document in the folder of a workspace.
pub const WORKSPACE_DOCUMENT: &str = "workspace.json";
/// In the same folder: the commit of the host's repository that was said to be news, so that it is said once.
pub const WORKSPACE_TOLD: &str = "told";
/// In the same folder: what an apply under way has lying ready on the host, and where.
pub const WORKSPACE_APPLYING: &str = "applying.json";

/// What was said of this host at a start, one note a line, so that it is said once.
pub const TOLD: &str = "told";

/// The tree as `docs/state.md` shows it; a test compares the two.
pub const TREE: &[&str] = &[
    "layout",
    "cache/oci/",
    "cache/partial/",
    "images/NAME/image.json",
    "images/NAME/rootfs.ext4",
    "kernels/NAME/kernel.json",
    "kernels/NAME/vmlinux",
    "kernels/NAME/initramfs.cpio",
    "kernels/NAME/modules.ext4",
    "exports/NAME/export.json",
    "exports/NAME/patch",
    "exports/NAME/mbox",
    "leases.db",
    "allowed/SUM.json",
    "kept/SUM.json",
    "told",
    "dns.lock",
    "dns.users",
    "ssh/id_ed25519",
    "ssh/id_ed25519.pub",
    "ssh/config",
    "vms/NAME/vm.json",
    "vms/NAME/spec.json",
    "vms/NAME/lock",
    "vms/NAME/disks.lock",
    "vms/NAME/wanted.json",
    "vms/NAME/running.json",
    "vms/NAME/last-exit.json",
    "vms/NAME/overlay.ext4",
    "vms/NAME/work.ext4",
    "vms/NAME/console.log",
    "vms/NAME/supervise.log",
    "vms/NAME/metrics.json",
    "vms/NAME/ssh/host_ed25519",
    "vms/NAME/ssh/host_ed25519.pub",
    "vms/NAME/ssh/known_host",
    "vms/NAME/ssh/login",
    "vms/NAME/run/channel.sock",
    "vms/NAME/run/vsock.sock",
    "vms/NAME/run/vsock.sock_1024",
    "vms/NAME/workspaces/ID/workspace.json",
    "vms/NAME/workspaces/ID/tree-N.jsonl",
    "vms/NAME/workspaces/ID/changes.jsonl",
    "vms/NAME/workspaces/ID/watch.lock",
    "vms/NAME/workspaces/ID/told",
    "vms/NAME/workspaces/ID/repo.git/",
    "vms/NAME/workspaces/ID/local/",
    "vms/NAME/workspaces/ID/applied/",
    "vms/NAME/workspaces/ID/applying.json",
];
