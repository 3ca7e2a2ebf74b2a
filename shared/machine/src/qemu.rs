//! QEMU: with KVM where it works, else in software.

use crate::{Accelerator, Disk, Event, Launch, Machine, Plan, Way, ask, kvm, qmp::Qmp};
use banger_channel::bridge::Device;
use banger_config::Binaries;
use banger_doc::{Channel, Context, Error, Result, Vmm};
use banger_jail::{End, JAIL, Jail, Seen, User, loaded, own_user, weak_root};
use nix::unistd::{Uid, chown, geteuid};
use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// A firmware that does the little a kernel needs, where SeaBIOS looks at each disk first.
const SMALL_FIRMWARE: &str = "qboot.rom";
/// Virtio 1 alone (its section 4.1): each device that also offers the older ways has more for the kernel
/// to find and lay out, a tenth of a second of an emulated boot.
const MODERN: &str = "pci-non-transitional";
/// The virtio-serial port that the guest's agent speaks on.
const PORT: &str = "banger.0";
/// The first QEMU that can have a socket behind a guest's interface.
const STREAMS: (u32, u32) = (7, 2);
/// How long it may take to tell its version.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// Kernel and initramfs in the jail.
const KERNEL: &str = "/kernel";
const INITRAMFS: &str = "/initramfs";
/// Where QEMU's firmware lies, below `/usr` or wherever else QEMU was installed to.
const FIRMWARE: &[&str] = &[
    "share/qemu",
    "share/qemu-kvm",
    "share/seabios",
    "share/seavgabios",
    "share/sgabios",
    "share/ipxe",
    "share/edk2",
];

/// QEMU, about to run or running.
#[derive(Debug)]
pub struct Qemu {
    program: PathBuf,
    /// The program as its jail has it, unless it can have none.
    jailed: Option<PathBuf>,
    accelerator: Accelerator,
    /// QEMU's own choice where there is none.
    firmware: Option<PathBuf>,
    plan: Plan,
    qmp: Qmp,
    console: UnixStream,
    channel: Option<UnixStream>,
    /// QEMU's ends of the three sockets: qmp, console, channel.
    ends: Option<[OwnedFd; 3]>,
}

