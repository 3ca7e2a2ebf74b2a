//! Firecracker, where KVM works.

use crate::{
    Accelerator, Event, Kvm, Launch, Machine, OUTPUT, Plan, Way,
    api::{Api, BootSource, Drive, MachineConfig, NetworkInterface, Vsock},
    ask, cgroup, kvm,
    versions::{GET_FIRECRACKER, Version},
};
use banger_channel::{VSOCK_PORT, bridge::Device};
use banger_config::Binaries;
use banger_doc::{Channel, Context, Desire, Document, Error, Report, Result, Vmm, shell_word};
use banger_jail::{
    End, JAIL, Jail, Seen, User, is_dynamic, is_elf, libraries, own_user, weak_root,
};
use nix::{
    sys::stat::Mode,
    unistd::{Gid, Uid, chown, geteuid, mkfifo},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::{OpenOptionsExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

/// Where Firecracker serves its API, below the VM's folder.
const API: &str = "run/api.sock";
/// Where it writes its metrics, a pipe below the VM's folder.
const METRICS: &str = "run/metrics";
/// The host's end of the guest's vsock, below the VM's folder. When the guest calls a port of the host,
/// Firecracker connects to this name, an underscore and the port.
const VSOCK: &str = "run/vsock.sock";
/// The guest's address on its vsock. Every VM has a vsock of its own, so all use the same.
const GUEST_CID: u32 = 3;

/// How long it may take to tell its version: the start has to go on with another VMM.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// What the kernel is told; `docs/boot.md` has the reason of each word.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 reboot=k i8042.noaux i8042.nomux i8042.dumbkbd pci=off \
     cryptomgr.notests net.ifnames=0 random.trust_cpu=on tsc=reliable \
     no_timer_check";
/// What it is told besides, unless the whole boot is to be seen, and if it is.
const QUIET: &str = "quiet";
const VERBOSE: &str = "earlyprintk=ttyS0 ignore_loglevel";

/// Firecracker, about to run or running.
#[derive(Debug)]
pub struct Firecracker {
    program: PathBuf,
    /// The jailer, and the user it makes of Firecracker.
    jailer: Option<(PathBuf, Uid)>,
    plan: Option<Plan>,
    console: UnixStream,
    console_end: Option<UnixStream>,
    metrics: Option<File>,
    /// Where the guest's calls come.
    calls: Option<UnixListener>,
    /// What the driver tells; see [`Told`].
    told: UnixStream,
    teller: Option<UnixStream>,
    orders: Option<Sender<Desire>>,
    /// Its version, once it has told it.
    version: Option<Version>,
    partial: Vec<u8>,
}

/// What the driver tells: a letter, and for those with words their length (four bytes) and they.
struct Told;

impl Told {
    /// Which version it is.
    const VERSION: u8 = b'V';
    const LAUNCHED: u8 = b'L';
    const PAUSED: u8 = b'P';
    const RESUMED: u8 = b'R';
    /// Why it was not paused, or not resumed.
    const NOT_PAUSED: u8 = b'p';
    const NOT_RESUMED: u8 = b'r';
    /// Something for the log.
    const NOTE: u8 = b'N';
    /// The machine cannot be: a `banger.error/1`.
    const FAILURE: u8 = b'E';

    fn with_words(letter: u8, words: &str) -> Vec<u8> {
        [&[letter][..], &(words.len() as u32).to_le_bytes(), words.as_bytes()].concat()
    }

    /// Takes the words after a letter, if all of them are there.
    fn words(bytes: &[u8]) -> Option<&[u8]> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        rest.get(..u32::from_le_bytes(*length) as usize)
    }
}

impl Firecracker {
    /// Finds Firecracker and prepares it for a plan.
    pub fn new(plan: Plan, binaries: &Binaries) -> Result<Self> {
        let program = find("firecracker", binaries.firecracker.as_ref())?;
        // The jailer names its folder after the file that a link leads to.
        let program = fs::canonicalize(&program)
            .with_context(|| format!("cannot find '{}'", program.display()))?;
        require_kvm(kvm(), kvm::processor_serves())?;
        require_elf(&plan.kernel)?;
        let jailer = if geteuid().is_root() {
            weak_root()?;
            let jailer = find("jailer", binaries.jailer.as_ref())?;
            if is_dynamic(&program) {
                return Err(Error::unavailable(format!(
                    "'{}' is not linked statically, and its jailer runs no other",
                    program.display()
                ))
                .hint(format!("{GET_FIRECRACKER}; '--vmm qemu' does without")));
            }
            Some((jailer, own_user(User::Vmm)))
        } else {
            plan.namespaces.clone().map_err(|why| {
                Error::unavailable(format!("Firecracker needs namespaces of its own, and {why}"))
                    .hint("'banger doctor' says how to allow them; '--vmm qemu' does without")
            })?;
            None
        };
        if plan.mac.is_some() && plan.tap.is_none() {
            return Err(Error::unavailable("Firecracker needs a tap device for the network").hint(
                "'banger doctor' says what is missing; or choose '--net none' or '--vmm qemu'",
            ));
        }
        let pair = || UnixStream::pair().context("cannot make a socket for Firecracker");
        let ((console, console_end), (told, teller)) = (pair()?, pair()?);
        for stream in [&console, &told] {
            stream.set_nonblocking(true).context("cannot listen to Firecracker")?;
        }
        Ok(Self {
            program,
            jailer,
            plan: Some(plan),
            console,
            console_end: Some(console_end),
            metrics: None,
            calls: None,
            told,
            teller: Some(teller),
            orders: None,
            version: None,
            partial: Vec::new(),
        })
    }

    fn order(&self, order: Desire) -> Result<()> {
        let sender =
            self.orders.as_ref().expect("because only a launched machine is told anything");
        sender.send(order).map_err(|_| Error::failed("Firecracker's API is closed"))
    }

    /// Firecracker as the user it is started by, in a jail of the user's own.
    fn own_jail(&self, plan: &Plan) -> (Command, Jail) {
        let mut command = Command::new("/firecracker");
        command.args(["--id", &plan.name]).args(words());
        let mut files = seen(plan);
        let mut see = |host: PathBuf, inside: &str, writable| {
            files.push(Seen { host, inside: inside.to_owned(), writable });
        };
        see(self.program.clone(), "firecracker", false);
        see("/dev/kvm".into(), "dev/kvm", true);
        see("/dev/urandom".into(), "dev/urandom", false);
        if plan.tap.is_some() {
            see("/dev/net/tun".into(), "dev/net/tun", true);
        }
        // Where caches and cores are described, which the guest is told on this architecture.
        if cfg!(target_arch = "aarch64") {
            see("/sys/devices/system/cpu".into(), "sys/devices/system/cpu", false);
        }
        files.extend(libraries(&self.program));
        let mut jail = Jail::new(files, JAIL, End::Own(None));
        jail.unplugged = plan.tap.is_none();
        (command, jail)
    }

    /// Firecracker under its jailer, as a user of the VM's own.
    fn jailed(&self, plan: &Plan, jailer: &Path, user: Uid) -> Result<(Command, Jail)> {
        let group = Gid::from_raw(user.as_raw());
        let written = plan.disks.iter().filter(|disk| !disk.read_only).map(|disk| &disk.path);
        for path in written.chain([&plan.initramfs]) {
            chown(path, Some(user), Some(group))
                .with_context(|| format!("cannot give '{}' to the VMM", path.display()))?;
        }
        let read = plan.disks.iter().filter(|disk| disk.read_only).map(|disk| &disk.path);
        for path in read.chain([&plan.kernel]) {
            let meta =
                fs::metadata(path).with_context(|| format!("cannot find '{}'", path.display()))?;
            if meta.permissions().mode() & 0o004 == 0 {
                return Err(Error::unavailable(format!(
                    "'{}' can be read by its owner alone, and the jailed VMM is another user",
                    path.display()
                ))
                .hint(format!("'chmod o+r {}', or '--vmm qemu'", shell_word(path))));
            }
        }
        let file = self.program.file_name().unwrap_or_default();
        let id = cgroup_id(&plan.id);
        let number = user.as_raw().to_string();
        let mut command = Command::new(jailer);
        command.args(["--id", id, "--uid", &number, "--gid", &number]);
        command.arg("--exec-file").arg(&self.program).args(["--chroot-base-dir", JAIL]);
        if let Ok(limits) = cgroup::words(id, plan.vcpu, plan.memory_mib) {
            command.args(limits);
        }
        command.arg("--").args(words());
        let mut jail = Jail::new(seen(plan), JAIL, End::Jailer);
        jail.root = Path::new(file).join(id).join("root");
        jail.unplugged = plan.tap.is_none();
        Ok((command, jail))
    }
}

/// What every Firecracker is told, whoever makes its jail.
fn words() -> [String; 8] {
    let inside = |path: &str| format!("/{path}");
    [
        "--api-sock".into(),
        inside(API),
        "--log-path".into(),
        inside(OUTPUT),
        "--metrics-path".into(),
        inside(METRICS),
        "--level".into(),
        "Warn".into(),
    ]
}

/// Listens where Firecracker connects for a guest that calls. It lies in `run`, which nobody else can
/// enter, and Firecracker may be another user.
fn calls() -> Result<UnixListener> {
    let path = format!("{VSOCK}_{VSOCK_PORT}");
    UnixListener::bind(&path)
        .and_then(|listener| {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
            Ok(listener)
        })
        .with_context(|| format!("cannot make '{path}'"))
}

/// The VM's own files, where its VMM sees them.
fn seen(plan: &Plan) -> Vec<Seen> {
    let mut files = vec![
        Seen { host: "run".into(), inside: "run".into(), writable: true },
        Seen { host: plan.kernel.clone(), inside: "kernel".into(), writable: false },
    ];
    files.extend(plan.disks.iter().map(|disk| Seen {
        host: disk.path.clone(),
        inside: disk.role.into(),
        writable: !disk.read_only,
    }));
    files
}

/// Returns the name of a VM's control groups.
fn cgroup_id(id: &str) -> &str {
    id.get(..64).unwrap_or(id)
}

/// Makes a pipe with a name in `run`, which nobody else can enter, and opens its end for reading.
pub(crate) fn named_pipe(path: &str) -> Result<File> {
    let make = || -> std::io::Result<File> {
        mkfifo(path, Mode::from_bits_truncate(0o600))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)
    };
    make().with_context(|| format!("cannot make the pipe '{path}'"))
}

