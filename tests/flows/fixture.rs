//! What flows start from: images in a registry, a kernel. Made once and kept under `target/`; a
//! change of what makes it makes it again.

use crate::{
    oci::{Pack, layout, sha256},
    tape::{CHARACTER, DIRECTORY, Entry, FIFO, HARD_LINK, SYMLINK, archive},
    world::NAME,
};
use banger_tests::{Sandbox, program};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// `CAP_NET_RAW` permitted and effective, as `security.capability` holds it (capability(7)).
const NET_RAW: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What busybox's init does in its image.
pub(crate) const INITTAB: &str = "::sysinit:/etc/start\n::ctrlaltdel:/bin/busybox reboot\n";

/// Returns the folder fixtures lie in; its name changes with what makes them.
pub(crate) fn dir() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("flows/fixture.rs");
    let key = sha256(&source);
    let dir = cache().join(&key[..16]);
    fs::create_dir_all(&dir).expect("the folder of the fixtures");
    dir
}

/// Returns the folder of what is only downloaded.
pub(crate) fn cache() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of the test");
    let target = exe.ancestors().nth(3).expect("the folder of the build");
    target.join("fixtures")
}

/// Makes something once, also if several tests want it at the same time; `mark` says it is done.
pub(crate) fn once(mark: &Path, make: impl FnOnce()) {
    let parent = mark.parent().expect("a folder");
    fs::create_dir_all(parent).expect("a folder");
    let lock = fs::File::create(parent.join(".lock")).expect("a lock");
    let _lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).expect("a lock");
    if !mark.exists() {
        make();
        fs::write(mark, "").expect("a mark");
    }
}

/// Runs a tool and fails with what it said.
pub(crate) fn tool(command: &mut Command, limit: Duration) -> String {
    let ended = banger_tests::run_bounded(command.stdin(Stdio::null()), None, limit);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status, 0, "{command:?}: {said}");
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

/// Puts the kernel into a sandbox: `generic-6.12`, brought in by the programs under test.
pub(crate) fn kernel(sandbox: &Sandbox) {
    // A new build of what goes into it makes it again.
    let guest = program("banger").with_file_name("guest");
    let parts = [guest.join("banger-guest-init"), program("banger-kernel-import")];
    let key: String = parts.iter().map(|part| sha256(part)[..8].to_owned()).collect();
    let state = cache().join(format!("kernel-{key}"));
    once(&state.join("done"), || {
        let deb = kernel_package();
        let maker = Sandbox::new();
        maker.set_limit(Duration::from_mins(5));
        let deb = deb.to_str().expect("text");
        maker
            .with(program("banger-kernel-import"), &["generic-6.12", "--deb", deb], |command| {
                command.env("BANGER_STATE", &state);
            })
            .ok();
    });
    let to = sandbox.state();
    fs::create_dir_all(to.join("kernels")).expect("a state");
    // The same files under other names: kernels are never written to.
    let from = state.join("kernels/generic-6.12");
    let copy = |how: &str| {
        Command::new("cp").args([how, "-R"]).arg(&from).arg(to.join("kernels")).output()
    };
    let linked = copy("-l").is_ok_and(|output| output.status.success());
    assert!(linked || copy("-f").is_ok_and(|output| output.status.success()), "cp of the kernel");
    for dir in [to.to_owned(), to.join("kernels")] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(dir, mode).expect("the mode of a state directory");
    }
}

/// Downloads the distribution's cloud kernel, once.
fn kernel_package() -> PathBuf {
    let dir = cache().join("package");
    once(&dir.join("done"), || {
        let search = tool(
            Command::new("apt-cache").args(["search", "--names-only", "linux-image-6.12.*-cloud"]),
            Duration::from_mins(1),
        );
        let mut names: Vec<(Vec<u32>, &str)> = search
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| name.ends_with("-amd64") && !name.contains("unsigned"))
            .map(|name| {
                let digits = name.split(|c: char| !c.is_ascii_digit());
                (digits.filter_map(|n| n.parse().ok()).collect(), name)
            })
            .collect();
        names.sort();
        let name = names.last().expect("a cloud kernel 6.12 among the packages").1;
        let mut download = Command::new("apt-get");
        // Root's downloads are otherwise done by a user who may not write here.
        download.args(["download", "-q", "-o", "APT::Sandbox::User=root", name]).current_dir(&dir);
        tool(&mut download, Duration::from_mins(5));
    });
    let mut debs: Vec<PathBuf> = fs::read_dir(&dir)
        .expect("the folder of the package")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .collect();
    debs.pop().expect("a package")
}

/// Makes the images and pushes them as an ordinary client would.
pub(crate) fn push_images(registry: &str) {
    let work = tempfile::tempdir_in(cache()).expect("a folder");
    let debian = work.path().join("debian");
    let served = work.path().join("served");
    debian_images(work.path(), &debian, &served);
    push(&debian, registry, "debian:bookworm");
    push(&served, registry, "debian:served");
    let busybox = work.path().join("busybox");
    busybox_image(work.path(), &busybox);
    push(&busybox, registry, "busybox:1");
    let scratch = work.path().join("scratch");
    scratch_image(work.path(), &scratch);
    push(&scratch, registry, "scratch:1");
}

