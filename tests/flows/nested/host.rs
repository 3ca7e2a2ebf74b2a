//! The host with KVM: an emulated VM of an image that has all that banger needs, and banger.

use crate::{
    fixture::{self, tool},
    guest::Guest,
    oci::{Pack, layout},
    registry::Registry,
};
use banger_tests::{Answer, Sandbox, program};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Emulated commands that drive emulated machines take their time.
const LIMIT: Duration = Duration::from_mins(5);
/// What the host's Debian has besides the least.
const PACKAGES: &str = "kmod,iproute2,e2fsprogs,passt,nftables,procps,util-linux,busybox-static,git,\
     openssh-client,qemu-system-x86,python3,docker-registry,skopeo,strace,curl,zstd,rsync,cpio,jq";
/// An ordinary user who may use KVM, and a host that is called something.
const CUSTOMIZE: &str =
    r#"chroot "$1" sh -ec 'getent group kvm || groupadd -r kvm; useradd -m -u 1000 -G kvm dev'"#;
/// What a host's own start does: devices, their modes, control groups.
const BEGIN: &str = "set -e
    modprobe kvm_amd; modprobe tun
    chgrp kvm /dev/kvm; chmod 660 /dev/kvm; chmod 666 /dev/net/tun
    echo '+memory +pids' > /sys/fs/cgroup/cgroup.subtree_control
    git config --system user.name dev; git config --system user.email dev@example.com";

/// Who uses banger on the host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Who {
    /// Root, with Firecracker's jailer.
    Root,
    /// An ordinary user of the group `kvm`.
    Dev,
}

impl Who {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Dev => "dev",
        }
    }
}

/// What a host is made for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Extent<'a> {
    /// The core.
    Core,
    /// All that the other flows of this binary need, too.
    All,
    /// Figures, with what lies in this folder.
    Figures(&'a Path),
}

/// A running host. Its VM is named `web` on the outside.
pub(crate) struct Host {
    pub(crate) outer: Guest,
    begun: Instant,
}

