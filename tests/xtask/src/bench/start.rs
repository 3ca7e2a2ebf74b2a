//! What the host does from `vm start` to the VMM's word that the guest runs, on Firecracker, and what
//! stays in memory for it: as an ordinary user, and as root, whose Firecracker its own jailer starts.

use super::{Bench, median, shell, text, time};
use crate::{Result, firecracker, run};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const ROUNDS: usize = 11;
const NAME: &str = "bench-start";
/// MiB that a resident process may take.
const RESIDENT: f64 = 5.0;
/// Devices as desktops have them, in a mount namespace of its own.
const DEVICES: &str = "mount -t tmpfs banger /mnt; mknod /mnt/tun c 10 200; mknod /mnt/kvm c 10 232; \
     chmod 666 /mnt/tun /mnt/kvm; mount --bind /mnt/tun /dev/net/tun; \
     mount --bind /mnt/kvm /dev/kvm; umount -l /mnt";
/// An ordinary user, whom every system knows.
const USER: &str = "65534";

/// Who starts the VM, with a state of their own.
struct Who {
    name: &'static str,
    /// What comes before a program's words.
    becomes: &'static [&'static str],
    state: PathBuf,
}

/// Milliseconds from the start of `vm start` to the end of each phase.
#[derive(Default)]
struct Phases {
    began: Vec<f64>,
    prepared: Vec<f64>,
    vmm: Vec<f64>,
    socket: Vec<f64>,
    configured: Vec<f64>,
    started: Vec<f64>,
}

pub(super) fn measure(bench: &mut Bench) -> Result {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Err("/dev/kvm does not open, and Firecracker needs it".into());
    }
    time(&mut bench.program("banger-kernel-pull", &["generic-6.12"]))?;
    bench.once("empty-image", || {
        shell(&bench.dir, "rm -rf empty; mkdir empty; tar -C empty -cf empty.tar .")?;
        let tar = bench.dir.join("empty.tar");
        time(&mut bench.program("banger-image-import", &[text(&tar), "--name", "empty"])).map(drop)
    })?;
    let dir = firecracker::dir();
    let config = bench.dir.join("start.toml");
    let words = format!(
        "[binaries]\nfirecracker = '{0}/firecracker'\njailer = '{0}/jailer'\n",
        dir.display()
    );
    fs::write(&config, words).map_err(|error| format!("cannot write the config: {error}"))?;
    let user_state = bench.dir.join("state-user");
    bench.once("user-state", || {
        let script = format!(
            "rm -rf state-user; mkdir state-user; cp -a state/images state/kernels state-user; \
             chown -R {USER}:{USER} state-user"
        );
        shell(&bench.dir, &script)
    })?;
    let user = &["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"];
    for who in [
        Who { name: "an ordinary user", becomes: user, state: user_state },
        Who { name: "root", becomes: &[], state: bench.state() },
    ] {
        for net in ["none", "user"] {
            let delete = ["--force", NAME];
            let _ = time(program(bench, &who, "banger-vm-delete", &delete).stderr(Stdio::null()));
            let create = ["--no-start", "--image", "empty", "--name", NAME, "--vcpu", "1"];
            let more = ["--memory", "512M", "--vmm", "firecracker", "--net", net];
            let create = [&create[..], &more].concat();
            time(&mut program(bench, &who, "banger-vm-create", &create))?;
            let mut phases = Phases::default();
            let mut resident = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                round(bench, &who, &mut phases, &mut resident)?;
            }
            time(&mut program(bench, &who, "banger-vm-delete", &delete))?;
            report(bench, &who, net, phases, resident);
        }
    }
    raw_pasta(bench)
}

fn program(bench: &Bench, who: &Who, name: &str, words: &[&str]) -> Command {
    wrapped(bench, who, "exec \"$@\"", name, words)
}

/// Prepares a program, with a shell's words before it.
fn wrapped(bench: &Bench, who: &Who, before: &str, name: &str, words: &[&str]) -> Command {
    let mut command = with_devices();
    command.args(who.becomes).args(["sh", "-euc", before, "sh"]);
    command.arg(bench.bin.join(name)).args(words);
    command.env("BANGER_STATE", &who.state).env("BANGER_CONFIG", bench.dir.join("start.toml"));
    command
}

fn with_devices() -> Command {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-euc", &format!("{DEVICES}; exec \"$@\""), "sh"]);
    command
}

