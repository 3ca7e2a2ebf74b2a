//! On real KVM: how much longer than bare Firecracker a VM takes to be ready, and a whole `vm run`.
//!
//! Where this machine has no real KVM, a host made for it has (`cargo xtask nested`), and the figures
//! are taken there: ratios hold, milliseconds do not.

use super::{Bench, boot, median, shell, start, text, time};
use crate::{
    Result,
    run::{self, cargo},
};
use std::{
    fs,
    os::unix::{net::UnixListener, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const NAME: &str = "bench-kvm";
/// How often each thing is done where the processor has KVM.
const ROUNDS: usize = 25;
/// Where that is emulated: a start to the agent's answer, a whole run.
const EMULATED: (usize, usize) = (7, 3);
/// The ordinary user of the host that is made for it.
const DEV: u32 = 1000;
/// How long one boot may take.
const LIMIT: Duration = Duration::from_mins(2);
/// What banger tells the kernel too (`docs/boot.md`): other words would compare two kernels.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 reboot=k i8042.noaux i8042.nomux i8042.dumbkbd pci=off \
     cryptomgr.notests net.ifnames=0 random.trust_cpu=on tsc=reliable no_timer_check quiet";
/// An init that loads what it needs and calls the host.
const INIT: &str = r#"
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
static void load(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd >= 0) { syscall(SYS_finit_module, fd, "", 0); close(fd); }
}
int main(void) {
    load("/banger/ko/virtio_mmio.ko");
    load("/banger/ko/vsock.ko");
    load("/banger/ko/vmw_vsock_virtio_transport_common.ko");
    load("/banger/ko/vmw_vsock_virtio_transport.ko");
    struct sockaddr_vm host = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 1024 };
    for (;;) {
        int s = socket(AF_VSOCK, SOCK_STREAM, 0);
        if (s >= 0 && connect(s, (struct sockaddr *)&host, sizeof host) == 0) pause();
        if (s >= 0) close(s);
        usleep(2000);
    }
}
"#;
/// The image's size that must not matter.
const LARGE: &str = "5G";

/// Takes the figures where there is KVM: here, or on the host that is made for it.
pub(super) fn measure(bench: &mut Bench) -> Result {
    let bare = bench.dir.join("bare-vsock.cpio");
    bare_init(&bench.dir, &bare)?;
    if boot::kvm() {
        time(&mut bench.program("banger-kernel-pull", &["generic-6.12"]))?;
        boot::busybox(bench)?;
        let own = Who { name: "who runs this", state: bench.state(), becomes: None };
        return figures(bench, &bare, &[own], false);
    }
    let mut tests = cargo();
    tests.args(["test", "--package", "banger-tests", "--test", "flows", "--", "nested::"]);
    tests.args(["--nocapture", "--test-threads", "1"]).env("CI", "true");
    tests.env("BANGER_BENCH", &bench.dir).env("BANGER_BENCH_PROGRAMS", &bench.bin);
    // Not this process's own file, which the build may have replaced.
    tests.env("BANGER_BENCH_XTASK", run::target().join("debug/banger-xtask"));
    run::run("figures on a host with KVM", &mut tests, Duration::from_mins(20))?;
    run::say("== the same steps of the host on this machine itself");
    start::measure(bench)
}

/// Takes the figures on the host that was made for it: its programs and its state are there.
pub(super) fn there() -> Result {
    let dir = PathBuf::from("/srv/bench");
    fs::create_dir_all(dir.join("state")).map_err(|error| error.to_string())?;
    shell(&dir, "cp -a /srv/root/. state; cp -a /srv/dev dev")?;
    let kvm = nix::unistd::Group::from_name("kvm").ok().flatten().ok_or("no group 'kvm'")?;
    // First who is judged: what users are.
    let people = [
        Who { name: "a user", state: dir.join("dev"), becomes: Some((DEV, kvm.gid.as_raw())) },
        Who { name: "root", state: dir.join("state"), becomes: None },
    ];
    let mut bench = Bench { bin: "/usr/local/bin".into(), dir, missed: Vec::new() };
    figures(&mut bench, Path::new("/srv/bare-vsock.cpio"), &people, true)?;
    if bench.missed.is_empty() { Ok(()) } else { Err(bench.missed.join("; ")) }
}

