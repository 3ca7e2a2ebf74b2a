//! The real Firecracker, driven by banger's own programs: as root under its real jailer, and as an
//! ordinary user in namespaces of the user's own.
//!
//! A tiny kernel stands in for what happens inside a guest, so these run wherever `/dev/kvm` opens.
//! One test boots the distribution's kernel: to its end where KVM is real, and to where an imitation
//! of KVM gives up elsewhere.

use crate::fixture;
use banger_tests::{Answer, GREETING, Sandbox, Then, program};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
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
}

/// Runs a command with devices that everybody may open, as desktops have them, without changing the
/// host's; and with the programs where everybody can reach them. `$1` is whom to become.
const DEVICES: &str = r#"
who=$1 bin=$2 vmm=$3 to=$4; shift 4
mount -t tmpfs banger /mnt
mknod -m 666 /mnt/kvm c 10 232; mknod -m 666 /mnt/tun c 10 200; chmod 666 /mnt/kvm /mnt/tun
mount --bind /mnt/kvm /dev/kvm; mount --bind /mnt/tun /dev/net/tun; umount -l /mnt
mount --bind "$bin" "$to/bin"; mount --bind "$vmm" "$to/vmm"
program=$1; shift
if [ "$who" = root ]; then exec "$to/bin/$program" "$@"; fi
exec setpriv --reuid "$who" --regid "$who" --clear-groups -- "$to/bin/$program" "$@"
"#;

struct Host {
    sandbox: Sandbox,
    who: As,
    vmm: PathBuf,
}

impl Host {
    /// Makes a state with an image and a tiny kernel; none where there is no Firecracker.
    fn new(who: As, then: Then) -> Option<Self> {
        let host = Self::bare(who)?;
        host.sandbox.plant_kernel("tiny");
        host.sandbox.plant_tiny("tiny", then);
        host.settle();
        Some(host)
    }

    fn bare(who: As) -> Option<Self> {
        let vmm = banger_tests::firecracker()?;
        if !geteuid().is_root() && who == As::Root {
            let _ = writeln!(std::io::stderr(), "SKIPPED: the jailer needs root");
            return None;
        }
        let sandbox = Sandbox::new();
        sandbox.set_limit(Duration::from_mins(2));
        sandbox.plant_image("empty");
        let host = Self { sandbox, who, vmm };
        for dir in ["bin", "vmm", "spare"] {
            fs::create_dir(host.top().join(dir)).expect("a folder");
        }
        let vmm = host.top().join("vmm");
        let vmm = if geteuid().is_root() { &vmm } else { &host.vmm };
        host.sandbox.config(&format!(
            "[binaries]\nfirecracker = '{0}/firecracker'\njailer = '{0}/jailer'\n",
            vmm.display()
        ));
        Some(host)
    }

    fn top(&self) -> &Path {
        self.sandbox.state().parent().expect("the sandbox")
    }

