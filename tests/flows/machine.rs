//! Both VMMs, the real Firecracker and the real QEMU, driven by banger's own programs and asked the
//! same: as root and as an ordinary user, each in its jail.
//!
//! A tiny kernel stands in for what happens inside a guest, so most of this takes milliseconds, and
//! Firecracker's part runs wherever `/dev/kvm` opens. One test boots the distribution's kernel: to its
//! end on QEMU and where KVM is real, and to where an imitation of KVM gives up elsewhere.

use crate::fixture;
use banger_tests::{Answer, GREETING, Sandbox, Then, program, pvh_kernel, tiny_kernel};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// The ordinary user: one that every host knows.
const USER: &str = "65534";

/// Who starts the VM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum As {
    Root,
    User,
    /// A user of a host that gives no namespaces to its users.
    Shut,
    /// The root of an ordinary user's namespace, as in a container without privileges.
    Lesser,
    /// A user who may not make taps.
    Tapless,
}

/// What runs it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Vmm {
    Firecracker,
    Qemu,
}

use Vmm::{Firecracker, Qemu};

/// Runs a command with devices that everybody may open, as desktops have them, without changing the
/// host's; and with the programs where everybody can reach them. `$1` is whom to become.
const DEVICES: &str = r#"
who=$1 user=$2 bin=$3 vmm=$4 to=$5; shift 5
mount -t tmpfs banger /mnt
mknod -m 666 /mnt/kvm c 10 232; mknod -m 666 /mnt/tun c 10 200; chmod 666 /mnt/kvm /mnt/tun
# Root's network has a device of its own.
case $who in root | tapless) chmod 600 /mnt/tun ;; esac
if [ -e /dev/kvm ]; then mount --bind /mnt/kvm /dev/kvm; fi
mount --bind /mnt/tun /dev/net/tun; umount -l /mnt
# Something below the system's libraries, as some hosts have it.
if [ -e /usr/lib/os-release ]; then mount --bind /usr/lib/os-release /usr/lib/os-release; fi
mount --bind "$bin" "$to/bin"; mount --bind "$vmm" "$to/vmm"
program=$1; shift
if [ "$who" = root ]; then exec "$to/bin/$program" "$@"; fi
set -- "$to/bin/$program" "$@"
if [ "$who" = shut ]; then
  shut='echo 0 > /proc/sys/user/max_user_namespaces
    exec setpriv --ambient-caps -all --inh-caps -all -- "$@"'
  set -- unshare --user --map-current-user --keep-caps sh -euc "$shut" sh "$@"
fi
if [ "$who" = lesser ]; then set -- unshare --user --map-root-user -- "$@"; fi
exec setpriv --reuid "$user" --regid "$user" --clear-groups -- "$@"
"#;

struct Host {
    sandbox: Sandbox,
    who: As,
    vmm: Vmm,
    /// Where Firecracker and its jailer are.
    programs: PathBuf,
}

impl Host {
    /// Makes a state with an image and a tiny kernel; none where there is no such VMM.
    fn new(who: As, vmm: Vmm, then: Then) -> Option<Self> {
        let host = Self::bare(who, vmm)?;
        host.sandbox.plant_kernel("tiny");
        let kernel = if vmm == Qemu { pvh_kernel(then) } else { tiny_kernel(then) };
        host.sandbox.plant_tiny("tiny", &kernel);
        host.settle();
        Some(host)
    }

    fn bare(who: As, vmm: Vmm) -> Option<Self> {
        let programs = program("banger").parent().expect("a folder").to_owned();
        let programs = if vmm == Qemu { programs } else { banger_tests::firecracker()? };
        if !geteuid().is_root() && who != As::User {
            let _ = writeln!(std::io::stderr(), "SKIPPED: this needs root");
            return None;
        }
        let sandbox = Sandbox::new();
        sandbox.set_limit(Duration::from_mins(2));
        sandbox.plant_image("empty");
        let host = Self { sandbox, who, vmm, programs };
        for dir in ["bin", "vmm", "spare"] {
            fs::create_dir(host.top().join(dir)).expect("a folder");
        }
        if vmm == Firecracker {
            host.choose("firecracker", &host.place().join("firecracker"));
        }
        Some(host)
    }

    /// Where the programs of the VMM are for whoever starts it.
    fn place(&self) -> PathBuf {
        if geteuid().is_root() { self.top().join("vmm") } else { self.programs.clone() }
    }

    /// Has another program be the VMM's.
    fn choose(&self, name: &str, path: &Path) {
        self.sandbox.config(&format!(
            "[binaries]\n{name} = '{}'\njailer = '{}/jailer'\n",
            path.display(),
            self.place().display()
        ));
    }

    fn top(&self) -> &Path {
        self.sandbox.state().parent().expect("the sandbox")
    }

    /// Gives all to the user who starts the VM.
    fn settle(&self) {
        if geteuid().is_root() && self.who != As::Root {
            fs::set_permissions(self.top(), fs::Permissions::from_mode(0o711)).expect("a mode");
            let mut chown = Command::new("chown");
            chown.args(["-R", &format!("{USER}:{USER}")]);
            chown.args([self.sandbox.state(), &self.sandbox.home(), &self.sandbox.dir()]);
            chown.arg(self.top().join("tmp"));
            fixture::tool(&mut chown, Duration::from_secs(20));
        }
    }

    fn command(&self, name: &str) -> Command {
        let programs = program("banger");
        let dir = programs.parent().expect("a folder");
        if !geteuid().is_root() {
            return self.sandbox.command(dir.join(name));
        }
        let who = match self.who {
            As::Root => "root",
            As::User => "user",
            As::Shut => "shut",
            As::Lesser => "lesser",
            As::Tapless => "tapless",
        };
        let mut command = self.sandbox.command("unshare");
        command.args(["-m", "bash", "-euc", DEVICES, "sh", who, USER]);
        command.arg(dir).arg(&self.programs).arg(self.top()).arg(name);
        command
    }

    fn words(&self, name: &str, words: &[&str]) -> (Command, Vec<String>) {
        let prepared = self.command(&format!("banger-{name}"));
        let args = prepared.get_args().map(|word| word.to_str().expect("text").to_owned());
        let all = args.chain(words.iter().map(ToString::to_string)).collect();
        (prepared, all)
    }

    fn run(&self, name: &str, words: &[&str]) -> Answer {
        let (prepared, all) = self.words(name, words);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        self.sandbox.run(prepared.get_program(), &all)
    }

    /// Like [`Host::run`], for a program whose output is no document.
    fn raw(&self, name: &str, words: &[&str]) -> Answer {
        let (prepared, all) = self.words(name, words);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        self.sandbox.raw(prepared.get_program(), &all)
    }