impl Machine for Firecracker {
    fn vmm(&self) -> Vmm {
        Vmm::Firecracker
    }

    fn accelerator(&self) -> Accelerator {
        Accelerator::Kvm
    }

    fn launch(&mut self) -> Result<Launch> {
        let plan = self.plan.as_ref().expect("because a machine is launched once");
        let end = self.console_end.take().expect("because a machine is launched once");
        fs::create_dir(JAIL).with_context(|| format!("cannot make '{JAIL}'"))?;
        self.metrics = Some(named_pipe(METRICS)?);
        self.calls = Some(calls()?);
        let ((command, jail), user) = match &self.jailer {
            Some((jailer, user)) => (self.jailed(plan, jailer, *user)?, Some(*user)),
            None => (self.own_jail(plan), None),
        };
        Ok(Launch {
            ways: vec![Way { command, jail: Some(jail), without_tap: None, user }],
            inherit: Vec::new(),
            carried: None,
            stdout: Some(end.into()),
        })
    }

    fn metrics(&self) -> Option<BorrowedFd<'_>> {
        self.metrics.as_ref().map(AsFd::as_fd)
    }

    fn started(&mut self) -> Result<()> {
        let plan = self.plan.take().expect("because a machine is started once");
        let teller = self.teller.take().expect("because a machine is started once");
        let (sender, orders) = mpsc::channel();
        self.orders = Some(sender);
        thread::Builder::new()
            .name("firecracker-api".into())
            .stack_size(128 << 10)
            .spawn(move || drive(&plan, &orders, teller))
            .context("cannot start a thread")?;
        Ok(())
    }

    fn guest_channel(&self) -> Channel {
        Channel::Vsock
    }

    fn channel(&mut self) -> Device {
        Device::Calls(self.calls.take().expect("because it is asked for once, after the launch"))
    }

    fn console(&self) -> BorrowedFd<'_> {
        self.console.as_fd()
    }

    fn control(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }

    fn events(&mut self) -> Result<Option<Vec<Event>>> {
        let mut buffer = [0; 4096];
        let mut ended = false;
        loop {
            match self.told.read(&mut buffer) {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(n) => self.partial.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot hear Firecracker's API"),
            }
        }
        let mut events = Vec::new();
        while let Some((letter, rest)) = self.partial.split_first() {
            let mut taken = 1;
            events.push(match *letter {
                Told::LAUNCHED => Event::Launched,
                Told::PAUSED => Event::Paused,
                Told::RESUMED => Event::Resumed,
                letter => {
                    let Some(words) = Told::words(rest) else { break };
                    let text = String::from_utf8_lossy(words).into_owned();
                    taken += 4 + words.len();
                    match letter {
                        Told::FAILURE => return Err(Report::from_slice(text.as_bytes())?.into()),
                        Told::VERSION => {
                            self.version = Version::serving(&text).ok();
                            self.partial.drain(..taken);
                            continue;
                        }
                        Told::NOT_PAUSED => Event::Refused(Desire::Paused, text),
                        Told::NOT_RESUMED => Event::Refused(Desire::Running, text),
                        _ => Event::Note(text),
                    }
                }
            });
            self.partial.drain(..taken);
        }
        Ok(if ended && events.is_empty() { None } else { Some(events) })
    }

    fn pause(&mut self) -> Result<()> {
        self.version.map_or(Ok(()), Version::require_pause)?;
        self.order(Desire::Paused)
    }

    fn resume(&mut self) -> Result<()> {
        self.order(Desire::Running)
    }

    fn press_power(&mut self) -> Result<bool> {
        // Firecracker has no power button; Ctrl-Alt-Del needs a driver that most kernels lack.
        Ok(false)
    }
}

