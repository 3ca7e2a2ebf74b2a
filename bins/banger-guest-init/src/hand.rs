//! Handing over: which init the image has, and becoming it.

use crate::{mark, minimal, say};
use banger_doc::{Context, Guest, Result};
use banger_guest::place;
use nix::sys::signal::{SigHandler, Signal, signal};
use std::{
    ffi::CString,
    fmt::Write as _,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

/// Where an image has its init, in this order.
const INITS: &[&str] = &[
    "/sbin/init",
    "/usr/sbin/init",
    "/lib/systemd/systemd",
    "/usr/lib/systemd/systemd",
    "/etc/init",
    "/sbin/openrc-init",
];
/// What an init starts with; nothing of the kernel's command line.
const ENVIRONMENT: &[&str] =
    &["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=linux"];

/// What sort of init it is; decides how the guest is asked to shut down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Systemd,
    OpenRc,
    Busybox,
    Other,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::OpenRc => "openrc",
            Self::Busybox => "busybox",
            Self::Other => "other",
        }
    }
}

/// Becomes the image's init, or acts as one where the image has none.
pub(crate) fn over(guest: &Guest) -> Result<()> {
    own_modprobe();
    for path in INITS {
        let Some(kind) = usable(Path::new("/"), path) else { continue };
        note_kind(kind.name());
        match kind {
            Kind::Systemd => say::or_warn(for_systemd(guest)),
            Kind::OpenRc => None,
            Kind::Busybox => {
                say::or_warn(mark::for_busybox());
                say::or_warn(mount_cgroups())
            }
            Kind::Other => {
                mark::for_another(path);
                say::or_warn(mount_cgroups())
            }
        };
        let error = become_init(path);
        say::console(&format!("cannot run the image's init '{path}': {error}"));
    }
    note_kind("minimal");
    say::or_warn(mount_cgroups());
    minimal::run(guest)
}

fn note_kind(kind: &str) {
    say::or_warn(fs::write(place::INIT_KIND, kind).context("cannot note the init"));
}

/// Says which sort of init lies at a path below `root`, or that it cannot run the guest.
fn usable(root: &Path, path: &str) -> Option<Kind> {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let is_program = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let own = below(path);
    if !is_program(&own) {
        return None;
    }
    let real = fs::canonicalize(&own).ok()?;
    let file = real.file_name()?.to_str()?;
    let same = |other: &str| {
        let (one, other) = (fs::metadata(&own), fs::metadata(below(other)));
        matches!((one, other), (Ok(a), Ok(b)) if a.ino() == b.ino() && a.dev() == b.dev())
    };
    if file == "systemd" {
        return Some(Kind::Systemd);
    }
    if file.starts_with("openrc") {
        return Some(Kind::OpenRc);
    }
    if file == "busybox" || same("/bin/busybox") {
        // busybox is in many images that have nothing for its init to start.
        let table = fs::read_to_string(below("/etc/inittab"));
        let openrc = is_program(&below("/sbin/openrc"));
        return match table {
            Ok(table) if table.contains("/sbin/openrc") => openrc.then_some(Kind::OpenRc),
            Ok(table) => table
                .lines()
                .any(|line| !line.trim_start().starts_with('#') && line.contains(":sysinit:"))
                .then_some(Kind::Busybox),
            Err(_) => is_program(&below("/etc/init.d/rcS")).then_some(Kind::Busybox),
        };
    }
    Some(Kind::Other)
}

/// Lets the kernel load modules by our `modprobe` where the image has none.
fn own_modprobe() {
    let there = ["/sbin/modprobe", "/usr/sbin/modprobe", "/bin/modprobe"];
    if !there.iter().any(|path| Path::new(path).exists()) {
        say::or_warn(
            fs::write("/proc/sys/kernel/modprobe", place::MODPROBE)
                .context("cannot name 'modprobe' to the kernel"),
        );
    }
}

/// Leaves the program that ends the guest where systemd looks for it, in a small root that systemd moves
/// into.
fn for_the_end() -> Result<()> {
    let end = Path::new(place::RUN).join("end");
    let make = || -> std::io::Result<()> {
        for dir in ["proc", "sys", "dev", "run", "tmp", "oldroot"] {
            fs::create_dir_all(end.join(dir))?;
        }
        fs::hard_link(place::INIT, end.join("shutdown"))?;
        fs::hard_link(place::DEVICES, end.join("devices"))?;
        fs::create_dir_all(place::SHUTDOWN_ROOT)
    };
    make().context("cannot prepare the end of the guest")?;
    let none: Option<&str> = None;
    nix::mount::mount(Some(&end), place::SHUTDOWN_ROOT, none, nix::mount::MsFlags::MS_BIND, none)
        .context("cannot prepare the end of the guest")
}