    fn spawn(&self, name: &str, words: &[&str]) -> Child {
        let mut command = self.command(&format!("banger-{name}"));
        command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a program")
    }

    fn create(&self, name: &str, net: &str) {
        let words = ["--no-start", "--image", "empty", "--kernel", "tiny", "--memory", "64M"];
        let vmm = if self.vmm == Qemu { "qemu" } else { "firecracker" };
        let more = ["--vcpu", "1", "--vmm", vmm, "--net", net, "--name", name];
        self.run("vm-create", &[&words[..], &more].concat()).ok();
    }

    fn view(&self, vm: &str) -> Value {
        self.run("vm-show", &[vm]).document().clone()
    }

    /// Starts a guest that will never answer, and waits until the VMM runs it.
    fn start(&self, vm: &str) -> Value {
        let answer = self.run("vm-start", &["--timeout", "2", vm]);
        answer.fails(1, "did not come up within 2 s; it is kept");
        self.greets(vm)
    }

    /// Waits until a guest runs and has greeted: on a busy machine its starter gives up before that.
    fn greets(&self, vm: &str) -> Value {
        let console = self.sandbox.vm(vm).join("console.log");
        let limit = Instant::now() + Duration::from_mins(1);
        loop {
            let view = self.view(vm);
            assert_eq!(view["status"], "starting", "{view}");
            let log = fs::read_to_string(&console).unwrap_or_default();
            if view["running"]["launched_ms"].is_u64() && log.contains(GREETING) {
                return view;
            }
            assert!(Instant::now() < limit, "it does not greet: {view}\n{log}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Checks that nothing of a VM that ended in order is left, and that its disks are its owner's.
    fn nothing_remains(&self, vm: &str) {
        let folder = self.sandbox.vm(vm);
        self.nothing_works(vm, &Namespaces::default(), "in order");
        assert!(!folder.join("run").exists(), "'run' is left");
        assert!(!folder.join("metrics.json").exists(), "'metrics.json' is left");
        let groups = groups(&self.sandbox_id(vm));
        assert!(groups.is_empty(), "{groups:?}");
        let owner = fs::metadata(&folder).expect("the folder").uid();
        for disk in ["overlay.ext4", "work.ext4"] {
            assert_eq!(fs::metadata(folder.join(disk)).expect("a disk").uid(), owner);
        }
    }

    /// Checks that soon no process of a VM is left, none in its namespaces, no lock, no open socket, no
    /// mount, nothing in its jail, nobody in its control groups.
    fn nothing_works(&self, vm: &str, namespaces: &Namespaces, what: &str) {
        let limit = Instant::now() + Duration::from_secs(15);
        loop {
            let left = self.left(vm, namespaces);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < limit, "ended {what}, left of '{vm}': {left:#?}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Returns what is at work for a VM. A process that ends loses its memory, its folder and its
    /// files one after the other: its lock may be held and its socket open when the rest of it cannot
    /// be seen any more.
    fn left(&self, vm: &str, namespaces: &Namespaces) -> Vec<String> {
        let folder = self.sandbox.vm(vm);
        let id = self.sandbox_id(vm);
        let mut left = processes(&folder, &id, namespaces);
        if !left.is_empty() {
            return left;
        }
        let lock = fs::File::open(folder.join("lock")).ok();
        let lock = lock.map(|lock| Flock::lock(lock, FlockArg::LockSharedNonblock));
        if lock.is_some_and(|lock| lock.is_err()) {
            left.push("somebody holds its lock".to_owned());
        }
        let path = folder.to_str().expect("text");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        left.extend(mounts.lines().filter(|line| line.contains(path)).map(str::to_owned));
        for entry in fs::read_dir(folder.join("run")).into_iter().flatten().flatten() {
            let path = entry.path();
            let socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
            if socket && UnixStream::connect(&path).is_ok() {
                left.push(format!("somebody serves {}", path.display()));
            }
        }
        // The jailer makes folders there, in a mount that is to be gone.
        let jail = fs::read_dir(folder.join("run/jail")).into_iter().flatten().flatten();
        left.extend(jail.map(|entry| entry.path().display().to_string()));
        for group in groups(&id) {
            let inside = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            left.extend(inside.lines().map(|pid| format!("{pid} is in {}", group.display())));
        }
        left
    }

    fn sandbox_id(&self, vm: &str) -> String {
        let bytes = fs::read(self.sandbox.vm(vm).join("vm.json")).expect("a record");
        let vm: Value = serde_json::from_slice(&bytes).expect("a document");
        vm["id"].as_str().expect("an id").to_owned()
    }

    fn running(&self, vm: &str) -> Value {
        let bytes = fs::read(self.sandbox.vm(vm).join("running.json")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}

/// Returns processes of a VM: those that bear its mark, those in its folder or with its disks, and
/// those in namespaces of its own.
fn processes(folder: &Path, id: &str, namespaces: &Namespaces) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let of_it = |path: &Path| {
        let inside = fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        let disk = fs::read_link(path.join("fd/0")).is_ok_and(|file| file.starts_with(folder));
        let mark = format!("BANGER_RUN={id} ");
        let marked = fs::read(path.join("environ")).is_ok_and(|environment| {
            environment.split(|byte| *byte == 0).any(|one| one.starts_with(mark.as_bytes()))
        });
        inside
            || disk
            || marked
            || namespaces_of(path).iter().any(|(_, one)| namespaces.0.contains_key(one))
    };
    entries
        .map(|entry| entry.path())
        .filter(|path| of_it(path))
        .map(|path| {
            let words = fs::read(path.join("cmdline")).unwrap_or_default();
            format!("{}: {}", path.display(), String::from_utf8_lossy(&words).replace('\0', " "))
        })
        .collect()
}

/// Namespaces by name. They are held open, or the next ones the kernel makes would have their names.
#[derive(Default)]
struct Namespaces(BTreeMap<PathBuf, fs::File>);

/// Returns the namespaces that a process is in, or makes children in, and where each can be opened.
fn namespaces_of(proc: &Path) -> Vec<(PathBuf, PathBuf)> {
    let names = ["mnt", "net", "pid", "ipc", "user", "pid_for_children"];
    let places = names.iter().map(|name| proc.join("ns").join(name));
    places.filter_map(|place| Some((place.clone(), fs::read_link(place).ok()?))).collect()
}

/// Returns control groups of a VM that are there.
fn groups(id: &str) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let mut places = vec![top.to_owned()];
    places.extend(fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path()));
    places.iter().map(|place| place.join("banger").join(id)).filter(|g| g.exists()).collect()
}

fn pid(view: &Value, role: &str) -> i64 {
    view["running"][role]["pid"].as_i64().unwrap_or_else(|| panic!("no {role}: {view}"))
}

fn end(pid: &Value) {
    if let Some(pid) = pid.as_i64().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Names in a folder, without those that kernels differ in.
fn names(dir: impl AsRef<Path>) -> BTreeSet<String> {
    let entries =
        fs::read_dir(dir.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", dir.as_ref().display()));
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn a_guest_runs_in_firecracker_s_own_jail() {
    a_guest_runs_in_its_jail(As::Root, Firecracker);
}

#[test]
fn a_guest_runs_in_an_ordinary_user_s_namespaces() {
    a_guest_runs_in_its_jail(As::User, Firecracker);
}

#[test]
fn a_guest_runs_in_qemu_as_a_user_of_its_own() {
    a_guest_runs_in_its_jail(As::Root, Qemu);
}

#[test]
fn a_guest_runs_in_an_ordinary_user_s_qemu() {
    a_guest_runs_in_its_jail(As::User, Qemu);
}

fn a_guest_runs_in_its_jail(who: As, vmm: Vmm) {
    let Some(host) = Host::new(who, vmm, Then::Halts) else { return };
    host.create("web", "user");
    let view = host.start("web");
    let (name, accelerator) = match vmm {
        Firecracker => ("firecracker", "kvm"),
        Qemu => ("qemu", if works(&host) { "kvm" } else { "tcg" }),
    };
    assert_eq!(view["running"]["vmm"], name, "{view}");
    assert_eq!(view["running"]["accelerator"], accelerator, "{view}");
    let notes = view["running"]["notes"].to_string();
    assert!(!notes.contains("jail") && !notes.contains("network"), "{notes}");
    let log = fs::read_to_string(host.sandbox.vm("web").join("console.log")).expect("a console");
    assert!(log.contains(GREETING), "{log}");
    let logs = host.raw("vm-logs", &["web"]);
    assert!(logs.ok().text().contains(GREETING), "{}", logs.all());

    confined(&host, &view);
    if who == As::Root {
        led_out(&view);
    }

    // Held still and let go by the real program, or not where its guest would be lost.
    let paused = host.run("vm-pause", &["web"]);
    if loses_what_it_pauses(&host) {
        paused.fails(5, "VM 'web' cannot be paused: on Firecracker 1.16.");
        assert_eq!(state(&host, "web"), "Running");
    } else {
        assert_eq!(paused.document()["status"], "paused", "{}", paused.all());
        if vmm == Firecracker {
            assert_eq!(state(&host, "web"), "Paused");
        }
        assert_eq!(host.run("vm-pause", &["web"]).document()["status"], "paused");
        let resumed = host.run("vm-resume", &["web"]);
        assert_eq!(resumed.document()["status"], "starting", "{}", resumed.all());
    }
    let metrics = host.sandbox.vm("web").join("metrics.json");
    if vmm == Firecracker {
        assert_eq!(state(&host, "web"), "Running");
        // Its measurements are kept while it runs.
        let metrics = fs::read(metrics).expect("metrics");
        let metrics: Value = serde_json::from_slice(&metrics).expect("metrics");
        assert!(metrics["vcpu"].is_object() && metrics["seccomp"].is_object(), "{metrics}");
    } else {
        assert!(!metrics.exists(), "QEMU has no measurements");
    }

    if !loses_what_it_pauses(&host) {
        host.run("vm-pause", &["web"]).ok();
    }
    let stopped = host.run("vm-stop", &["web"]);
    let exit = &stopped.document()["last_exit"];
    assert_eq!(exit["reason"], "killed", "{exit}");
    let button = if vmm == Qemu { "its power button was pressed" } else { "no power button" };
    assert!(exit["message"].as_str().expect("text").contains(button), "{exit}");
    assert!(stopped.took < Duration::from_secs(20), "{:?}", stopped.took);
    host.nothing_remains("web");

    // However the VMM ends, it is told how, and what the guest said last.
    for signal in [Signal::SIGKILL, Signal::SIGSEGV] {
        let view = host.start("web");
        let vmm = Pid::from_raw(i32::try_from(pid(&view, "vmm_process")).expect("a number"));
        kill(vmm, signal).expect("a signal");
        let waited = host.run("vm-wait", &["--for", "stopped", "--timeout", "30", "web"]);
        let exit = host.view("web")["last_exit"].clone();
        assert_eq!(exit["reason"], "vmm-ended", "{}{exit}", waited.all());
        let (message, said) = (exit["message"].to_string(), exit["console_tail"].to_string());
        assert!(said.contains(GREETING), "{exit}");
        // Firecracker catches the second one, and says so with a status of its own.
        if vmm_ends_by(host.vmm, signal) {
            assert_eq!(exit["vmm_signal"], signal as i32, "{exit}");
            assert!(message.contains(signal.as_str()), "{exit}");
        } else {
            assert!(exit["vmm_status"].as_i64().is_some_and(|status| status != 0), "{exit}");
        }
        host.nothing_remains("web");
    }
}

/// A root's way out is there, though the device for it is root's alone, and runs as a user of its own.
fn led_out(view: &Value) {
    let vmm = pid(view, "vmm_process");
    let end = Instant::now() + Duration::from_mins(1);
    let has_way = || {
        let links = fs::read_to_string(format!("/proc/{vmm}/net/dev")).unwrap_or_default();
        links.contains("pasta0:")
    };
    while !has_way() {
        assert!(Instant::now() < end, "no way out");
        sleep(Duration::from_millis(50));
    }
    // Those of this VM: others run beside it.
    let user = 0x7040_0000 + pid(view, "supervisor");
    let holders = fs::read_dir("/proc").expect("processes").flatten().filter(|entry| {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let uid = uid.and_then(|uid| uid.split_whitespace().next()?.parse::<i64>().ok());
        uid == Some(user)
    });
    assert!(holders.count() >= 2, "the holder and pasta");
}

#[test]
fn a_user_without_taps_is_carried_by_passt() {
    let Some(host) = Host::new(As::Tapless, Qemu, Then::Halts) else { return };
    host.create("web", "user");
    let view = host.start("web");
    let notes = view["running"]["notes"].to_string();
    let why = "network: passt without a namespace, since '/dev/net/tun' cannot be opened";
    assert!(notes.contains(why) && !notes.contains("jail"), "{notes}");
    let proc = PathBuf::from(format!("/proc/{}", pid(&view, "vmm_process")));
    assert!(names(proc.join("root/dev")).is_subset(&set(&["kvm", "urandom"])));
    // QEMU itself is in no network: all it has is the socket.
    let links = fs::read_to_string(proc.join("net/dev")).expect("its interfaces");
    assert_eq!(links.lines().skip(2).count(), 1, "{links}");
    let words = fs::read_to_string(proc.join("cmdline")).expect("its command line");
    assert!(words.contains("stream,id=net,server=off,addr.type=fd"), "{words}");
    let stub = pid(&view, "stub").to_string();
    let is_carrier = |entry: fs::DirEntry| {
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let words = read("cmdline").replace('\0', " ");
        words.contains("passt")
            && words.contains("--no-map-gw")
            && words.contains("-t none -u none")
            && read("status").contains(&format!("PPid:\t{stub}\n"))
    };
    let found = || fs::read_dir("/proc").expect("processes").flatten().any(is_carrier);
    if fs::read_to_string("/proc/net/route")
        .is_ok_and(|t| t.lines().any(|l| l.contains("\t00000000\t")))
    {
        assert!(found(), "no passt below the stub");
    } else {
        let words = "SKIPPED: this host has no default route, so passt was not looked for";
        let _ = writeln!(std::io::stderr(), "{words}");
    }
    host.run("vm-kill", &["web"]).ok();
    host.nothing_remains("web");
}

fn vmm_ends_by(vmm: Vmm, signal: Signal) -> bool {
    vmm == Qemu || signal == Signal::SIGKILL
}

/// Says whether the VMM is a Firecracker whose guest cannot be reached any more after a pause.
fn loses_what_it_pauses(host: &Host) -> bool {
    let path = host.programs.join("firecracker");
    host.vmm == Firecracker && {
        let said = host.sandbox.raw(path, &["--version"]).text();
        ["v1.16.0", "v1.16.1"].iter().any(|version| said.contains(version))
    }
}

/// Says whether KVM works here, by the word of `doctor`.
fn works(host: &Host) -> bool {
    let checks = host.run("doctor", &[]).documents;
    checks.iter().any(|check| check["name"] == "kvm" && check["outcome"] == "pass")
}

/// What a VMM that was broken out of would have.
fn confined(host: &Host, view: &Value) {
    let vmm = pid(view, "vmm_process");
    let proc = PathBuf::from(format!("/proc/{vmm}"));
    let status = fs::read_to_string(proc.join("status")).expect("its status");
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().next().unwrap_or_default().to_owned()
    };
    assert_eq!(value("NoNewPrivs:"), "1", "{status}");
    assert_eq!(value("Seccomp:"), "2", "{status}");
    for kind in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(value(kind), "0000000000000000", "{status}");
    }
    let uid: u32 = value("Uid:").parse().expect("a number");
    assert_ne!(uid, 0, "{status}");
    let supervisor = pid(view, "supervisor");
    for namespace in ["mnt", "net", "pid", "ipc"] {
        let of =
            |pid: i64| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("a namespace");
        assert_ne!(of(vmm), of(supervisor), "{namespace}");
    }
    let user = |pid: i64| fs::read_link(format!("/proc/{pid}/ns/user")).expect("a namespace");
    assert_eq!(user(vmm) != user(supervisor), host.who == As::User);
    if host.who == As::Root {
        assert!((0x7000_0000..0x7040_0000).contains(&uid), "{uid}");
        let gid: u32 = value("Gid:").parse().expect("a number");
        assert_eq!((gid, value("Groups:").as_str()), (uid, ""), "{status}");
    }
    let limits = fs::read_to_string(proc.join("limits")).expect("its limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    assert!(core.is_some_and(|line| line.contains(" 0 ")), "{limits}");
    let root = proc.join("root");
    match host.vmm {
        Firecracker => firecracker_sees(host, &root, view["kernel"].as_str().expect("a kernel")),
        Qemu => qemu_sees(host.who, &proc, &host.sandbox.vm("web"), view["spec"]["net"] != "none"),
    }
    if (host.who, host.vmm) == (As::Root, Firecracker) {
        limited(host, &proc, view["spec"]["memory_mib"].as_u64().expect("a number"));
    }
}

/// QEMU sees what it is loaded with, the kernel, and devices; nothing of it can be written.
fn qemu_sees(who: As, proc: &Path, folder: &Path, tap: bool) {
    let root = proc.join("root");
    let allowed =
        set(&["dev", "etc", "initramfs", "kernel", "lib", "lib64", "usr", "nix", "gnu", "opt"]);
    let beyond: BTreeSet<_> = names(&root).difference(&allowed).cloned().collect();
    assert!(beyond.is_empty(), "{beyond:?}");
    assert_eq!(names(root.join("etc")), set(&["ld.so.cache"]));
    let devices = names(root.join("dev"));
    assert!(devices.is_subset(&set(&["kvm", "net", "urandom"])), "{devices:?}");
    assert_eq!(devices.contains("net"), tap);
    if tap {
        assert_eq!(names(root.join("dev/net")), set(&["tun"]));
    }
    let usr = names(root.join("usr"));
    assert!(usr.is_subset(&set(&["bin", "lib", "lib64", "libexec", "local", "share"])), "{usr:?}");
    let programs = names(root.join("usr/bin"));
    assert!(programs.len() == 1 && programs.iter().all(|p| p.contains("qemu")), "{programs:?}");
    let shared = names(root.join("usr/share"));
    let firmware = set(&["qemu", "qemu-kvm", "seabios", "seavgabios", "sgabios", "ipxe", "edk2"]);
    assert!(shared.is_subset(&firmware), "{shared:?}");
    for folder in ["home", "root", "proc", "sys", "tmp", "run", "var", "etc/passwd"] {
        assert!(!root.join(folder).exists(), "{folder}");
    }
    // The kernel's own word: no mount of it can be written but those of devices.
    let mounts = fs::read_to_string(proc.join("mountinfo")).expect("its mounts");
    for mount in mounts.lines() {
        let words: Vec<&str> = mount.split(' ').collect();
        let (place, options) = (words[4], words[5]);
        assert!(place.starts_with("/dev/") || options.starts_with("ro"), "{mount}");
        assert!(options.contains("nosuid"), "{mount}");
    }
    // What an ordinary user may not uncover came along, and is protected as the rest.
    let covered = Path::new("/usr/lib/os-release");
    let came = mounts.contains(&format!(" {} ", covered.display()));
    assert_eq!(came, covered.exists() && who != As::Root && geteuid().is_root(), "{mounts}");
    // Disks are what it was handed.
    let open: BTreeSet<PathBuf> = fs::read_dir(proc.join("fd"))
        .expect("its descriptors")
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|path| path.starts_with(folder))
        .collect();
    let own = ["overlay.ext4", "work.ext4", "disks.lock", "run/output"];
    assert_eq!(open, own.map(|name| folder.join(name)).into_iter().collect());
    // Firecracker types what it reads there into the guest's console.
    let stdin = fs::read(proc.join("fd/0")).expect("its standard input");
    assert!(stdin.is_empty(), "the VMM can read {} bytes from its stdin", stdin.len());
}

/// Firecracker sees the VM's files, each in its place.
fn firecracker_sees(host: &Host, root: &Path, kernel: &str) {
    let run = ["api.sock", "channel.sock", "initramfs", "jail", "metrics", "output"];
    let run = set(&[&run[..], &["vsock.sock", "vsock.sock_1024"]].concat());
    assert_eq!(names(root.join("run")), run);
    let mut files = set(&["base", "dev", "firecracker", "kernel", "overlay", "run", "work"]);
    if host.who == As::Root {
        files.extend(set(&["firecracker.pid"]));
    }
    if host.sandbox.state().join("kernels").join(kernel).join("modules.ext4").exists() {
        files.extend(set(&["modules"]));
    }
    assert_eq!(names(root), files);
    assert_eq!(names(root.join("dev/net")), set(&["tun"]));
    let mut devices = set(&["kvm", "net", "urandom"]);
    if host.who == As::User {
        assert_eq!(names(root.join("dev")), devices);
    }
    devices.extend(set(&["userfaultfd"]));
    let beyond: BTreeSet<_> = names(root.join("dev")).difference(&devices).cloned().collect();
    assert!(beyond.is_empty(), "{beyond:?}");
}

/// What its jailer gives a VM: control groups of its own, with its memory and some more.
fn limited(host: &Host, proc: &Path, memory_mib: u64) {
    let groups = groups(&host.sandbox_id("web"));
    let cgroups = fs::read_to_string(proc.join("cgroup")).expect("its groups");
    assert_eq!(groups.is_empty(), !cgroups.contains("/banger/"), "{cgroups}");
    for group in &groups {
        let limit = |name: &str| fs::read_to_string(group.join(name)).ok();
        let memory = limit("memory.limit_in_bytes").or_else(|| limit("memory.max"));
        if let Some(memory) = memory {
            assert_eq!(memory.trim(), ((memory_mib + 256) << 20).to_string());
        }
    }
}

/// Asks Firecracker itself how it stands.
fn state(host: &Host, vm: &str) -> String {
    ask(host, vm, "/")["state"].as_str().expect("a state").to_owned()
}

/// Asks Firecracker itself.
fn ask(host: &Host, vm: &str, path: &str) -> Value {
    let socket = host.sandbox.vm(vm).join("run/api.sock");
    let mut stream = UnixStream::connect(&socket).expect("the API");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    let question = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(question.as_bytes()).expect("a question");
    let mut bytes = [0; 4096];
    let n = stream.read(&mut bytes).expect("an answer");
    let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn what_a_vmm_refuses_is_our_error_with_its_reason() {
    for vmm in [Firecracker, Qemu] {
        let Some(host) = Host::new(As::User, vmm, Then::Halts) else { continue };
        refused(&host);
    }
}

fn refused(host: &Host) {
    host.create("web", "none");
    let spec = host.sandbox.vm("web").join("spec.json");
    let kernel = host.sandbox.state().join("kernels/tiny/vmlinux");
    let good = (fs::read(&spec).expect("a spec"), fs::read(&kernel).expect("a kernel"));
    let fails = |status: i32, words: &str| {
        let answer = host.run("vm-start", &["--timeout", "20", "web"]);
        answer.fails(status, words);
        assert!(answer.took < Duration::from_secs(15), "{}", answer.all());
        let view = host.view("web");
        assert_eq!(view["status"], "error", "{view}");
        assert_eq!(view["last_exit"]["reason"], "start-failed", "{view}");
        host.nothing_remains("web");
        fs::write(&spec, &good.0).expect("the spec");
        fs::write(&kernel, &good.1).expect("the kernel");
    };
    // What each of them says of the same.
    let says = |status: i32, firecracker: &str, qemu: &str| {
        fails(status, if host.vmm == Qemu { qemu } else { firecracker });
    };
    let change = |key: &str, value: Value| {
        let mut document: Value = serde_json::from_slice(&good.0).expect("a document");
        document[key] = value;
        fs::write(&spec, format!("{document}\n")).expect("the spec");
    };

    change("memory_mib", json!(1_u64 << 40));
    says(1, "Firecracker refused PUT /", "memory");
    change("vcpu", json!(5000));
    says(1, "Firecracker refused PUT /machine-config: ", "Invalid SMP CPUs 5000");
    fs::write(&kernel, b"\x7fELF and nothing of the kind").expect("a kernel");
    says(1, "Firecracker refused PUT /actions: ", "kernel");
    fs::write(&kernel, b"MZ: a bzImage begins so").expect("a kernel");
    says(1, "Firecracker needs ", "kernel");
    let disk = host.sandbox.state().join("images/empty/rootfs.ext4");
    let mode = |bits| fs::set_permissions(&disk, fs::Permissions::from_mode(bits)).expect("a mode");
    mode(0o000);
    says(1, "Firecracker refused PUT /drives/base: ", "cannot open the base disk");
    mode(0o600);
    fs::rename(&disk, host.top().join("spare/disk")).expect("a disk");
    fails(1, "cannot find the base disk");
    fs::create_dir(&disk).expect("a folder");
    fails(1, "the base disk");
    fs::remove_dir(&disk).expect("a folder");
    fs::rename(host.top().join("spare/disk"), &disk).expect("a disk");
    if host.vmm == Firecracker {
        change("memory_mib", json!(0));
        fails(1, "Firecracker refused PUT /machine-config: ");
        change("vcpu", json!(33));
        fails(1, "Firecracker refused PUT /machine-config: ");
    }

    // A program that is there and is no VMM, and one that is not there.
    let name = if host.vmm == Qemu { "qemu" } else { "firecracker" };
    let text = fs::read_to_string(host.sandbox.home().join(".config/banger/config.toml"));
    host.choose(name, Path::new("/bin/false"));
    fails(1, "did not come up: the VMM ended with status 1");
    host.choose(name, Path::new("/nowhere/vmm"));
    says(5, "no firecracker at '/nowhere/vmm'", "no QEMU at '/nowhere/vmm'");
    host.sandbox.config(text.as_deref().unwrap_or_default());

    // After all that it runs.
    host.start("web");
    host.run("vm-kill", &["web"]).ok();
    host.nothing_remains("web");

    // A host that has no tap to give: QEMU does without for whom that opens the host to its guest with
    // leave, aloud; Firecracker has no other way.
    host.create("net", "user");
    let config = host.sandbox.home().join(".config/banger/config.toml");
    let with = format!("{}pasta = '/nowhere/pasta'\n", text.unwrap_or("[binaries]\n".into()));
    fs::write(&config, with).expect("the config");
    if host.vmm == Qemu {
        let answer = host.run("vm-start", &["net"]);
        answer.fails(5, "no network that keeps the guest from services on this host's loopback");
        assert!(answer.stderr.contains("there is no '/nowhere/pasta'"), "{}", answer.all());
        assert!(answer.stderr.contains("'--allow-host'"), "{}", answer.all());
        host.nothing_remains("net");
        host.run("vm-set", &["net", "--allow-host"]).ok();
        let view = host.start("net");
        let notes = view["running"]["notes"].to_string();
        assert!(notes.contains("QEMU's own, since there is no '/nowhere/pasta'"), "{notes}");
        assert!(!notes.contains("jail"), "{notes}");
        let root = PathBuf::from(format!("/proc/{}/root", pid(&view, "vmm_process")));
        let devices: &[&str] = if works(host) { &["kvm", "urandom"] } else { &["urandom"] };
        assert_eq!(names(root.join("dev")), set(devices));
        host.run("vm-kill", &["net"]).ok();
    } else {
        let answer = host.run("vm-start", &["net"]);
        answer.fails(5, "Firecracker needs a tap device for the network");
    }
    host.nothing_remains("net");
}

#[test]
fn a_host_that_gives_no_namespaces_has_no_jail_and_says_so() {
    let Some(host) = Host::new(As::Shut, Qemu, Then::Halts) else { return };
    host.create("web", "user");
    let answer = host.run("vm-start", &["web"]);
    answer.fails(5, "no network that keeps the guest from services on this host's loopback");
    host.run("vm-set", &["web", "--allow-host"]).ok();
    let view = host.start("web");
    let notes = view["running"]["notes"].to_string();
    for note in ["the VMM runs without its jail", "no PID namespace", "network: QEMU's own"] {
        assert!(notes.contains(note), "{notes}");
    }
    let proc = PathBuf::from(format!("/proc/{}", pid(&view, "vmm_process")));
    assert_eq!(names(proc.join("root/etc")), names("/etc"));
    let status = fs::read_to_string(proc.join("status")).expect("its status");
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    // Whoever holds the lock is gone, however: so is all it started.
    end(&view["running"]["supervisor"]["pid"]);
    host.rests(&Namespaces::default(), "the supervisor");

    let Some(host) = Host::new(As::Shut, Firecracker, Then::Halts) else { return };
    host.create("web", "none");
    let answer = host.run("vm-start", &["web"]);
    answer.fails(5, "needs namespaces of its own, and user namespaces are switched off");
    host.nothing_remains("web");
}

#[test]
fn a_lesser_root_has_the_same_jail() {
    let Some(host) = Host::new(As::Lesser, Qemu, Then::Halts) else { return };
    host.create("web", "none");
    let view = host.start("web");
    let notes = view["running"]["notes"].to_string();
    assert!(!notes.contains("jail"), "{notes}");
    confined(&host, &view);
    host.run("vm-kill", &["web"]).ok();
    host.nothing_remains("web");
}

#[test]
fn a_guest_that_resets_ends_its_vmm() {
    for (vmm, then) in [
        (Firecracker, Then::Resets),
        (Firecracker, Then::Faults),
        (Qemu, Then::Resets),
        (Qemu, Then::Faults),
    ] {
        let Some(host) = Host::new(As::User, vmm, then) else { continue };
        host.create("web", "none");
        let answer = host.run("vm-start", &["web"]);
        answer.fails(1, "the guest ended or restarted before its agent answered");
        assert!(answer.stderr.contains(GREETING), "{}", answer.all());
        assert!(answer.took < Duration::from_secs(20), "{}", answer.all());
        let view = host.view("web");
        assert_eq!(view["status"], "error", "{view}");
        assert_eq!(view["last_exit"]["vmm_status"], 0, "{view}");
        host.nothing_remains("web");
    }
}

#[test]
fn whoever_is_killed_leaves_a_right_answer_and_nothing_else() {
    killed(Firecracker, &[0, 8, 25, 60, 200], &[0, 3, 15]);
}

#[test]
fn whoever_is_killed_leaves_nothing_of_qemu_either() {
    killed(Qemu, &[8, 60, 200], &[3]);
}

/// Kills each of them at each of these milliseconds.
fn killed(vmm: Vmm, starting: &[u64], stopping: &[u64]) {
    for who in [As::Root, As::User] {
        let Some(host) = Host::new(who, vmm, Then::Halts) else { continue };
        // With a network there is more that could be left: its holder, its way out, their namespaces.
        for (net, starting, stopping) in [("none", starting, stopping), ("user", &[60], &[3])] {
            host.create("web", net);
            for role in ["supervisor", "stub", "vmm_process", "starter"] {
                for moment in starting {
                    killed_while_starting(&host, role, Duration::from_millis(*moment));
                }
            }
            for role in ["supervisor", "stub", "vmm_process", "stopper"] {
                for moment in stopping {
                    killed_while_stopping(&host, role, Duration::from_millis(*moment));
                }
            }
            host.start("web");
            host.run("vm-kill", &["web"]).ok();
            host.nothing_remains("web");
            host.run("vm-delete", &["web"]).ok();
            assert!(!host.sandbox.vm("web").exists());
        }
    }
}

fn killed_while_starting(host: &Host, role: &str, moment: Duration) {
    let before = host.running("web")["supervisor"].clone();
    let mut starter = host.spawn("vm-start", &["web"]);
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let now = host.running("web")["supervisor"].clone();
        if !now.is_null() && now != before {
            break;
        }
        assert!(Instant::now() < limit, "no supervisor says a word");
        sleep(Duration::from_millis(1));
    }
    sleep(moment);
    let what = format!("{role} after {moment:?} of a start");
    let namespaces = host.namespaces();
    let victim = host.running("web")[role]["pid"].clone();
    if role == "starter" {
        starter.kill().expect("kill");
    } else {
        end(&victim);
    }
    if victim.is_null() {
        // The VM does not depend on its starter; one that had not begun was not killed.
        host.run("vm-kill", &["web"]).ok();
    }
    let _ = starter.wait();
    host.rests(&namespaces, &what);
}

fn killed_while_stopping(host: &Host, role: &str, moment: Duration) {
    host.start_quickly();
    let what = format!("{role} after {moment:?} of a stop");
    let of = host.running("web")[role]["pid"].clone();
    let namespaces = host.namespaces();
    let mut stop = host.spawn("vm-stop", &["--timeout", "1", "web"]);
    sleep(moment);
    if role == "stopper" {
        stop.kill().expect("kill");
        let _ = stop.wait();
        // Whether it had asked or not, whoever asks next gets the answer.
        let again = host.run("vm-stop", &["--timeout", "1", "web"]);
        assert_ne!(again.document()["status"], "running", "{what}: {}", again.all());
    } else {
        end(&of);
        assert!(stop.wait().expect("its status").success(), "{what}");
    }
    host.rests(&namespaces, &what);
}

impl Host {
    /// Returns the namespaces that the VM has of its own at this moment.
    fn namespaces(&self) -> Namespaces {
        let running = self.running("web");
        let of = |role: &str| {
            let pid = running[role]["pid"].as_i64();
            pid.map(|pid| namespaces_of(&PathBuf::from(format!("/proc/{pid}")))).unwrap_or_default()
        };
        let shared = [namespaces_of(Path::new("/proc/self")), of("supervisor")].concat();
        let mut own = Namespaces::default();
        for (place, _) in [of("stub"), of("vmm_process")].concat() {
            let Ok(file) = fs::File::open(place) else { continue };
            let name = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
            let name = name.expect("a namespace");
            if !shared.iter().any(|(_, one)| *one == name) {
                own.0.insert(name, file);
            }
        }
        own
    }

    /// Starts without waiting for more than the VMM's word that the guest runs.
    fn start_quickly(&self) {
        // What a supervisor that was killed left behind.
        let before = self.running("web")["supervisor"].clone();
        let mut starter = self.spawn("vm-start", &["web"]);
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            let now = self.running("web");
            if now["launched_ms"].is_u64() && now["supervisor"] != before {
                break;
            }
            assert!(Instant::now() < limit, "it does not start: {now}");
            sleep(Duration::from_millis(5));
        }
        starter.kill().expect("kill");
        starter.wait().expect("its end");
    }

    /// Checks that a VM soon rests, with a right answer and nothing at work.
    fn rests(&self, namespaces: &Namespaces, what: &str) {
        let what = format!("by the death of {what}");
        self.nothing_works("web", namespaces, &what);
        let limit = Instant::now() + Duration::from_secs(15);
        loop {
            let status = self.view("web")["status"].as_str().unwrap_or_default().to_owned();
            if ["created", "stopped", "error"].contains(&status.as_str()) {
                break;
            }
            assert!(Instant::now() < limit, "ended {what}: {status}");
            sleep(Duration::from_millis(20));
        }
        // An empty control group and files without life in 'run' are all that may outlive a killed
        // supervisor; the next start, 'vm delete' and 'gc' take them away.
        self.run("gc", &[]).ok();
        let groups = groups(&self.sandbox_id("web"));
        assert!(groups.is_empty(), "ended {what}: {groups:?}");
    }
}

#[test]
fn a_vm_that_was_set_gets_that_from_firecracker() {
    for who in [As::Root, As::User] {
        let Some(host) = Host::new(who, Firecracker, Then::Halts) else { continue };
        host.create("web", "none");
        // By a name that leads to it, as where several versions lie side by side.
        let link = host.sandbox.dir().join("the-chosen-one");
        std::os::unix::fs::symlink(host.place().join("firecracker"), &link).expect("a link");
        host.choose("firecracker", &link);
        let words = ["web", "--vcpu", "2", "--memory", "96M", "--disk-size", "11G"];
        host.run("vm-set", &words).ok();
        let view = host.start("web");
        assert_eq!(view["running"]["vmm"], "firecracker", "{view}");
        let config = ask(&host, "web", "/machine-config");
        assert_eq!((&config["vcpu_count"], &config["mem_size_mib"]), (&json!(2), &json!(96)));
        let vmm = PathBuf::from(format!("/proc/{}", pid(&view, "vmm_process")));
        let threads: Vec<String> = names(vmm.join("task"))
            .iter()
            .map(|id| fs::read_to_string(vmm.join("task").join(id).join("comm")).expect("a name"))
            .collect();
        let processors = threads.iter().filter(|name| name.starts_with("fc_vcpu")).count();
        assert_eq!(processors, 2, "{threads:?}");
        // What Firecracker has open is the disk that grew.
        let work = fs::metadata(vmm.join("root/work")).expect("the disk");
        assert_eq!(work.len(), 11 << 30);
        for group in groups(&host.sandbox_id("web")) {
            if let Ok(memory) = fs::read_to_string(group.join("memory.limit_in_bytes")) {
                assert_eq!(memory.trim(), ((96_u64 + 256) << 20).to_string());
            }
        }
        // And not while it runs.
        host.run("vm-set", &["web", "--vcpu", "1"]).fails(4, "banger vm stop web");
        host.run("vm-kill", &["web"]).ok();
        host.nothing_remains("web");
    }
}

#[test]
fn gc_removes_what_a_killed_supervisor_left_of_a_jail() {
    for who in [As::Root, As::User] {
        let Some(host) = Host::new(who, Firecracker, Then::Halts) else { continue };
        host.create("web", "none");
        let view = host.start("web");
        let id = host.sandbox_id("web");
        let folder = host.sandbox.vm("web");
        let had_groups = groups(&id);
        end(&view["running"]["supervisor"]["pid"]);
        host.nothing_works("web", &Namespaces::default(), "by the death of the supervisor");
        // The root that the jailer made went with the namespace it was mounted in.
        assert_eq!(names(folder.join("run/jail")), set(&[]));
        let left = names(folder.join("run"));
        assert!(folder.join("metrics.json").exists());
        // Groups of other states' VMs may lie about as well.
        let removed = |words: &[&str]| {
            let mut names = removed(&host, words);
            names.retain(|name| name.starts_with("vms/") || name.ends_with(&id));
            names
        };
        let would = removed(&["--dry-run"]);
        assert_eq!(would, removed(&[]), "{who:?}");
        for name in left.iter().map(|name| format!("run/{name}")).chain(["metrics.json".into()]) {
            assert!(would.contains(&format!("vms/web/{name}")), "{name}: {would:?}");
        }
        for group in &had_groups {
            assert!(would.contains(&group.display().to_string()), "{group:?}: {would:?}");
            assert!(!group.exists(), "{group:?}");
        }
        assert_eq!(names(folder.join("run")), set(&[]));
        assert!(!folder.join("metrics.json").exists());
        assert_eq!(removed(&[]), set(&[]));
        host.start("web");
        host.run("vm-stop", &["web"]).ok();
        host.nothing_remains("web");
    }
}

/// A group may outlive its VM: one that was deleted while its last process was dying.
#[test]
fn gc_removes_control_groups_of_vms_that_are_gone() {
    let Some(host) = Host::new(As::Root, Firecracker, Then::Halts) else { return };
    host.create("web", "none");
    let (web, gone) = (host.sandbox_id("web"), format!("{:032x}", std::process::id()));
    let top = Path::new("/sys/fs/cgroup");
    let version_1 = top.join("memory");
    let top: &Path = if version_1.exists() { &version_1 } else { top };
    // Seen by this test's `gc` alone: every other one of root's sweeps what all see.
    let parent = top.join(format!("banger-{}", std::process::id()));
    let place = top.join("banger");
    fs::create_dir_all(&place).expect("a control group");
    let made = |id: &str| {
        let group = parent.join(id);
        fs::create_dir_all(&group).expect("a control group");
        let old = std::time::SystemTime::now() - Duration::from_secs(90);
        fs::File::open(&group).and_then(|group| group.set_modified(old)).expect("its age");
        group
    };
    let (of_web, of_none, fresh) = (made(&web), made(&gone), parent.join("f".repeat(32)));
    let busy = made(&format!("{:032x}", u64::from(std::process::id()) + (1 << 40)));
    let mut sleeper = Command::new("sleep").arg("60").spawn().expect("a process");
    fs::write(busy.join("cgroup.procs"), sleeper.id().to_string()).expect("a process in it");
    fs::create_dir_all(&fresh).expect("a control group");
    let script = "mount --bind \"$1\" \"$2\"; exec \"$3\"";
    let [from, to, gc] =
        [&parent, &place, &program("banger-gc")].map(|it| it.display().to_string());
    let did = host.sandbox.run("unshare", &["-m", "sh", "-euc", script, "sh", &from, &to, &gc]);
    let stay = [&fresh, &busy].map(|group| group.exists());
    sleeper.kill().and_then(|()| sleeper.wait()).expect("its end");
    let limit = Instant::now() + Duration::from_secs(20);
    for group in [&busy, &fresh] {
        // What ends is in its group for a moment longer.
        while fs::remove_dir(group).is_err() && group.exists() {
            assert!(Instant::now() < limit, "{group:?} stays");
            sleep(Duration::from_millis(5));
        }
    }
    let did = named(&did);
    for (group, id) in [(of_web, web), (of_none, gone)] {
        let name = place.join(id).display().to_string();
        assert!(did.contains(&name), "{name}: {did:?}");
        assert!(!group.exists(), "{group:?}");
    }
    assert_eq!(stay, [true, true], "one that may be just being made, and one that is used");
    fs::remove_dir(&parent).expect("an empty control group");
}

/// Runs `gc`; returns what it names.
fn removed(host: &Host, words: &[&str]) -> BTreeSet<String> {
    named(&host.run("gc", words))
}

/// Returns what an answer of `gc` names.
fn named(answer: &Answer) -> BTreeSet<String> {
    let documents = &answer.ok().documents;
    documents.iter().map(|one| one["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn twenty_at_once_all_answer_right() {
    let Some(host) = Host::new(As::User, Firecracker, Then::Halts) else { return };
    let names: Vec<String> = (0..20).map(|number| format!("vm-{number:02}")).collect();
    for name in &names {
        host.create(name, "none");
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let started = host.run("vm-start", &[&["--timeout", "30"], &all[..]].concat());
    // Their guests have no agent, so each is told so; none is told anything else.
    assert_eq!(started.status, 1, "{}", started.all());
    let mut pids = BTreeSet::new();
    for name in &names {
        let said = format!("VM '{name}' did not come up within 30 s; it is kept");
        assert!(started.stderr.contains(&said), "{}", started.all());
        pids.insert(pid(&host.greets(name), "vmm_process"));
    }
    assert_eq!(pids.len(), 20);
    let stopped = host.run("vm-stop", &all);
    stopped.ok();
    let answers: Vec<_> = stopped.documents.iter().map(|view| view["name"].clone()).collect();
    assert_eq!(answers, names.iter().map(|name| json!(name)).collect::<Vec<_>>());
    for (name, view) in names.iter().zip(&stopped.documents) {
        assert_eq!(view["status"], "stopped", "{view}");
        host.nothing_remains(name);
    }
}

#[test]
fn the_distribution_s_kernel_boots_or_says_why_not() {
    // Root's QEMU is what most other tests boot guests with.
    for (who, vmm) in [(As::Root, Firecracker), (As::User, Qemu)] {
        let Some(host) = Host::bare(who, vmm).or_else(|| Host::bare(As::User, vmm)) else {
            continue;
        };
        boots(&host);
    }
}

fn boots(host: &Host) {
    host.sandbox.set_limit(Duration::from_mins(15));
    fixture::kernel(&host.sandbox);
    host.settle();
    let (vmm, net) = if host.vmm == Qemu { ("qemu", "user") } else { ("firecracker", "none") };
    let words =
        ["--no-start", "--image", "empty", "--name", "web", "--memory", "128M", "--vcpu", "1"];
    host.run("vm-create", &[&words[..], &["--net", net, "--vmm", vmm]].concat()).ok();
    let answer = host.run("vm-start", &["--console", "--timeout", "600", "web"]);
    // The whole boot is shown, from the kernel's first line on.
    assert!(answer.stderr.contains("Linux version 6.12"), "{}", answer.all());
    let log = || fs::read_to_string(host.sandbox.vm("web").join("console.log")).expect("a log");
    if host.vmm == Qemu || works(host) {
        answer.ok();
        confined(host, &host.view("web"));
        if !loses_what_it_pauses(host) {
            comes_back_with_the_time(host);
        }
        assert!(log().contains("Linux version 6.12"), "{}", log());
        let stopped = host.run("vm-stop", &["web"]);
        assert_eq!(stopped.document()["last_exit"]["reason"], "stopped", "{}", stopped.all());
        assert_eq!(stopped.document()["last_exit"]["disks_clean"], true, "{}", stopped.all());
    } else {
        answer.fails(1, "Firecracker gave up: Received KVM_EXIT_INTERNAL_ERROR signal");
        let view = host.view("web");
        assert_eq!(view["status"], "error", "{view}");
        let exit = &view["last_exit"];
        assert_eq!(exit["reason"], "vmm-ended", "{exit}");
        assert!(exit["message"].as_str().expect("text").contains("KVM here is"), "{exit}");
        let tail = exit["console_tail"].as_array().expect("lines");
        assert!(tail.len() > 5, "{exit}");
        assert!(log().contains("Linux version 6.12"), "{}", log());
    }
    host.nothing_remains("web");
}

/// Held still and let go with a guest that can tell, its clock is the host's again.
fn comes_back_with_the_time(host: &Host) {
    let paused = host.run("vm-pause", &["web"]);
    assert_eq!(paused.document()["status"], "paused", "{}", paused.all());
    sleep(Duration::from_millis(1500));
    let resumed = host.run("vm-resume", &["web"]);
    assert_eq!(resumed.document()["status"], "running", "{}", resumed.all());
    // That it runs is said first.
    let said = || fs::read_to_string(host.sandbox.vm("web").join("supervise.log")).expect("a log");
    let limit = Instant::now() + Duration::from_secs(20);
    while !said().contains("setting the guest's clock") {
        assert!(Instant::now() < limit, "{}", said());
        sleep(Duration::from_millis(20));
    }
}