/// Who starts VMs. A user's VMM is in banger's own jail, root's in Firecracker's.
struct Who {
    name: &'static str,
    state: PathBuf,
    /// The user and group that a program is run as.
    becomes: Option<(u32, u32)>,
}

impl Who {
    fn program(&self, bench: &Bench, name: &str, words: &[&str]) -> Command {
        let mut command = bench.program(name, words);
        command.env("BANGER_STATE", &self.state).current_dir("/");
        if let Some((user, group)) = self.becomes {
            command.env("HOME", "/srv/dev-home").uid(user).gid(group);
        }
        command
    }
}

/// Takes the figures; the first of those people is judged.
fn figures(bench: &mut Bench, bare: &Path, people: &[Who], nested: bool) -> Result {
    let (rounds, whole_rounds) = if nested { EMULATED } else { (ROUNDS, ROUNDS) };
    let judged = people.first().ok_or("nobody to start a VM")?;
    let kernel = bench.state().join("kernels/generic-6.12/vmlinux");
    let base = bench.state().join("kernels/generic-6.12/initramfs.cpio");
    let initramfs = bench.dir.join("bare.initramfs");
    shell(&bench.dir, &format!("cat {} {} > {}", text(&base), text(bare), text(&initramfs)))?;
    let small = ["--image", "busybox", "--vcpu", "1", "--memory", "256M"];
    let create = ["--no-start", "--name", NAME, "--vmm", "firecracker", "--net", "none"];
    for who in people {
        let delete = ["--force", NAME];
        let _ = time(who.program(bench, "banger-vm-delete", &delete).stderr(Stdio::null()));
        time(&mut who.program(bench, "banger-vm-create", &[&create[..], &small].concat()))?;
    }
    let mut theirs = Vec::new();
    let mut ours: Vec<Vec<f64>> = people.iter().map(|_| Vec::new()).collect();
    let mut steps = vec![String::new(); people.len()];
    for _ in 0..rounds {
        theirs.push(bare_boot(&bench.dir, &kernel, &initramfs)?);
        for ((who, ours), steps) in people.iter().zip(&mut ours).zip(&mut steps) {
            let start = ["--wait", "agent", NAME];
            ours.push(time(&mut who.program(bench, "banger-vm-start", &start))?);
            let log = who.state.join("vms").join(NAME).join("supervise.log");
            let log = fs::read_to_string(log).unwrap_or_default();
            *steps = [last_run(&log).join("\n"), guest_stages(bench, who)?].join("\n");
            time(&mut who.program(bench, "banger-vm-kill", &[NAME]))?;
        }
    }
    let theirs = median(theirs);
    bench.figure("bare Firecracker to its guest's call", theirs, "ms", None);
    for (at, (who, ours)) in people.iter().zip(ours).enumerate() {
        time(&mut who.program(bench, "banger-vm-delete", &["--force", NAME]))?;
        let (ours, budget) = (median(ours), (at == 0).then_some(1.3));
        bench.figure(&format!("vm start to the agent's answer, {}", who.name), ours, "ms", None);
        bench.figure(&format!("to bare Firecracker, {}", who.name), ours / theirs, "", budget);
        for line in steps[at].lines() {
            run::say(&format!("    {}", line.trim()));
        }
    }
    let whole = (!nested).then_some(1.8);
    for net in ["none", "user"] {
        let words = [&["--rm", "--net", net][..], &small, &["--", "true"]].concat();
        let what = format!("vm run --rm --net {net} -- true");
        run_whole(bench, judged, &what, &words, whole_rounds, (theirs, whole))?;
    }
    let qemu = [&["--rm", "--net", "none", "--vmm", "qemu"][..], &small, &["--", "true"]].concat();
    let qemu_rounds = if nested { 1 } else { whole_rounds };
    run_whole(bench, judged, "the same, QEMU with KVM", &qemu, qemu_rounds, (theirs, None))?;
    if nested {
        return Ok(());
    }
    bench.once("large-image", || {
        let script = format!(
            "mkdir -p root; head -c {LARGE} /dev/zero | tr '\\0' x > root/large; \
             tar -C root --owner=0 --group=0 -cf large.tar .; rm root/large"
        );
        shell(&bench.dir, &script)?;
        let tar = bench.dir.join("large.tar");
        time(&mut bench.program("banger-image-import", &[text(&tar), "--name", "large"]))?;
        fs::remove_file(&tar).map_err(|error| error.to_string())
    })?;
    let large = ["--rm", "--net", "none", "--image", "large", "--vcpu", "1", "--memory", "256M"];
    let words = [&large[..], &["--", "true"]].concat();
    let what = format!("the same, an image of {LARGE}");
    run_whole(bench, judged, &what, &words, whole_rounds, (theirs, whole))
}