    /// Gives all to the user who starts the VM.
    fn settle(&self) {
        if geteuid().is_root() && self.who == As::User {
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
        let who = if self.who == As::Root { "root" } else { USER };
        let mut command = self.sandbox.command("unshare");
        command.args(["-m", "bash", "-euc", DEVICES, "sh", who]);
        command.arg(dir).arg(&self.vmm).arg(self.top()).arg(name);
        command
    }

    fn run(&self, name: &str, words: &[&str]) -> Answer {
        let prepared = self.command(&format!("banger-{name}"));
        let args: Vec<&str> =
            prepared.get_args().map(|word| word.to_str().expect("text")).collect();
        self.sandbox.run(prepared.get_program(), &[&args, words].concat())
    }

    fn spawn(&self, name: &str, vm: &str) -> Child {
        let mut command = self.command(&format!("banger-{name}"));
        command.arg(vm).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a program")
    }

    fn create(&self, name: &str, net: &str) {
        let words = ["--no-start", "--image", "empty", "--kernel", "tiny", "--memory", "64M"];
        let more = ["--vcpu", "1", "--vmm", "firecracker", "--net", net, "--name", name];
        self.run("vm-create", &[&words[..], &more].concat()).ok();
    }

    fn view(&self, vm: &str) -> Value {
        self.run("vm-show", &[vm]).document().clone()
    }

    /// Starts a guest that will never answer, and waits until Firecracker runs it.
    fn start(&self, vm: &str) -> Value {
        let answer = self.run("vm-start", &["--timeout", "2", vm]);
        answer.fails(1, "did not come up within 2 s; it is kept");
        let view = self.view(vm);
        assert_eq!(view["status"], "starting", "{view}");
        assert!(view["running"]["launched_ms"].is_u64(), "{view}");
        view
    }

    /// Checks that no process, socket, mount, jail or control group of a VM is left, and that its
    /// disks are its owner's.
    fn nothing_remains(&self, vm: &str) {
        let folder = self.sandbox.vm(vm);
        let id = self.sandbox_id(vm);
        let limit = Instant::now() + Duration::from_secs(15);
        loop {
            let left = processes(&folder, &id, vm);
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < limit, "left of '{vm}': {left:?}");
            sleep(Duration::from_millis(20));
        }
        assert!(!folder.join("run").exists(), "'run' is left");
        assert!(!folder.join("metrics.json").exists(), "'metrics.json' is left");
        let groups = groups(&id);
        assert!(groups.is_empty(), "{groups:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        assert!(!mounts.contains(folder.to_str().expect("text")), "{mounts}");
        let owner = fs::metadata(&folder).expect("the folder").uid();
        for disk in ["overlay.ext4", "work.ext4"] {
            assert_eq!(fs::metadata(folder.join(disk)).expect("a disk").uid(), owner);
        }
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

/// Returns processes of a VM: those in its folder, and those that carry its name or identity.
fn processes(folder: &Path, id: &str, name: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let of_it = |path: &Path| {
        let words = fs::read(path.join("cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).collect();
        let named = words.windows(2).any(|pair| {
            pair[0] == b"--id" && (pair[1] == id.as_bytes() || pair[1] == name.as_bytes())
        });
        // Another test's VM may have the same name; it has another folder behind its descriptors.
        let inside = fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        let disk = fs::read_link(path.join("fd/0")).is_ok_and(|file| file.starts_with(folder));
        inside || (named && disk)
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
fn a_guest_runs_under_the_jailer() {
    a_guest_runs_in_its_jail(As::Root);
}

#[test]
fn a_guest_runs_in_an_ordinary_user_s_namespaces() {
    a_guest_runs_in_its_jail(As::User);
}

fn a_guest_runs_in_its_jail(who: As) {
    let Some(host) = Host::new(who, Then::Halts) else { return };
    host.create("web", "user");
    let view = host.start("web");
    assert_eq!(view["running"]["vmm"], "firecracker", "{view}");
    assert_eq!(view["running"]["accelerator"], "kvm", "{view}");
    let log = fs::read_to_string(host.sandbox.vm("web").join("console.log")).expect("a console");
    assert!(log.contains(GREETING), "{log}");
    let logs = host.command("banger-vm-logs");
    let words: Vec<&str> = logs.get_args().map(|word| word.to_str().expect("text")).collect();
    let logs = host.sandbox.raw(logs.get_program(), &[&words[..], &["web"]].concat());
    assert!(logs.ok().text().contains(GREETING), "{}", logs.all());

    confined(&host, &view);

    // Held still and let go by the real program.
    let paused = host.run("vm-pause", &["web"]);
    assert_eq!(paused.document()["status"], "paused", "{}", paused.all());
    assert_eq!(state(&host, "web"), "Paused");
    assert_eq!(host.run("vm-pause", &["web"]).document()["status"], "paused");
    let resumed = host.run("vm-resume", &["web"]);
    assert_eq!(resumed.document()["status"], "starting", "{}", resumed.all());
    assert_eq!(state(&host, "web"), "Running");

    // Its measurements are kept while it runs.
    let metrics = fs::read(host.sandbox.vm("web").join("metrics.json")).expect("metrics");
    let metrics: Value = serde_json::from_slice(&metrics).expect("metrics");
    assert!(metrics["vcpu"].is_object() && metrics["seccomp"].is_object(), "{metrics}");

    host.run("vm-pause", &["web"]).ok();
    let stopped = host.run("vm-stop", &["web"]);
    let exit = &stopped.document()["last_exit"];
    assert_eq!(exit["reason"], "killed", "{exit}");
    assert!(exit["message"].as_str().expect("text").contains("no power button"), "{exit}");
    assert!(stopped.took < Duration::from_secs(10), "{:?}", stopped.took);
    host.nothing_remains("web");
}

/// What a Firecracker that was broken out of would have.
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
    let limits = fs::read_to_string(proc.join("limits")).expect("its limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    assert!(core.is_some_and(|line| line.contains(" 0 ")), "{limits}");

    let root = proc.join("root");
    let run = set(&["api.sock", "channel.sock", "initramfs", "jail", "metrics", "output"]);
    assert_eq!(names(root.join("run")), run);
    let mut files = set(&["base", "dev", "firecracker", "kernel", "overlay", "run", "work"]);
    if host.who == As::Root {
        files.extend(set(&["firecracker.pid"]));
    }
    assert_eq!(names(&root), files);
    assert_eq!(names(root.join("dev/net")), set(&["tun"]));
    if host.who == As::User {
        assert_eq!(names(root.join("dev")), set(&["kvm", "net", "urandom"]));
        assert_ne!(user(vmm), user(supervisor));
        return;
    }
    assert!(uid > 0x7000_0000, "{uid}");
    let beyond: BTreeSet<_> = names(root.join("dev"))
        .difference(&set(&["kvm", "net", "urandom", "userfaultfd"]))
        .cloned()
        .collect();
    assert!(beyond.is_empty(), "{beyond:?}");
    let groups = groups(&host.sandbox_id("web"));
    let cgroups = fs::read_to_string(proc.join("cgroup")).expect("its groups");
    assert_eq!(groups.is_empty(), !cgroups.contains("/banger/"), "{cgroups}");
    for group in &groups {
        let limit = |name: &str| fs::read_to_string(group.join(name)).ok();
        let memory = limit("memory.limit_in_bytes").or_else(|| limit("memory.max"));
        if let Some(memory) = memory {
            assert_eq!(memory.trim(), ((64_u64 + 256) << 20).to_string());
        }
    }
}

/// Asks Firecracker itself how it stands.
fn state(host: &Host, vm: &str) -> String {
    let socket = host.sandbox.vm(vm).join("run/api.sock");
    let mut stream = UnixStream::connect(&socket).expect("the API");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a question");
    let mut bytes = [0; 4096];
    let n = stream.read(&mut bytes).expect("an answer");
    let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    let answer: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {text}"));
    answer["state"].as_str().expect("a state").to_owned()
}

#[test]
fn what_firecracker_refuses_is_our_error_with_its_reason() {
    let Some(host) = Host::new(As::User, Then::Halts) else { return };
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
    let change = |key: &str, value: Value| {
        let mut document: Value = serde_json::from_slice(&good.0).expect("a document");
        document[key] = value;
        fs::write(&spec, format!("{document}\n")).expect("the spec");
    };

    change("memory_mib", json!(0));
    fails(1, "Firecracker refused PUT /machine-config: ");
    change("memory_mib", json!(1_u64 << 40));
    fails(1, "Firecracker refused PUT /");
    change("vcpu", json!(33));
    fails(1, "Firecracker refused PUT /machine-config: ");
    fs::write(&kernel, b"\x7fELF and nothing of the kind").expect("a kernel");
    fails(1, "Firecracker refused PUT /actions: ");
    fs::write(&kernel, b"MZ: a bzImage begins so").expect("a kernel");
    fails(1, "Firecracker needs ");
    let disk = host.sandbox.state().join("images/empty/rootfs.ext4");
    let mode = |bits| fs::set_permissions(&disk, fs::Permissions::from_mode(bits)).expect("a mode");
    mode(0o000);
    fails(1, "Firecracker refused PUT /drives/base: ");
    mode(0o600);
    fs::rename(&disk, host.top().join("spare/disk")).expect("a disk");
    fails(1, "cannot find the base disk");
    fs::create_dir(&disk).expect("a folder");
    fails(1, "the base disk");
    fs::remove_dir(&disk).expect("a folder");
    fs::rename(host.top().join("spare/disk"), &disk).expect("a disk");

    // A program that is there and is no Firecracker.
    let config = host.sandbox.home().join(".config/banger/config.toml");
    let text = fs::read_to_string(&config).expect("the config");
    for (line, status, words) in [
        ("/bin/false", 1, "did not come up: the VMM ended with status 1"),
        ("/nowhere/firecracker", 5, "no firecracker at '/nowhere/firecracker'"),
    ] {
        fs::write(&config, format!("[binaries]\nfirecracker = '{line}'\n")).expect("the config");
        fails(status, words);
    }
    fs::write(&config, text).expect("the config");

    // After all that it runs.
    host.start("web");
    host.run("vm-kill", &["web"]).ok();
    host.nothing_remains("web");
}

#[test]
fn a_guest_that_resets_ends_firecracker() {
    for then in [Then::Resets, Then::Faults] {
        let Some(host) = Host::new(As::User, then) else { return };
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
    for who in [As::Root, As::User] {
        let Some(host) = Host::new(who, Then::Halts) else { continue };
        host.create("web", "none");
        for role in ["supervisor", "stub", "vmm_process", "starter"] {
            for moment in [0, 8, 25, 60, 200] {
                killed_while_starting(&host, role, Duration::from_millis(moment));
            }
        }
        for role in ["supervisor", "stub", "vmm_process"] {
            for moment in [0, 3, 15] {
                host.start_quickly();
                let of = host.running("web")[role]["pid"].clone();
                let mut stop = host.spawn("vm-stop", "web");
                sleep(Duration::from_millis(moment));
                end(&of);
                assert!(stop.wait().expect("its status").success(), "{role} after {moment} ms");
                host.rests(&format!("{role}, {moment} ms after a stop began"));
            }
        }
        host.start("web");
        host.run("vm-kill", &["web"]).ok();
        host.nothing_remains("web");
        host.run("vm-delete", &["web"]).ok();
        assert!(!host.sandbox.vm("web").exists());
    }
}

fn killed_while_starting(host: &Host, role: &str, moment: Duration) {
    let before = host.running("web")["supervisor"].clone();
    let mut starter = host.spawn("vm-start", "web");
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
    let what = format!("{role} after {moment:?}");
    if role == "starter" {
        starter.kill().expect("kill");
    } else {
        end(&host.running("web")[role]["pid"]);
    }
    if role == "starter" || host.running("web")[role].is_null() {
        // The VM does not depend on its starter; one that had not begun was not killed.
        host.run("vm-kill", &["web"]).ok();
    }
    let _ = starter.wait();
    host.rests(&what);
}

impl Host {
    /// Starts without waiting for more than Firecracker's word that the guest runs.
    fn start_quickly(&self) {
        let mut starter = self.spawn("vm-start", "web");
        let limit = Instant::now() + Duration::from_secs(20);
        while !self.running("web")["launched_ms"].is_u64() {
            assert!(Instant::now() < limit, "it does not start: {}", self.running("web"));
            sleep(Duration::from_millis(5));
        }
        starter.kill().expect("kill");
        starter.wait().expect("its end");
    }

    /// Checks that a VM soon rests, with a right answer and nothing at work.
    fn rests(&self, what: &str) {
        let folder = self.sandbox.vm("web");
        let id = self.sandbox_id("web");
        let limit = Instant::now() + Duration::from_secs(15);
        loop {
            let left = processes(&folder, &id, "web");
            let status = self.view("web")["status"].as_str().unwrap_or_default().to_owned();
            if left.is_empty() && ["created", "stopped", "error"].contains(&status.as_str()) {
                break;
            }
            assert!(Instant::now() < limit, "killed {what}: {status}, left {left:?}");
            sleep(Duration::from_millis(20));
        }
        // An empty control group is all that may outlive a killed supervisor; the next start, 'vm
        // delete' and 'gc' take it away.
        self.run("gc", &[]).ok();
        let groups = groups(&id);
        assert!(groups.is_empty(), "killed {what}: {groups:?}");
    }
}

#[test]
fn twenty_at_once_all_answer_right() {
    let Some(host) = Host::new(As::User, Then::Halts) else { return };
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
        let view = host.view(name);
        assert_eq!(view["status"], "starting", "{view}");
        assert!(view["running"]["launched_ms"].is_u64(), "{view}");
        pids.insert(pid(&view, "vmm_process"));
        let log = fs::read_to_string(host.sandbox.vm(name).join("console.log")).expect("a log");
        assert!(log.contains(GREETING), "{name}: {log}");
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
    let Some(host) = Host::bare(As::Root).or_else(|| Host::bare(As::User)) else { return };
    host.sandbox.set_limit(Duration::from_mins(15));
    fixture::kernel(&host.sandbox);
    host.settle();
    let words =
        ["--no-start", "--image", "empty", "--name", "web", "--memory", "128M", "--vcpu", "1"];
    host.run("vm-create", &[&words[..], &["--net", "none", "--vmm", "firecracker"]].concat()).ok();
    let answer = host.run("vm-start", &["--console", "--timeout", "600", "web"]);
    let real = host
        .run("doctor", &[])
        .documents
        .iter()
        .any(|check| check["name"] == "kvm" && check["outcome"] == "pass");
    // The whole boot is shown, from the kernel's first line on.
    assert!(answer.stderr.contains("Linux version 6.12"), "{}", answer.all());
    if real {
        answer.ok();
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
        let log = fs::read_to_string(host.sandbox.vm("web").join("console.log")).expect("a log");
        assert!(log.contains("Linux version 6.12"), "{log}");
    }
    host.nothing_remains("web");
}