pub(crate) fn push(layout: &Path, registry: &str, name: &str) {
    let mut skopeo = Command::new("skopeo");
    skopeo
        .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:latest", layout.display()))
        .arg(format!("docker://{registry}/{name}"));
    tool(&mut skopeo, Duration::from_mins(3));
}

fn busybox() -> Vec<u8> {
    fs::read("/bin/busybox").expect("busybox-static")
}

/// Debian with systemd in three layers, the upper two with everything that layers can say; and the same
/// with a fourth that names the [`repository`] as the internet of a world serves it.
fn debian_images(work: &Path, to: &Path, to_served: &Path) {
    let middle = archive(&[
        // Nobody's packages: a VM of a test asks no server outside.
        Entry::file("etc/apt/sources.list", 0o644, ""),
        Entry::dir("opt/app", 0o755),
        Entry::file("opt/app/kept", 0o640, "kept\n").owner(1000, 1001),
        Entry::file("opt/app/removed", 0o644, "removed\n"),
        Entry::link(HARD_LINK, "opt/app/kept-too", "opt/app/kept"),
        Entry::dir("opt/opaque", 0o755),
        Entry::file("opt/opaque/below", 0o644, "below\n"),
        Entry::dir("opt/base-dir", 0o755),
        Entry::file("opt/base-dir/inside", 0o644, "inside\n"),
        Entry::dir("opt/sticky", 0o1777),
        Entry::dir("opt/setgid", 0o2755).owner(0, 50),
        Entry::dir("opt/setuid", 0o755),
        Entry::file("opt/setuid/busybox", 0o4755, busybox()),
        Entry::dir("opt/capable", 0o755),
        Entry::file("opt/capable/busybox", 0o755, busybox()).xattr("security.capability", NET_RAW),
        Entry::file("opt/attribute", 0o644, "x\n").xattr("user.colour", b"blue\0green"),
        Entry { device: (1, 3), ..Entry::new(CHARACTER, "opt/null", 0o666) },
        Entry::new(FIFO, "opt/fifo", 0o600).owner(7, 7),
        Entry::link(SYMLINK, "opt/symlink", "app/kept"),
        Entry::file("root/from-the-image", 0o600, "image root\n"),
        Entry::dir("root/.ssh", 0o700),
        Entry::file("root/.ssh/authorized_keys", 0o600, crate::ssh::IMAGE_KEY),
        Entry::dir("opt/tools", 0o755),
        Entry::file(
            "opt/tools/only-here",
            0o755,
            "#!/bin/sh\necho found by the PATH of the image\n",
        ),
    ]);
    let top = archive(&[
        Entry::file("opt/app/.wh.removed", 0o644, ""),
        Entry::dir("opt/opaque", 0o755),
        Entry::file("opt/opaque/.wh..wh..opq", 0o644, ""),
        Entry::file("opt/opaque/above", 0o644, "above\n"),
        Entry::link(HARD_LINK, "opt/across", "opt/app/kept"),
        Entry::file("etc/motd", 0o644, "replaced by a layer\n"),
        Entry::new(DIRECTORY, "opt/empty", 0o700),
    ]);
    let tar = |name: &str, bytes: &[u8]| {
        let path = work.join(name);
        fs::write(&path, bytes).expect("a layer");
        path
    };
    let served = archive(&[Entry::file(
        "etc/apt/sources.list",
        0o644,
        format!("deb [trusted=yes] http://{NAME}:8080/ ./\n"),
    )]);
    let mut layers = vec![
        (debian_base(), Pack::Gzip),
        (tar("middle.tar", &middle), Pack::Zstd),
        (tar("top.tar", &top), Pack::None),
    ];
    let config = json!({
        "Env": [
            "PATH=/opt/tools:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "FROM_IMAGE=yes",
        ],
        "WorkingDir": "/opt/app",
        "Cmd": ["/bin/bash"],
    });
    layout(to, &layers, &config);
    layers.push((tar("served.tar", &served), Pack::Gzip));
    layout(to_served, &layers, &config);
}

/// Bootstraps the Debian that the images begin with, once; returns its archive.
fn debian_base() -> PathBuf {
    let base = cache().join("debian").join("bookworm.tar");
    once(&base.with_file_name("done"), || {
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap
            .args(["--quiet", "--variant=minbase", "--include=systemd-sysv,kmod,libcap2-bin"])
            .args(["--aptopt=Acquire::Retries \"3\"", "bookworm"])
            .arg(&base);
        tool(&mut bootstrap, Duration::from_mins(10));
    });
    base
}

