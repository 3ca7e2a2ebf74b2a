//! QEMU: with KVM where it works, else in software.

use crate::{Accelerator, Disk, Event, Launch, Machine, Plan, kvm, qmp::Qmp};
use banger_config::Binaries;
use banger_doc::{Context, Error, Result, Vmm};
use std::{
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
};

/// The virtio-serial port that the guest's agent speaks on.
const PORT: &str = "banger.0";

/// QEMU, about to run or running.
#[derive(Debug)]
pub struct Qemu {
    program: PathBuf,
    accelerator: Accelerator,
    plan: Plan,
    qmp: Qmp,
    console: UnixStream,
    channel: Option<UnixStream>,
    /// QEMU's ends of the three sockets: qmp, console, channel.
    ends: Option<[OwnedFd; 3]>,
}

impl Qemu {
    /// Finds QEMU and prepares it for a plan.
    pub fn new(plan: Plan, binaries: &Binaries) -> Result<Self> {
        let program = find(&plan.architecture, binaries)?;
        let native = plan.architecture == host_architecture();
        let accelerator = if native && kvm().works() { Accelerator::Kvm } else { Accelerator::Tcg };
        let pair = || UnixStream::pair().context("cannot make a socket for QEMU");
        let ((qmp, qmp_end), (console, console_end), (channel, channel_end)) =
            (pair()?, pair()?, pair()?);
        console.set_nonblocking(true).context("cannot read the console")?;
        Ok(Self {
            program,
            accelerator,
            plan,
            qmp: Qmp::new(qmp)?,
            console,
            channel: Some(channel),
            ends: Some([qmp_end.into(), console_end.into(), channel_end.into()]),
        })
    }
}

impl Machine for Qemu {
    fn vmm(&self) -> Vmm {
        Vmm::Qemu
    }

    fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    fn launch(&mut self) -> Result<Launch> {
        let ends = self.ends.take().expect("because a machine is launched once");
        let command = |plan: &Plan| {
            let mut command = Command::new(&self.program);
            command.args(words(plan, self.accelerator, ends.each_ref().map(OwnedFd::as_fd)));
            command
        };
        let with_tap = command(&self.plan);
        let without_tap = command(&Plan { tap: None, ..self.plan.clone() });
        Ok(Launch {
            command: with_tap,
            without_tap: Some(without_tap),
            inherit: ends.into(),
            stdout: None,
            jail: None,
            user: None,
        })
    }

    fn channel(&mut self) -> Option<UnixStream> {
        self.channel.take()
    }

    fn console(&self) -> BorrowedFd<'_> {
        self.console.as_fd()
    }

    fn control(&self) -> BorrowedFd<'_> {
        self.qmp.fd()
    }

    fn events(&mut self) -> Result<Option<Vec<Event>>> {
        self.qmp.events()
    }

    fn pause(&mut self) -> Result<()> {
        self.qmp.execute("stop")
    }

    fn resume(&mut self) -> Result<()> {
        self.qmp.execute("cont")
    }

    fn press_power(&mut self) -> Result<bool> {
        self.qmp.execute("system_powerdown").map(|()| true)
    }
}

/// The host's processor in the OCI image specification's words.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Finds the emulator of an architecture: the configured one for the host's own, else in `PATH`.
fn find(architecture: &str, binaries: &Binaries) -> Result<PathBuf> {
    let name = match architecture {
        "amd64" => "qemu-system-x86_64",
        "arm64" => "qemu-system-aarch64",
        other => {
            return Err(Error::unavailable(format!(
                "banger runs no guests of architecture '{other}'"
            )));
        }
    };
    if let Some(path) = binaries.qemu.as_ref().filter(|_| architecture == host_architecture()) {
        if path.is_file() {
            return Ok(path.clone());
        }
        return Err(Error::unavailable(format!("no QEMU at '{}'", path.display()))
            .hint("'binaries.qemu' in config.toml names it; without it, PATH is searched"));
    }
    which::which(name).map_err(|error| {
        Error::unavailable(format!("cannot find '{name}'")).because(error).hint(
            "install QEMU (Debian, Ubuntu: qemu-system-x86; Fedora: qemu-system-x86-core; \
             Arch: qemu-base); 'banger doctor' checks the rest",
        )
    })
}