/// Keeps the services that systemd starts from undoing what is set up already.
fn for_systemd(guest: &Guest) -> Result<()> {
    say::or_warn(for_the_end());
    say::or_warn(mark::for_systemd());
    if guest.files.iter().any(|file| file.path == "/etc/ssh/ssh_host_ed25519_key") {
        // The server shows banger's key alone; to make others takes minutes in an emulated guest.
        for key in ["rsa", "ecdsa"] {
            let unit = format!("/run/systemd/system/sshd-keygen@{key}.service");
            say::or_warn(
                symlink("/dev/null", &unit).with_context(|| format!("cannot make '{unit}'")),
            );
        }
    }
    let write = |path: &str, text: &str| {
        let path = Path::new(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot make '{}'", parent.display()))?;
        }
        fs::write(path, text).with_context(|| format!("cannot write '{}'", path.display()))
    };
    // The agent lies there and lives until the end: systemd would try in vain to unmount it.
    let stays = "[Unit]\nDefaultDependencies=no\n";
    say::or_warn(write("/run/systemd/system/run-banger.mount.d/banger.conf", stays));
    if guest.interfaces.is_empty() {
        return Ok(());
    }
    let mut network = String::from("[Match]\n");
    let mut macs = Vec::new();
    for interface in &guest.interfaces {
        let _ = writeln!(network, "MACAddress={}", interface.mac);
        macs.push(format!("mac:{}", interface.mac));
    }
    network.push_str("\n[Link]\nUnmanaged=yes\n");
    // Of several that match, the first name wins (systemd.network(5)).
    write("/run/systemd/network/00-banger.network", &network)?;
    let unmanaged = format!("[keyfile]\nunmanaged-devices={}\n", macs.join(";"));
    write("/run/NetworkManager/conf.d/00-banger.conf", &unmanaged)
}

/// Mounts the control groups, as systemd and OpenRC do by themselves.
fn mount_cgroups() -> Result<()> {
    use nix::mount::{MsFlags, mount};
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), flags, Some("nsdelegate"))
        .context("cannot mount '/sys/fs/cgroup'")
}

/// Becomes another program; returns only why it could not.
fn become_init(path: &str) -> nix::errno::Errno {
    // Rust ignores SIGPIPE, and what is ignored stays so.
    // SAFETY: the default action needs no handler.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    let Ok(program) = CString::new(path) else { return nix::errno::Errno::EINVAL };
    let environment: Vec<CString> =
        ENVIRONMENT.iter().filter_map(|text| CString::new(*text).ok()).collect();
    match nix::unistd::execve(&program, &[&program], &environment) {
        Err(errno) => errno,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let dir =
                std::env::temp_dir().join(format!("banger-init-{name}-{}", std::process::id()));
            fs::create_dir_all(dir.join("sbin")).unwrap();
            fs::create_dir_all(dir.join("bin")).unwrap();
            fs::create_dir_all(dir.join("etc")).unwrap();
            Self(dir)
        }

        fn program(&self, path: &str) {
            let path = self.0.join(path);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn busybox_is_an_init_only_with_something_to_start() {
        let root = Root::new("busybox");
        root.program("bin/busybox");
        symlink("../bin/busybox", root.0.join("sbin/init")).unwrap();
        assert_eq!(usable(&root.0, "/sbin/init"), None);
        fs::write(root.0.join("etc/inittab"), "::sysinit:/sbin/openrc sysinit\n").unwrap();
        assert_eq!(usable(&root.0, "/sbin/init"), None);
        root.program("sbin/openrc");
        assert_eq!(usable(&root.0, "/sbin/init"), Some(Kind::OpenRc));
        fs::write(root.0.join("etc/inittab"), "::sysinit:/etc/start\n").unwrap();
        assert_eq!(usable(&root.0, "/sbin/init"), Some(Kind::Busybox));
    }

    #[test]
    fn what_cannot_be_run_is_no_init() {
        let root = Root::new("other");
        assert_eq!(usable(&root.0, "/sbin/init"), None);
        fs::write(root.0.join("sbin/init"), "text").unwrap();
        assert_eq!(usable(&root.0, "/sbin/init"), None);
        root.program("sbin/init");
        assert_eq!(usable(&root.0, "/sbin/init"), Some(Kind::Other));
        root.program("bin/systemd");
        fs::remove_file(root.0.join("sbin/init")).unwrap();
        symlink("../bin/systemd", root.0.join("sbin/init")).unwrap();
        assert_eq!(usable(&root.0, "/sbin/init"), Some(Kind::Systemd));
    }
}