/// Returns a repository of packages: what an ssh server, rsync and make need beside what the Debian of the
/// images has. A first boot installs from there.
pub(crate) fn repository() -> PathBuf {
    let dir = cache().join("debian-packages");
    once(&dir.join("done"), || {
        let mut list = Command::new("tar");
        list.arg("-xOf").arg(debian_base()).arg("./var/lib/dpkg/status");
        let status = dir.join("status");
        fs::write(&status, tool(&mut list, Duration::from_mins(1))).expect("what the base has");
        let mut wanted = Command::new("apt-get");
        wanted.arg("-o").arg(format!("Dir::State::Status={}", status.display()));
        wanted.args(["--print-uris", "-qq", "-y", "--no-install-recommends", "install"]);
        wanted.args(["openssh-server", "rsync", "make"]);
        let lines = tool(&mut wanted, Duration::from_mins(1));
        // `'URI' NAME_VERSION_ARCH.deb SIZE HASH`, a colon of the version as `%3a`.
        let names = lines.lines().filter_map(|line| {
            let mut parts = line.split(' ').nth(1)?.split('_');
            Some(format!("{}={}", parts.next()?, parts.next()?.replace("%3a", ":")))
        });
        let mut download = Command::new("apt-get");
        download.args(["download", "-q", "-o", "APT::Sandbox::User=root"]).args(names);
        tool(download.current_dir(&dir), Duration::from_mins(5));
        let mut index = String::new();
        for entry in fs::read_dir(&dir).expect("the folder of the packages") {
            let deb = entry.expect("an entry").path();
            if deb.extension().is_none_or(|ending| ending != "deb") {
                continue;
            }
            let mut control = Command::new("dpkg-deb");
            index += &tool(control.arg("-f").arg(&deb), Duration::from_mins(1));
            let name = deb.file_name().expect("a name").to_string_lossy().replace("%3a", "-");
            let (size, sum) = (fs::metadata(&deb).expect("a package").len(), sha256(&deb));
            index.extend([format!("Filename: ./{name}\nSize: {size}\nSHA256: {sum}\n\n")]);
            fs::rename(&deb, dir.join(name)).expect("a name without a colon");
        }
        fs::write(dir.join("Packages"), index).expect("the list of the packages");
    });
    dir
}

/// A machine in a megabyte: one binary, a link for each of its names, and busybox's own init.
fn busybox_image(work: &Path, to: &Path) {
    let path = busybox_layer(work);
    layout(to, &[(path, Pack::Gzip)], &busybox_config());
}

pub(crate) fn busybox_config() -> serde_json::Value {
    json!({ "Env": ["PATH=/tools:/bin:/sbin", "FROM_IMAGE=yes"], "Cmd": ["/bin/sh"] })
}

/// Writes the one layer of that image; returns where.
pub(crate) fn busybox_layer(work: &Path) -> PathBuf {
    let mut entries = vec![
        Entry::dir("bin", 0o755),
        Entry::file("bin/busybox", 0o755, busybox()),
        Entry::dir("sbin", 0o755),
        Entry::link(SYMLINK, "sbin/init", "../bin/busybox"),
        Entry::link(SYMLINK, "sbin/modprobe", "../bin/busybox"),
        Entry::dir("etc", 0o755),
        Entry::file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/:/bin/sh\n"),
        Entry::file("etc/group", 0o644, "root:x:0:\nwww:x:33:\n"),
        Entry::file("etc/inittab", 0o644, INITTAB),
        Entry::file("etc/start", 0o755, "#!/bin/sh\nsleep 1\necho started > /run/started\n"),
        Entry::dir("root", 0o700),
        Entry::file("root/from-the-image", 0o600, "image root\n"),
        Entry::dir("base", 0o755),
        Entry::file("base/inside", 0o644, "inside\n"),
        Entry::dir("tmp", 0o1777),
        Entry::dir("tools", 0o755),
        Entry::file("tools/only-here", 0o755, "#!/bin/sh\necho found by the PATH of the image\n"),
    ];
    let names = tool(Command::new("busybox").arg("--list"), Duration::from_secs(10));
    for name in names.lines().filter(|name| *name != "busybox") {
        entries.push(Entry::link(SYMLINK, &format!("bin/{name}"), "busybox"));
    }
    let path = work.join("busybox.tar");
    fs::write(&path, archive(&entries)).expect("a layer");
    path
}

/// `FROM scratch` with one static binary and nothing else.
fn scratch_image(work: &Path, to: &Path) {
    let path = work.join("scratch.tar");
    fs::write(&path, archive(&[Entry::file("busybox", 0o755, busybox())])).expect("a layer");
    layout(
        to,
        &[(path, Pack::Gzip)],
        &json!({
            "Env": ["PATH=/", "FROM_IMAGE=yes"],
            "Entrypoint": ["/busybox"],
            "Cmd": ["sh", "-c", "echo entrypoint ran; exec /busybox sleep 100000"],
        }),
    );
}

/// The images themselves, seen by somebody else's tools.
#[test]
fn the_registry_serves_what_the_layers_say() {
    let registry = crate::registry::Registry::start();
    let images = [("debian:bookworm", 3), ("debian:served", 4), ("busybox:1", 1), ("scratch:1", 1)];
    for (image, layers) in images {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "inspect", "--tls-verify=false"]);
        skopeo.arg(format!("docker://{}/{image}", registry.address));
        let said = tool(&mut skopeo, Duration::from_mins(1));
        let said: serde_json::Value = serde_json::from_str(&said).expect("what skopeo says");
        assert_eq!(said["Layers"].as_array().map(Vec::len), Some(layers), "{said}");
    }
}