/// Configures and starts the guest, then carries out orders until there are no more.
fn drive(plan: &Plan, orders: &Receiver<Desire>, mut teller: UnixStream) {
    let mut tell = |letter, words: &str| {
        let _ = teller.write_all(&Told::with_words(letter, words));
    };
    let mut api = match configure(plan, &mut tell) {
        Ok(api) => api,
        Err(error) => return tell(Told::FAILURE, &error.report().to_line()),
    };
    let _ = teller.write_all(&[Told::LAUNCHED]);
    while let Ok(order) = orders.recv() {
        let (done, letter, refused) = match order {
            Desire::Paused => (api.pause(), Told::PAUSED, Told::NOT_PAUSED),
            _ => (api.resume(), Told::RESUMED, Told::NOT_RESUMED),
        };
        let _ = match done {
            Ok(()) => teller.write_all(&[letter]),
            Err(error) => teller.write_all(&Told::with_words(refused, &error.chain())),
        };
    }
}

/// Tells the version before the guest runs, and how long each step took after.
fn configure(plan: &Plan, tell: &mut impl FnMut(u8, &str)) -> Result<Api> {
    let begun = Instant::now();
    let passed = || begun.elapsed().as_secs_f64() * 1000.0;
    let mut api = Api::connect(Path::new(API), plan.until)?;
    let reached = passed();
    let text = api.version()?;
    let version = Version::serving(&text)?;
    tell(Told::VERSION, &text);
    describe(&mut api, plan, version)?;
    let configured = passed();
    api.start()?;
    tell(
        Told::NOTE,
        &format!(
            "Firecracker {version}: its socket after {reached:.1} ms, configured after {configured:.1} \
             ms, the guest started after {:.1} ms",
            passed()
        ),
    );
    Ok(api)
}