/// Runs a whole `vm run` some times; says half of them and all but one in twenty, and how many times bare
/// Firecracker's start that is, which may have a budget.
fn run_whole(
    bench: &mut Bench,
    who: &Who,
    what: &str,
    words: &[&str],
    rounds: usize,
    (bare, budget): (f64, Option<f64>),
) -> Result {
    let mut took = Vec::new();
    for _ in 0..rounds {
        took.push(time(&mut who.program(bench, "banger-vm-run", words))?);
    }
    took.sort_by(f64::total_cmp);
    let p95 = took[(took.len() * 95).div_ceil(100) - 1];
    let p50 = median(took);
    bench.figure(&format!("{what}, p50"), p50, "ms", None);
    bench.figure(&format!("{what}, p95"), p95, "ms", None);
    bench.figure(&format!("{what}, to bare Firecracker"), p50 / bare, "", budget);
    Ok(())
}

/// What the supervisor said of its last start.
fn last_run(log: &str) -> Vec<&str> {
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("after")).collect();
    lines[lines.len().saturating_sub(4)..].to_vec()
}

/// Returns when each stage of the guest's boot ended.
fn guest_stages(bench: &Bench, who: &Who) -> Result<String> {
    let script = ["sh", "-c", "until grep stages: /run/banger/boot.log; do sleep 0.1; done"];
    let mut exec = who.program(bench, "banger-vm-exec", &[&[NAME, "--"][..], &script].concat());
    let said = exec.output().map_err(|error| format!("cannot ask the guest: {error}"))?;
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// Writes the part of an initramfs with an init that calls the host.
fn bare_init(dir: &Path, to: &Path) -> Result {
    fs::write(dir.join("init.c"), INIT).map_err(|error| format!("cannot write: {error}"))?;
    let script = format!(
        "rm -rf bare-vsock; mkdir bare-vsock; cc -static -Os -s -o bare-vsock/init init.c; \
         cd bare-vsock; find . | cpio -o -H newc --quiet > {}",
        text(to)
    );
    shell(dir, &script)
}

/// Boots the kernel on the same machine with the same words, until its guest calls.
fn bare_boot(dir: &Path, kernel: &Path, initramfs: &Path) -> Result<f64> {
    let at = |name: &str| dir.join(name);
    for left in ["bare.sock", "bare.sock_1024"] {
        let _ = fs::remove_file(at(left));
    }
    let calls = UnixListener::bind(at("bare.sock_1024")).map_err(|error| error.to_string())?;
    let config = serde_json::json!({
        "boot-source": { "kernel_image_path": kernel, "initrd_path": initramfs, "boot_args": COMMAND_LINE },
        "machine-config": { "vcpu_count": 1, "mem_size_mib": 256 },
        "drives": [],
        "vsock": { "guest_cid": 3, "uds_path": at("bare.sock") },
    });
    fs::write(at("bare.json"), config.to_string()).map_err(|error| error.to_string())?;
    let began = Instant::now();
    let mut vmm = Command::new("firecracker")
        .args(["--no-api", "--config-file"])
        .arg(at("bare.json"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot run Firecracker: {error}"))?;
    let (sender, called) = mpsc::channel();
    thread::spawn(move || sender.send(calls.accept().map(drop)));
    let called = called.recv_timeout(LIMIT);
    let took = began.elapsed().as_secs_f64() * 1000.0;
    let _ = vmm.kill();
    let _ = vmm.wait();
    called
        .map_err(|_| "bare Firecracker's guest never called".to_owned())?
        .map_err(|e| e.to_string())?;
    Ok(took)
}
