//! How much longer than the bare machine a VM takes to be ready.

use super::{Bench, LIMIT, median, shell, text, time};
use crate::{Result, run};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Instant,
};

const ROUNDS: usize = 5;
const NAME: &str = "bench-boot";
/// What banger tells the kernel too (`docs/boot.md`): other words would compare two kernels.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet panic=-1 reboot=t no_timer_check cryptomgr.notests net.ifnames=0";
/// The same, of a kernel that is emulated.
const EMULATED: &str = "noreplace-smp nolapic_timer";

pub(super) fn measure(bench: &mut Bench) -> Result {
    let kernel = bench.state().join("kernels/generic-6.12/vmlinux");
    time(&mut bench.program("banger-kernel-pull", &["generic-6.12"]))?;
    busybox(bench)?;
    let bare = bench.dir.join("bare.cpio");
    bare_initramfs(&bench.dir, &bare)?;

    time(bench.program("banger-vm-delete", &["--force", NAME]).stderr(Stdio::null())).ok();
    let mut create = bench.program(
        "banger-vm-create",
        &["--no-start", "--image", "busybox", "--name", NAME, "--vcpu", "1", "--memory", "512M"],
    );
    time(&mut create)?;
    let (mut ours, mut theirs, mut launch) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(bare_boot(&kernel, &bare)?);
        let took = time(&mut bench.program("banger-vm-start", &["--wait", "agent", NAME]))?;
        run::say(&format!("banger: {took:.0} ms"));
        ours.push(took);
        let running = fs::read(bench.state().join("vms").join(NAME).join("running.json"));
        let running: serde_json::Value =
            serde_json::from_slice(&running.unwrap_or_default()).unwrap_or_default();
        launch.extend(running["launched_ms"].as_f64());
        time(&mut bench.program("banger-vm-stop", &[NAME]))?;
    }
    time(&mut bench.program("banger-vm-delete", &["--force", NAME]))?;
    let (ours, theirs) = (median(ours), median(theirs));
    bench.figure("bare QEMU to a minimal init", theirs, "ms", None);
    bench.figure("banger vm start to the agent's answer", ours, "ms", None);
    bench.figure("ratio", ours / theirs, "", Some(1.15));
    bench.figure("host work before the guest runs", median(launch), "ms", Some(50.0));
    Ok(())
}

/// An image with busybox and nothing else, by the way a tar takes.
pub(super) fn busybox(bench: &Bench) -> Result {
    bench.once("busybox-image", || {
        let script = "rm -rf root; mkdir -p root/bin root/sbin root/root root/tmp root/etc; \
             cp /bin/busybox root/bin; for name in $(busybox --list | grep -vx busybox); do \
             ln -sf busybox root/bin/$name; done; ln -sf ../bin/busybox root/sbin/init; \
             echo ::sysinit:/bin/true >root/etc/inittab; \
             tar -C root --owner=0 --group=0 -cf busybox.tar .";
        shell(&bench.dir, script)?;
        let tar = bench.dir.join("busybox.tar");
        time(&mut bench.program("banger-image-import", &[text(&tar), "--name", "busybox"]))
            .map(drop)
    })
}

/// An initramfs whose init says one word.
fn bare_initramfs(dir: &Path, to: &Path) -> Result {
    let script = format!(
        "rm -rf bare; mkdir -p bare/bin; cp /bin/busybox bare/bin; \
         printf '#!/bin/busybox sh\\necho READY\\nexec /bin/busybox sleep 1000\\n' >bare/init; \
         chmod +x bare/init; cd bare; find . | cpio -o -H newc --quiet >{}",
        text(to)
    );
    shell(dir, &script)
}

/// Boots the kernel on the same machine with the same words, until its init speaks.
fn bare_boot(kernel: &Path, initramfs: &Path) -> Result<f64> {
    let (accelerator, cpu, more) =
        if kvm() { ("kvm", "host", "") } else { ("tcg,thread=multi", "max", EMULATED) };
    let began = Instant::now();
    let mut child = Command::new("qemu-system-x86_64")
        .args(["-M", "q35", "-accel", accelerator, "-cpu", cpu, "-smp", "1", "-m", "512M"])
        .args(["-kernel", text(kernel), "-initrd", text(initramfs)])
        .args(["-append", &format!("{COMMAND_LINE} {more}")])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run QEMU: {error}"))?;
    let console = BufReader::new(child.stdout.take().expect("because it is a pipe"));
    let (sender, ready) = mpsc::channel();
    thread::spawn(move || {
        for line in console.split(b'\n').map_while(std::result::Result::ok) {
            if line.windows(5).any(|word| word == b"READY") {
                let _ = sender.send(());
            }
        }
    });
    let ready = ready.recv_timeout(LIMIT);
    let took = began.elapsed().as_secs_f64() * 1000.0;
    let _ = child.kill();
    let _ = child.wait();
    ready.map_err(|_| "bare QEMU never reached its init".to_owned())?;
    run::say(&format!("bare QEMU: {took:.0} ms"));
    Ok(took)
}

/// What banger calls a usable KVM: the device opens and the processor can.
pub(super) fn kvm() -> bool {
    let opens = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    opens && flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}