/// Tells what the machine is made of.
fn describe(api: &mut Api, plan: &Plan, version: Version) -> Result<()> {
    api.machine_config(&MachineConfig { vcpu_count: plan.vcpu, mem_size_mib: plan.memory_mib })?;
    let extent = if plan.verbose { VERBOSE } else { QUIET };
    api.boot_source(&BootSource {
        kernel_image_path: "/kernel",
        initrd_path: &format!("/{}", plan.initramfs.display()),
        boot_args: &format!("{COMMAND_LINE} {extent}"),
    })?;
    for disk in &plan.disks {
        api.drive(&Drive {
            id: disk.role,
            path_on_host: &format!("/{}", disk.role),
            is_root_device: false,
            is_read_only: disk.read_only,
            cache_type: if disk.read_only { "Unsafe" } else { "Writeback" },
        })?;
    }
    if let (Some(mac), Some(tap)) = (&plan.mac, &plan.tap) {
        api.network_interface(&NetworkInterface {
            iface_id: "net",
            guest_mac: mac,
            host_dev_name: tap,
        })?;
    }
    api.vsock(&Vsock { guest_cid: GUEST_CID, uds_path: &format!("/{VSOCK}") })?;
    if version.reports_free_pages() {
        api.balloon()?;
    }
    api.entropy()
}