/// Descriptors that QEMU inherits, by number.
struct Inherited {
    /// Sockets: qmp, console, channel.
    sockets: [RawFd; 3],
    /// Those of each disk: one to read, and one to write unless the guest may only read.
    disks: Vec<Vec<RawFd>>,
    /// The socket behind the guest's interface, if there is one.
    carried: Option<RawFd>,
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
        let firmware = (plan.architecture == "amd64").then(|| small_firmware(&program)).flatten();
        Ok(Self {
            jailed: banger_jail::program(&program)?,
            program,
            accelerator,
            firmware,
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
        let disks = self.plan.disks.iter().map(open).collect::<Result<Vec<_>>>()?;
        let carried = (self.plan.carried && self.plan.mac.is_some())
            .then(UnixStream::pair)
            .transpose()
            .context("cannot make a socket for the network")?;
        let numbers = |files: &[OwnedFd]| files.iter().map(AsRawFd::as_raw_fd).collect();
        let inherited = Inherited {
            sockets: ends.each_ref().map(AsRawFd::as_raw_fd),
            disks: disks.iter().map(|files| numbers(files)).collect(),
            carried: carried.as_ref().map(|(end, _)| end.as_raw_fd()),
        };
        let command = |program: &Path, plan: &Plan| {
            let mut command = Command::new(program);
            command.args(words(plan, self.accelerator, &inherited));
            if let Some(firmware) = &self.firmware {
                command.arg("-bios").arg(firmware);
            }
            command
        };
        let mut ways = Vec::new();
        if let Some(program) = &self.jailed {
            fs::create_dir(JAIL).with_context(|| format!("cannot make '{JAIL}'"))?;
            let user = (geteuid().is_root() && weak_root().is_ok()).then(|| own_user(User::Vmm));
            if let Some(user) = user {
                chown(&self.plan.initramfs, Some(user), None)
                    .context("cannot give the initramfs to the VMM")?;
            }
            let way = |tap: Option<String>| {
                let plan = Plan {
                    kernel: KERNEL.into(),
                    initramfs: INITRAMFS.into(),
                    tap,
                    ..self.plan.clone()
                };
                (command(program, &plan), Some(self.jail(program, &plan, user)))
            };
            let (command, jail) = way(self.plan.tap.clone());
            ways.push(Way { command, jail, without_tap: Some(way(None)), user });
        }
        let without_tap = Plan { tap: None, ..self.plan.clone() };
        ways.push(Way {
            command: command(&self.program, &self.plan),
            jail: None,
            without_tap: Some((command(&self.program, &without_tap), None)),
            user: None,
        });
        let (end, carried) = carried.unzip();
        let inherit = ends.into_iter().chain(disks.into_iter().flatten());
        let inherit = inherit.chain(end.map(OwnedFd::from)).collect();
        Ok(Launch { ways, inherit, carried: carried.map(OwnedFd::from), stdout: None })
    }

    fn guest_channel(&self) -> Channel {
        Channel::VirtioSerial
    }

    fn channel(&mut self) -> Device {
        Device::Port(self.channel.take().expect("because it is asked for once"))
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

impl Qemu {
    /// What the user is to know of a QEMU that has no jail.
    pub(crate) fn unjailed(&self) -> Option<String> {
        self.jailed.is_none().then(|| {
            format!(
                "QEMU runs without its jail: '{}' is no program but a script",
                self.program.display()
            )
        })
    }

    /// What QEMU sees: itself and what it is loaded with, kernel and initramfs, and the devices it
    /// needs. The disks are open already.
    fn jail(&self, program: &Path, plan: &Plan, user: Option<Uid>) -> Jail {
        let mut files = loaded(program, FIRMWARE);
        let mut see = |host: PathBuf, inside: &str, writable| {
            files.push(Seen { host, inside: inside.to_owned(), writable });
        };
        see(self.plan.kernel.clone(), KERNEL.trim_start_matches('/'), false);
        see(self.plan.initramfs.clone(), INITRAMFS.trim_start_matches('/'), false);
        see("/dev/urandom".into(), "dev/urandom", false);
        if self.accelerator == Accelerator::Kvm {
            see("/dev/kvm".into(), "dev/kvm", true);
        }
        let by_itself = plan.mac.is_some() && plan.tap.is_none() && !plan.carried;
        if plan.tap.is_some() {
            see("/dev/net/tun".into(), "dev/net/tun", true);
        } else if by_itself && Path::new("/etc/resolv.conf").exists() {
            see("/etc/resolv.conf".into(), "etc/resolv.conf", false);
        }
        let mut jail = Jail::new(files, JAIL, End::Own(user));
        jail.unplugged = plan.mac.is_none() || plan.carried;
        jail.connects = by_itself;
        jail
    }
}

/// Says why the QEMU of an architecture can have no socket behind a guest's interface, if it cannot, in words; it
/// is asked for its version, for which it has until then and a little while at most.
pub fn streams(architecture: &str, binaries: &Binaries, until: Instant) -> Result<(), String> {
    let program = find(architecture, binaries).map_err(|error| error.chain())?;
    let until = until.min(Instant::now() + VERSION_LIMIT);
    let said = ask(Command::new(program).arg("--version"), until).map_err(|error| error.chain())?;
    let number = number(&said).ok_or("QEMU does not tell its version")?;
    if number < STREAMS {
        let ((major, minor), (from, since)) = (number, STREAMS);
        return Err(format!(
            "QEMU {major}.{minor} is older than {from}.{since}, the first that has a socket for it"
        ));
    }
    Ok(())
}

/// Reads the two numbers of a line such as `QEMU emulator version 7.2.22 (Debian 1:7.2)`.
pub fn number(line: &str) -> Option<(u32, u32)> {
    let (_, version) = line.split_once("version ")?;
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Opens a disk as often as QEMU has to: for writing it reads the disk's beginning first.
fn open(disk: &Disk) -> Result<Vec<OwnedFd>> {
    let path = &disk.path;
    let open = || -> std::io::Result<Vec<OwnedFd>> {
        let mut files = vec![File::open(path)?.into()];
        if !disk.read_only {
            files.push(File::options().read(true).write(true).open(path)?.into());
        }
        Ok(files)
    };
    open().with_context(|| format!("cannot open the {} disk '{}'", disk.role, path.display()))
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

/// Finds the small firmware in the folder of QEMU's data, which lies beside its programs'.
fn small_firmware(program: &Path) -> Option<PathBuf> {
    let program = program.canonicalize().ok()?;
    let path = program.parent()?.parent()?.join("share/qemu").join(SMALL_FIRMWARE);
    path.is_file().then_some(path)
}

/// The command line after the program.
fn words(plan: &Plan, accelerator: Accelerator, inherited: &Inherited) -> Vec<String> {
    let [qmp, console, channel] = inherited.sockets;
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
            // "Enhanced" copies are bytes to the emulator, eight of which are one word without it.
            add("-cpu", if arm { "max" } else { "max,-erms,-fsrm" }.into());
        }
    }
    add("-smp", plan.vcpu.to_string());
    add("-m", format!("{}M", plan.memory_mib));
    add("-kernel", plain(&plan.kernel));
    add("-initrd", plain(&plan.initramfs));
    let emulated = (accelerator == Accelerator::Tcg).then_some(plan.vcpu);
    add("-append", command_line(arm, emulated, plan.verbose));
    for (set, (disk, fds)) in plan.disks.iter().zip(&inherited.disks).enumerate() {
        let Disk { role, read_only, .. } = disk;
        for fd in fds {
            add("-add-fd", format!("fd={fd},set={set}"));
        }
        let access = if *read_only { "read-only=on" } else { "read-only=off,discard=unmap" };
        add(
            "-drive",
            format!(
                "if=none,id={role},file.driver=file,file.filename=/dev/fdset/{set},format=raw,\
                 cache=writeback,{access}",
            ),
        );
        add("-device", format!("virtio-blk-{MODERN},drive={role}"));
    }
    add("-chardev", format!("socket,id=channel,fd={channel}"));
    add("-device", format!("virtio-serial-{MODERN},max_ports=2"));
    add("-device", format!("virtserialport,chardev=channel,name={PORT}"));
    add("-device", format!("virtio-rng-{MODERN}"));
    // What the guest does not use is the host's again.
    add("-device", format!("virtio-balloon-{MODERN},free-page-reporting=on"));
    if let Some(mac) = &plan.mac {
        let way = match (&plan.tap, inherited.carried) {
            (Some(tap), _) => format!("tap,id=net,ifname={tap},script=no,downscript=no,vhost=off"),
            (None, Some(fd)) => format!("stream,id=net,server=off,addr.type=fd,addr.str={fd}"),
            (None, None) => format!("user,id=net,{}", plan.user_network),
        };
        add("-netdev", way);
        add("-device", format!("virtio-net-{MODERN},netdev=net,mac={mac},romfile="));
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
/// warnings still come through. `emulated` is the number of processors, if those are emulated.
fn command_line(arm: bool, emulated: Option<u32>, verbose: bool) -> String {
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
    let emulated = match emulated {
        Some(1) if !arm => " noreplace-smp nolapic_timer",
        // To stop its tick the kernel rewrites code that every processor is in at that moment. QEMU before 8.1 may
        // go on with the breakpoint that lies there meanwhile, and one boot in some hundreds panics.
        Some(_) if !arm => " nohz=off",
        _ => "",
    };
    format!("{words}{emulated} {extent}")
}

fn plain(path: &Path) -> String {
    path.to_string_lossy().into_owned()
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
            carried: false,
            user_network: "net=192.0.2.0/24".into(),
            verbose: false,
            namespaces: Ok(()),
            until: Instant::now(),
        }
    }

    #[test]
    fn a_qemu_that_cannot_carry_packets_is_told_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("qemu");
        let says = |body: &str| {
            // Written by another process, since what somebody writes cannot be run.
            let write = "rm -f \"$1\"; printf '#!/bin/sh\\n%s\\n' \"$2\" >\"$1\"; chmod 755 \"$1\"";
            let mut shell = Command::new("sh");
            shell.args(["-euc", write, "sh"]).arg(&program).arg(body);
            assert!(shell.status().unwrap().success());
            let binaries = Binaries { qemu: Some(program.clone()), ..Binaries::default() };
            streams(host_architecture(), &binaries, Instant::now() + Duration::from_secs(5))
        };
        assert_eq!(says("echo 'QEMU emulator version 7.2.22 (Debian)'"), Ok(()));
        assert_eq!(says("echo 'QEMU emulator version 10.0.2'"), Ok(()));
        let old = says("echo 'QEMU emulator version 6.2.0'").unwrap_err();
        assert!(old.starts_with("QEMU 6.2 is older than 7.2"), "{old}");
        assert!(says("echo words").unwrap_err().contains("does not tell its version"));
        assert!(says("exec sleep 60").unwrap_err().contains("does not end"));
    }

    #[test]
    fn the_command_line_says_what_the_plan_says() {
        let inherited =
            Inherited { sockets: [3, 4, 5], disks: vec![vec![6], vec![7, 8]], carried: None };
        let line = words(&plan(), Accelerator::Tcg, &inherited).join(" ");
        assert!(
            line.contains("-accel tcg,thread=multi -cpu max,-erms,-fsrm -smp 2 -m 512M"),
            "{line}"
        );
        assert!(line.contains("-add-fd fd=6,set=0 -drive if=none,id=base,"), "{line}");
        assert!(line.contains("-add-fd fd=7,set=1 -add-fd fd=8,set=1 -drive "), "{line}");
        assert!(line.contains("id=overlay,file.driver=file,file.filename=/dev/fdset/1,"), "{line}");
        assert!(line.contains("cache=writeback,read-only=on"), "{line}");
        assert!(line.contains("read-only=off,discard=unmap"), "{line}");
        assert!(line.contains("id=console,fd=4"), "{line}");
        let balloon = "virtio-balloon-pci-non-transitional,free-page-reporting=on";
        assert!(line.contains(balloon), "{line}");
        assert!(!line.contains("-netdev"), "{line}");
        assert!(line.contains(" quiet ") && !line.contains("earlyprintk"), "{line}");
        assert!(line.contains(" nohz=off ") && !line.contains("noreplace-smp"), "{line}");
        let single = Plan { vcpu: 1, ..plan() };
        let emulated = words(&single, Accelerator::Tcg, &inherited).join(" ");
        assert!(emulated.contains(" noreplace-smp nolapic_timer quiet "), "{emulated}");
        let native = words(&single, Accelerator::Kvm, &inherited).join(" ");
        assert!(!native.contains("nolapic_timer"), "{native}");
        let native = words(&plan(), Accelerator::Kvm, &inherited).join(" ");
        assert!(!native.contains("nohz"), "{native}");
        let told = Plan { verbose: true, ..plan() };
        let told = words(&told, Accelerator::Tcg, &inherited).join(" ");
        assert!(told.contains("earlyprintk=ttyS0") && !told.contains(" quiet"), "{told}");
        let base = line.find("drive=base").unwrap();
        assert!(base < line.find("drive=overlay").unwrap(), "the order is the guest's");

        let mut plan = plan();
        plan.mac = Some("02:00:00:00:00:01".into());
        let line = words(&plan, Accelerator::Kvm, &inherited).join(" ");
        assert!(line.contains("-accel kvm -cpu host"), "{line}");
        assert!(
            line.contains("virtio-net-pci-non-transitional,netdev=net,mac=02:00:00:00:00:01"),
            "{line}"
        );
        assert!(line.contains("-netdev user,id=net,net=192.0.2.0/24 "), "{line}");
        let carried = Inherited { carried: Some(9), ..inherited };
        let line = words(&plan, Accelerator::Kvm, &carried).join(" ");
        assert!(
            line.contains("-netdev stream,id=net,server=off,addr.type=fd,addr.str=9 "),
            "{line}"
        );
        plan.tap = Some("tap0".into());
        let inherited = carried;
        let line = words(&plan, Accelerator::Kvm, &inherited).join(" ");
        assert!(line.contains("-netdev tap,id=net,ifname=tap0,script=no"), "{line}");
    }

    #[test]
    fn the_page_has_the_reason_of_each_word() {
        let page = include_str!("../../../docs/boot.md");
        for (arm, verbose) in [(true, true), (true, false), (false, true), (false, false)] {
            let lines = [Some(1), Some(2)].map(|vcpu| command_line(arm, vcpu, verbose));
            for word in lines.iter().flat_map(|line| line.split_whitespace()) {
                // `console=ttyS0` (`ttyAMA0` on arm64)
                let word = word.strip_prefix("console=").unwrap_or(word);
                assert!(page.contains(word), "docs/boot.md says nothing of '{word}'");
            }
        }
    }

    #[test]
    fn the_small_firmware_is_found_beside_qemu() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, data) = (dir.path().join("bin"), dir.path().join("share/qemu"));
        for dir in [&bin, &data] {
            fs::create_dir_all(dir).unwrap();
        }
        let program = bin.join("qemu-system-x86_64");
        fs::write(&program, "").unwrap();
        assert_eq!(small_firmware(&program), None);
        fs::write(data.join(SMALL_FIRMWARE), "").unwrap();
        assert_eq!(
            small_firmware(&program),
            Some(data.canonicalize().unwrap().join(SMALL_FIRMWARE))
        );
    }

    #[test]
    fn a_missing_emulator_is_unavailable() {
        let binaries = Binaries { qemu: Some("/nowhere/qemu".into()), ..Binaries::default() };
        let error = find(host_architecture(), &binaries).unwrap_err();
        assert_eq!(error.kind(), banger_doc::Kind::Unavailable);
        assert_eq!(find("s390x", &binaries).unwrap_err().kind(), banger_doc::Kind::Unavailable);
    }
}