impl Host {
    /// Makes the image and boots it; none, said aloud, where Firecracker is not at hand.
    pub(crate) fn boot(extent: Extent<'_>) -> Option<Self> {
        let firecracker = banger_tests::firecracker_programs()?;
        let sandbox = Sandbox::new();
        sandbox.set_limit(LIMIT);
        fixture::kernel(&sandbox);
        let work = sandbox.dir();
        let image = work.join("image");
        let mut layers = vec![debian(), programs(&work, &firecracker), state(&work)];
        match extent {
            Extent::Core => {}
            Extent::All => layers.push(flows(&work)),
            Extent::Figures(dir) => layers.push(figures(&work, dir)),
        }
        let layers: Vec<_> = layers.into_iter().map(|layer| (layer, Pack::None)).collect();
        layout(
            &image,
            &layers,
            &json!({ "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] }),
        );
        let outer = Guest::to_be(sandbox, &["sh", "-c"]);
        let reference = format!("oci:{}:latest", image.display());
        outer.run("image-pull", &[&reference, "--name", "host"]).ok();
        fs::remove_dir_all(&image).expect("the image's layers");
        let begun = Instant::now();
        let memory = if extent == Extent::All { "8G" } else { "4G" };
        // With several emulated processors QEMU 7.2 now and then shows one of them a half-changed
        // instruction, and the kernel panics: Linux changes its own code while it boots.
        let size = ["--vcpu", "1", "--memory", memory, "--overlay-size", "40G", "--net", "none"];
        let words = ["--no-start", "--vmm", "qemu", "--image", "host", "--name", "web"];
        outer.run("vm-create", &[&words[..], &size].concat()).ok();
        let started = outer.run("vm-start", &["web"]);
        assert_eq!(
            started.status,
            0,
            "{}\n{}",
            started.all(),
            outer.sandbox.raw(program("banger-vm-logs"), &["web"]).text()
        );
        let host = Self { outer, begun };
        host.step("boot", || host.outer.script(BEGIN).ok().text());
        Some(host)
    }

    /// Does one thing, and says how long it took, counted also from the host's start.
    pub(crate) fn step<T>(&self, name: &str, act: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = act();
        let (took, all) = (began.elapsed().as_secs_f64(), self.begun.elapsed().as_secs_f64());
        let _ = writeln!(std::io::stderr(), "nested: {name}: {took:.1} s (of {all:.0} s)");
        done
    }

    /// Runs a script on the host, as that user, in a folder of the user's own.
    pub(crate) fn script(&self, who: Who, script: &str) -> Answer {
        let state = format!("BANGER_STATE=/srv/{}", who.name());
        let place = format!("/srv/{}-home", who.name());
        let words =
            ["-u", who.name(), "-e", &state, "-w", &place, "web", "--", "bash", "-c", script];
        self.outer.sandbox.raw(program("banger-vm-exec"), &words)
    }

    /// Runs a script that has to end well; returns what it printed.
    pub(crate) fn says(&self, who: Who, script: &str) -> String {
        let answer = self.script(who, script);
        if answer.status != 0 {
            let _ = writeln!(
                std::io::stderr(),
                "{}",
                self.script(who, "tail -n 30 $BANGER_STATE/vms/*/supervise.log").text()
            );
        }
        answer.ok();
        answer.text()
    }

    /// Runs other tests of this binary there, as root; everybody may use KVM meanwhile. What fails says so
    /// at once, since the time may be over before the end.
    pub(crate) fn flow(&self, name: &str, seconds: u32) {
        let exe = std::env::current_exe().expect("the path of the test");
        let script = format!(
            "chmod 666 /dev/kvm; export CI=true; timeout {seconds} {} {name} --test-threads 1 --nocapture; \
             status=$?; chmod 660 /dev/kvm; exit $status",
            exe.display()
        );
        self.outer.sandbox.set_limit(Duration::from_secs(u64::from(seconds) + 60));
        let answer =
            self.outer.sandbox.raw(program("banger-vm-exec"), &["web", "--", "sh", "-c", &script]);
        assert_eq!(answer.status, 0, "{}", answer.all());
    }

    /// Returns how a VM on the host stands.
    pub(crate) fn view(&self, who: Who, vm: &str) -> Value {
        let said = self.says(who, &format!("banger vm show {vm}"));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

/// Bootstraps the host's Debian, once; returns its archive.
fn debian() -> PathBuf {
    // Another list makes another host.
    let key =
        PACKAGES.bytes().chain(CUSTOMIZE.bytes()).fold(0xcbf2_9ce4_8422_2325, |key: u64, byte| {
            (key ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
    let base = fixture::cache().join(format!("nested/{key:016x}")).join("bookworm.tar");
    fixture::once(&base.with_file_name("done"), || {
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap
            .args(["--quiet", "--variant=minbase", &format!("--include={PACKAGES}")])
            .args(["--aptopt=Acquire::Retries \"3\"", &format!("--customize-hook={CUSTOMIZE}")])
            .arg("bookworm")
            .arg(&base);
        tool(&mut bootstrap, Duration::from_mins(15));
    });
    base
}

/// Writes the layer with banger's programs and Firecracker.
fn programs(work: &Path, firecracker: &Path) -> PathBuf {
    let root = work.join("programs");
    let (bin, guest) = (root.join("usr/local/bin"), root.join("usr/local/libexec/banger"));
    for dir in [&bin, &guest] {
        fs::create_dir_all(dir).expect("a folder");
    }
    let built = program("banger").parent().expect("a folder").to_owned();
    let built = std::env::var_os("BANGER_BENCH_PROGRAMS").map_or(built, PathBuf::from);
    let script = r#"set -e
        cp "$2"/firecracker "$2"/jailer "$3"
        cp "$1"/guest/banger-guest-init "$4"
        ls "$1" | grep -E '^(git-remote-)?banger(-[a-z]+)*$' | grep -vE '^banger-(xtask|guest-)' \
            | xargs -P2 -I{} strip -o "$3/{}" "$1/{}""#;
    let mut shell = Command::new("bash");
    shell.args(["-c", script, "sh"]).arg(built).arg(firecracker).arg(bin).arg(guest);
    tool(&mut shell, Duration::from_mins(2));
    pack(work, "programs")
}

/// Writes the layer with this binary and what it takes to run there, each at the place it has here.
fn flows(work: &Path) -> PathBuf {
    // What they make once is made here, where there is all that makes it.
    drop(Registry::start());
    fixture::repository();
    let exe = std::env::current_exe().expect("the path of the test");
    let target = exe.ancestors().nth(3).expect("the folder of the build");
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tree");
    let server = work.join("echo.c");
    fs::write(&server, super::soak::ECHO).expect("a program");
    // The kernel's fixture goes by the program that imported it, so that one stays as it is.
    let script = r#"set -e
        to="$4$2"; mkdir -p "$to"/debug/deps "$4$3/tests/flows" "$4/srv"
        cc -static -O1 -o "$4/srv/echo" "$5"
        strip -o "$to/debug/deps/$(basename "$1")" "$1"
        ls "$2"/debug | grep -E '^(git-remote-)?banger(-[a-z]+)*$' | while read -r program; do
            strip -o "$to/debug/$program" "$2/debug/$program"
        done
        cp "$2"/debug/banger-kernel-import "$to"/debug
        cp -R "$2"/debug/guest "$2"/debug/guest-tests "$to"/debug
        cp -R "$2"/firecracker "$to"
        mkdir "$to"/fixtures
        find "$2"/fixtures -mindepth 1 -maxdepth 1 ! -name nested -exec cp -R -t "$to"/fixtures {} +
        cp "$3"/tests/flows/fixture.rs "$4$3"/tests/flows
        cp -R "$3"/completions "$4$3""#;
    let mut shell = Command::new("bash");
    shell
        .args(["-c", script, "sh"])
        .arg(&exe)
        .arg(target)
        .arg(tree)
        .arg(work.join("flows"))
        .arg(server);
    tool(&mut shell, Duration::from_mins(5));
    pack(work, "flows")
}

/// Writes the layer with what measures.
fn figures(work: &Path, dir: &Path) -> PathBuf {
    let xtask = std::env::var_os("BANGER_BENCH_XTASK").expect("the program that measures");
    let script = "mkdir -p \"$3/usr/local/bin\" \"$3/srv\"; strip -o \"$3/usr/local/bin/banger-xtask\" \"$1\"; \
                  cp \"$2/bare-vsock.cpio\" \"$3/srv\"";
    let mut shell = Command::new("bash");
    shell.args(["-ec", script, "sh"]).arg(xtask).arg(dir).arg(work.join("figures"));
    tool(&mut shell, Duration::from_mins(1));
    pack(work, "figures")
}

/// Writes the layer with two users' states: the kernel and an image are there already, since bringing
/// them in is not what this host is for.
fn state(work: &Path) -> PathBuf {
    let maker = Sandbox::new();
    maker.set_limit(LIMIT);
    fixture::kernel(&maker);
    let layer = maker.dir().join("image");
    layout(
        &layer,
        &[(fixture::busybox_layer(&maker.dir()), Pack::None)],
        &fixture::busybox_config(),
    );
    let reference = format!("oci:{}:latest", layer.display());
    maker.run(program("banger-image-pull"), &[&reference, "--name", "busybox"]).ok();
    let root = work.join("state");
    let script = r#"set -e
        for who in root dev; do
            mkdir -p "$2/srv/$who" "$2/srv/$who-home"
            cp -R --sparse=always "$1"/. "$2/srv/$who"
        done
        chmod 700 "$2"/srv/root "$2"/srv/dev
        chown -R 1000:1000 "$2"/srv/dev "$2"/srv/dev-home"#;
    let mut shell = Command::new("bash");
    shell.args(["-c", script, "sh"]).arg(maker.state()).arg(&root);
    tool(&mut shell, Duration::from_mins(2));
    pack(work, "state")
}

/// Packs a folder of the work folder into a layer, holes left out, and removes it.
fn pack(work: &Path, name: &str) -> PathBuf {
    let layer = work.join(format!("{name}.tar"));
    let mut tar = Command::new("tar");
    tar.args(["--sparse", "--format=gnu", "-C"])
        .arg(work.join(name))
        .arg("-cf")
        .arg(&layer)
        .arg(".");
    tool(&mut tar, Duration::from_mins(2));
    fs::remove_dir_all(work.join(name)).expect("what was packed");
    layer
}