/// Finds what Firecracker wrote when it ended for a reason of its own, which its status does not
/// always tell: it is 0 for a guest that reset and, now and then, for one that KVM could not run.
pub fn complaint(log: &[String]) -> Option<String> {
    const SIGNS: &[&str] = &["KVM_EXIT_", "KVM_RUN", "Failed to run", "vcpu fault", "panicked at"];
    let line = log.iter().find(|line| SIGNS.iter().any(|sign| line.contains(sign)))?;
    // Behind the time and the thread.
    let words = line.split_once("] ").map_or(line.as_str(), |(_, words)| words);
    Some(words.trim().to_owned())
}

/// Says whether a plan can be Firecracker's on this host, so far as that can be known before.
pub(crate) fn usable(plan: &Plan, binaries: &Binaries) -> Result<()> {
    let program = find("firecracker", binaries.firecracker.as_ref())?;
    Version::serving(&version_of(&program, plan.until)?)?;
    Firecracker::new(plan.clone(), binaries).map(drop)
}

/// Finds Firecracker or its jailer: as configured, else in `PATH`.
fn find(name: &str, configured: Option<&PathBuf>) -> Result<PathBuf> {
    if let Some(path) = configured {
        return if path.is_file() {
            Ok(path.clone())
        } else {
            Err(Error::unavailable(format!("no {name} at '{}'", path.display())).hint(format!(
                "'binaries.{name}' in config.toml names it; without it, PATH is searched"
            )))
        };
    }
    which::which(name).map_err(|_| {
        Error::unavailable(format!("cannot find '{name}'"))
            .hint(format!("{GET_FIRECRACKER}; '--vmm qemu' does without"))
    })
}

/// Asks a program for its version, such as `1.12.1`.
fn version_of(program: &Path, until: Instant) -> Result<String> {
    let until = until.min(Instant::now() + VERSION_LIMIT);
    let text = ask(Command::new(program).arg("--version").env_clear(), until)
        .map_err(|error| error.hint("'--vmm qemu' does without"))?;
    let first = text.lines().next().unwrap_or_default();
    Ok(first.rsplit(' ').next().unwrap_or_default().trim_start_matches('v').to_owned())
}

fn require_kvm(kvm: Kvm, serves: bool) -> Result<()> {
    match kvm {
        // Whoever asks for Firecracker by name gets it, with a note; see `crate::machine`.
        Kvm::Works | Kvm::NotReal => Ok(()),
        Kvm::Absent => Err(Error::unavailable("Firecracker needs KVM, and there is no /dev/kvm")
            .hint("'--vmm qemu' runs the VM in software; 'banger doctor' says how to get KVM")),
        Kvm::Denied => Err(Error::unavailable(format!(
            "Firecracker needs KVM, and /dev/kvm is open only to the group '{}'",
            kvm::group()
        ))
        .hint(if serves {
            kvm::join_hint()
        } else {
            "the processor shows neither vmx nor svm, so to be let in would not help; '--vmm qemu' \
             runs the VM in software"
                .to_owned()
        })),
    }
}