/// Starts the VM, waits until the guest runs, looks at memory, and kills it.
fn round(
    bench: &Bench,
    who: &Who,
    phases: &mut Phases,
    resident: &mut (Vec<f64>, Vec<f64>),
) -> Result {
    let folder = who.state.join("vms").join(NAME);
    let log = folder.join("supervise.log");
    let _ = fs::remove_file(&log);
    // The time of `unshare` and its shell is not banger's: the clock begins in there.
    let stamp = who.state.join("stamp");
    let before = "date +%s%N >\"$STAMP\"; exec \"$@\"";
    let mut start = wrapped(bench, who, before, "banger-vm-start", &["--wait", "agent", NAME]);
    start.env("STAMP", &stamp);
    let mut child = start
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start the VM: {error}"))?;
    let end = Instant::now() + Duration::from_mins(1);
    let running = loop {
        let bytes = fs::read(folder.join("running.json")).unwrap_or_default();
        let running: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if running["launched_ms"].is_u64() {
            break running;
        }
        if Instant::now() > end {
            return Err("the guest does not run within 60 s".into());
        }
        thread::sleep(Duration::from_millis(2));
    };
    for (role, to) in [("supervisor", &mut resident.0), ("stub", &mut resident.1)] {
        to.push(resident_mib(&running[role]["pid"])?);
    }
    let began = fs::read_to_string(&stamp).map_err(|error| format!("no time: {error}"))?;
    let began = began.trim().parse::<f64>().map_err(|error| error.to_string())? / 1e6;
    let supervisor = running["started_unix_ms"].as_f64().unwrap_or_default() - began;
    let words = fs::read_to_string(&log).map_err(|error| format!("no log: {error}"))?;
    let after = |what: &str| -> Result<f64> {
        let rest = words.split_once(what).ok_or_else(|| format!("the log says no '{what}'"))?.1;
        let number = rest.trim_start().split(' ').next().unwrap_or_default();
        number.parse().map_err(|_| format!("the log says '{number}' of '{what}'"))
    };
    let vmm = supervisor + after("the VMM began after")?;
    phases.began.push(supervisor);
    phases.prepared.push(supervisor + after("prepared after")?);
    phases.vmm.push(vmm);
    phases.socket.push(vmm + after("its socket after")?);
    phases.configured.push(vmm + after(", configured after")?);
    phases.started.push(vmm + after("the guest started after")?);
    let _ = child.kill();
    let _ = child.wait();
    time(&mut program(bench, who, "banger-vm-kill", &[NAME])).map(drop)
}

fn report(bench: &mut Bench, who: &Who, net: &str, phases: Phases, resident: (Vec<f64>, Vec<f64>)) {
    run::say(&format!("== {}, --net {net}: from 'vm start', medians of {ROUNDS}", who.name));
    // In root's time is its jailer's, which has the kernel move it into control groups.
    let budget = (!who.becomes.is_empty()).then_some(50.0);
    bench.figure("the supervisor has the VM", median(phases.began), "ms", None);
    bench.figure("documents, initramfs, choice of the VMM", median(phases.prepared), "ms", None);
    bench.figure("stub, network, jail, VMM's program", median(phases.vmm), "ms", None);
    bench.figure("Firecracker's socket", median(phases.socket), "ms", None);
    bench.figure("machine configured", median(phases.configured), "ms", None);
    bench.figure("InstanceStart accepted", median(phases.started), "ms", budget);
    bench.figure("supervisor, resident", median(resident.0), "MiB", Some(RESIDENT));
    bench.figure("stub, resident", median(resident.1), "MiB", Some(RESIDENT));
}

/// Field `VmRSS` of proc_pid_status(5).
fn resident_mib(pid: &serde_json::Value) -> Result<f64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))
        .map_err(|error| format!("process {pid}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib = line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0).ok_or_else(|| format!("process {pid} has no VmRSS"))
}

/// What pasta takes by itself, which runs beside the VMM.
fn raw_pasta(bench: &mut Bench) -> Result {
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let mut command = with_devices();
        command.args(["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"]);
        command.args(["pasta", "-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
        command.args(["--no-map-gw", "--config-net", "--quiet", "--", "/bin/true"]);
        took.push(time(command.current_dir("/").stderr(Stdio::null()))?);
    }
    bench.figure("raw pasta, beside the VMM", median(took), "ms", None);
    Ok(())
}