/// The command line after the program. The descriptors are qmp, console, channel.
fn words(plan: &Plan, accelerator: Accelerator, fds: [BorrowedFd<'_>; 3]) -> Vec<String> {
    let [qmp, console, channel] = fds.map(|fd| fd.as_raw_fd());
    let arm = plan.architecture == "arm64";
    let mut words: Vec<String> = Vec::with_capacity(64);
    let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);

    add("-name", format!("guest={}", plan.name));
    add(
        "-M",
        if arm { "virt" } else { "q35,usb=off,vmport=off,smm=off,sata=off,smbus=off" }.into(),
    );
    match accelerator {
        Accelerator::Kvm => {
            add("-accel", "kvm".into());
            add("-cpu", "host".into());
        }
        Accelerator::Tcg => {
            add("-accel", "tcg,thread=multi".into());
            add("-cpu", "max".into());
        }
    }
    add("-smp", plan.vcpu.to_string());
    add("-m", format!("{}M", plan.memory_mib));
    add("-kernel", plain(&plan.kernel));
    add("-initrd", plain(&plan.initramfs));
    add("-append", command_line(arm, plan.verbose));
    for Disk { role, path, read_only } in &plan.disks {
        let access = if *read_only { "read-only=on" } else { "read-only=off,discard=unmap" };
        add(
            "-drive",
            format!(
                "if=none,id={role},file.driver=file,file.filename={},format=raw,cache=writeback,\
                 {access}",
                escaped(path)
            ),
        );
        add("-device", format!("virtio-blk-pci,drive={role}"));
    }
    add("-chardev", format!("socket,id=channel,fd={channel}"));
    add("-device", "virtio-serial-pci,max_ports=2".into());
    add("-device", format!("virtserialport,chardev=channel,name={PORT}"));
    add("-device", "virtio-rng-pci".into());
    if let Some(mac) = &plan.mac {
        let way = match &plan.tap {
            Some(tap) => format!("tap,id=net,ifname={tap},script=no,downscript=no,vhost=off"),
            None => format!("user,id=net,{}", plan.user_network),
        };
        add("-netdev", way);
        add("-device", format!("virtio-net-pci,netdev=net,mac={mac},romfile="));
    }
    add("-chardev", format!("socket,id=console,fd={console}"));
    add("-serial", "chardev:console".into());
    add("-chardev", format!("socket,id=qmp,fd={qmp}"));
    add("-mon", "chardev=qmp,mode=control".into());
    add("-display", "none".into());
    add(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
    );
    words.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(String::from));
    words
}

/// What the kernel is told. `panic=-1` turns a panic into a restart, which ends QEMU instead of
/// leaving it spinning; `quiet` spares an emulated guest thousands of serial port writes, and
/// warnings still come through.
fn command_line(arm: bool, verbose: bool) -> String {
    let words = if arm {
        "console=ttyAMA0 panic=-1 cryptomgr.notests net.ifnames=0"
    } else {
        "console=ttyS0 panic=-1 reboot=t no_timer_check cryptomgr.notests net.ifnames=0"
    };
    let extent = match (verbose, arm) {
        (false, _) => "quiet",
        (true, false) => "earlyprintk=ttyS0 ignore_loglevel",
        (true, true) => "earlycon ignore_loglevel",
    };
    format!("{words} {extent}")
}

fn plain(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Doubles commas, which end a value in QEMU's options.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            name: "web".into(),
            id: "0123".into(),
            architecture: "amd64".into(),
            vcpu: 2,
            memory_mib: 512,
            kernel: "/k/vmlinux".into(),
            initramfs: "run/initramfs".into(),
            disks: vec![
                Disk { role: "base", path: "/a,b/rootfs.ext4".into(), read_only: true },
                Disk { role: "overlay", path: "overlay.ext4".into(), read_only: false },
            ],
            mac: None,
            tap: None,
            user_network: "net=192.0.2.0/24".into(),
            verbose: false,
            namespaces: Ok(()),
        }
    }

    #[test]
    fn the_command_line_says_what_the_plan_says() {
        let (a, b) = UnixStream::pair().unwrap();
        let line = words(&plan(), Accelerator::Tcg, [a.as_fd(), b.as_fd(), a.as_fd()]).join(" ");
        assert!(line.contains("-accel tcg,thread=multi -cpu max -smp 2 -m 512M"), "{line}");
        assert!(line.contains("file.filename=/a,,b/rootfs.ext4,"), "{line}");
        assert!(line.contains("cache=writeback,read-only=on"), "{line}");
        assert!(line.contains("read-only=off,discard=unmap"), "{line}");
        assert!(line.contains(&format!("id=console,fd={}", b.as_raw_fd())), "{line}");
        assert!(!line.contains("-netdev"), "{line}");
        assert!(line.contains(" quiet ") && !line.contains("earlyprintk"), "{line}");
        let told = Plan { verbose: true, ..plan() };
        let told = words(&told, Accelerator::Tcg, [a.as_fd(), b.as_fd(), a.as_fd()]).join(" ");
        assert!(told.contains("earlyprintk=ttyS0") && !told.contains(" quiet"), "{told}");
        let base = line.find("drive=base").unwrap();
        assert!(base < line.find("drive=overlay").unwrap(), "the order is the guest's");

        let mut plan = plan();
        plan.mac = Some("02:00:00:00:00:01".into());
        let line = words(&plan, Accelerator::Kvm, [a.as_fd(), b.as_fd(), a.as_fd()]).join(" ");
        assert!(line.contains("-accel kvm -cpu host"), "{line}");
        assert!(line.contains("virtio-net-pci,netdev=net,mac=02:00:00:00:00:01"), "{line}");
        assert!(line.contains("-netdev user,id=net,net=192.0.2.0/24 "), "{line}");
        plan.tap = Some("tap0".into());
        let line = words(&plan, Accelerator::Kvm, [a.as_fd(), b.as_fd(), a.as_fd()]).join(" ");
        assert!(line.contains("-netdev tap,id=net,ifname=tap0,script=no"), "{line}");
    }

    #[test]
    fn a_missing_emulator_is_unavailable() {
        let binaries = Binaries { qemu: Some("/nowhere/qemu".into()), ..Binaries::default() };
        let error = find(host_architecture(), &binaries).unwrap_err();
        assert_eq!(error.kind(), banger_doc::Kind::Unavailable);
        assert_eq!(find("s390x", &binaries).unwrap_err().kind(), banger_doc::Kind::Unavailable);
    }
}