/// Refuses a kernel that Firecracker cannot load.
fn require_elf(kernel: &Path) -> Result<()> {
    let elf =
        is_elf(kernel).with_context(|| format!("cannot read the kernel '{}'", kernel.display()))?;
    if elf || cfg!(target_arch = "aarch64") {
        return Ok(());
    }
    Err(Error::failed(format!("Firecracker needs '{}' as an ELF file", kernel.display()))
        .hint("import the kernel again, from its package; '--vmm qemu' takes it as it is"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn a_program_is_asked_for_its_version() {
        let dir = tempfile::tempdir().unwrap();
        let asked = |body: &str| {
            let path = dir.path().join("program");
            // Written by another process: a copy of this one that is just being made for another
            // test would keep what we write open, and what somebody writes cannot be run.
            let write = "rm -f \"$1\"; printf '#!/bin/sh\\n%s\\n' \"$2\" >\"$1\"; chmod 755 \"$1\"";
            let mut shell = Command::new("sh");
            shell.args(["-euc", write, "sh"]).arg(&path).arg(body);
            assert!(shell.status().unwrap().success());
            let until = Instant::now() + Duration::from_secs(5);
            version_of(&path, until).and_then(|version| Version::serving(&version))
        };
        let says =
            |version: &str| asked(&format!("echo 'Firecracker v{version}'; echo; echo more"));
        for good in ["1.8.0", "1.12.1", "1.13.2", "1.15.0-dev"] {
            assert_eq!(says(good).unwrap().to_string(), good.trim_end_matches("-dev"));
        }
        for bad in ["1.7.0", "2.0.0", "next"] {
            says(bad).unwrap_err();
        }
        assert!(asked("exit 1").is_err());
        let error = asked("exec sleep 60").unwrap_err();
        assert!(error.chain().contains("does not end"), "{error}");
        assert_eq!(error.hint_text(), Some("'--vmm qemu' does without"));
    }

    #[test]
    fn the_page_has_the_reason_of_each_word() {
        let page = include_str!("../../../docs/boot.md");
        for words in [COMMAND_LINE, QUIET, VERBOSE] {
            for word in words.split_whitespace() {
                assert!(page.contains(word), "docs/boot.md says nothing of '{word}'");
            }
        }
    }

    #[test]
    fn missing_kvm_names_the_remedy() {
        let hint = |kvm| require_kvm(kvm, true).unwrap_err().hint_text().unwrap().to_owned();
        assert!(hint(Kvm::Denied).contains("usermod -aG"));
        // Who is let in to what cannot work has gained nothing.
        let vain = require_kvm(Kvm::Denied, false).unwrap_err().hint_text().unwrap().to_owned();
        assert!(!vain.contains("usermod") && vain.contains("--vmm qemu"), "{vain}");
        assert!(hint(Kvm::Absent).contains("--vmm qemu"));
        assert!(require_kvm(Kvm::Works, true).is_ok());
    }

    /// Run by itself in a guest whose kernel has Landlock, with the real Firecracker in the folder that
    /// `BANGER_VMM` names: behind all its fences it still takes a whole machine. It is
    /// not shown `/dev/kvm`, so the last step, running it, is refused for that reason and no other.
    #[test]
    fn the_real_firecracker_takes_a_machine_behind_landlock() {
        let Some(programs) = std::env::var_os("BANGER_VMM").map(PathBuf::from) else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: this is for a guest");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at(JAIL)).unwrap();
        fs::write(at("run/initramfs"), [0; 4096]).unwrap();
        fs::write(at("kernel"), banger_tests::tiny_kernel(banger_tests::Then::Halts)).unwrap();
        for disk in ["base", "overlay"] {
            fs::write(at(disk), [0; 4096]).unwrap();
        }
        for pipe in [METRICS, OUTPUT] {
            mkfifo(&at(pipe), Mode::from_bits_truncate(0o600)).unwrap();
        }
        let open = |pipe| File::options().read(true).write(true).open(at(pipe)).unwrap();
        let _pipes = [METRICS, OUTPUT].map(open);
        let disk = |role, read_only| crate::Disk { role, path: role.into(), read_only };
        let plan = Plan {
            name: "web".into(),
            id: "0123".into(),
            architecture: "amd64".into(),
            vcpu: 1,
            memory_mib: 64,
            kernel: "kernel".into(),
            initramfs: "run/initramfs".into(),
            disks: vec![disk("base", true), disk("overlay", false)],
            mac: None,
            tap: None,
            carried: false,
            user_network: String::new(),
            verbose: false,
            namespaces: Ok(()),
            until: Instant::now() + Duration::from_mins(1),
        };
        let (console, told) = UnixStream::pair().unwrap();
        let machine = Firecracker {
            program: programs.join("firecracker"),
            jailer: None,
            plan: None,
            console,
            console_end: None,
            metrics: None,
            calls: None,
            told,
            teller: None,
            orders: None,
            version: None,
            partial: Vec::new(),
        };
        let (mut command, mut jail) = machine.own_jail(&plan);
        jail.files.retain(|file| file.inside != "dev/kvm");
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let enter = move || jail.enter().map_err(|error| std::io::Error::other(error.chain()));
        // SAFETY: in a guest this runs alone, so the child may do all it may do.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, enter) };
        let mut vmm = command.spawn().unwrap();
        let refused = Api::connect(&at(API), plan.until).and_then(|mut api| {
            let version = Version::serving(&api.version()?)?;
            describe(&mut api, &plan, version)?;
            api.start()
        });
        let status = fs::read_to_string(format!("/proc/{}/status", vmm.id())).unwrap();
        vmm.kill().unwrap();
        vmm.wait().unwrap();
        let words = refused.unwrap_err().chain();
        assert!(words.starts_with("Firecracker refused PUT /actions: "), "{words}");
        assert!(words.to_lowercase().contains("kvm"), "{words}");
        for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{status}");
        }
        let _ = writeln!(std::io::stdout(), "Firecracker was tried");
    }
}
