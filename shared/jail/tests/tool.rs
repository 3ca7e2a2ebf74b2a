//! A tool that a guest has taken over, in its jail: what it can reach, and what is left of it.

use banger_jail::{Limits, Tool, weaker};
use std::{
    fs,
    io::Read,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// Who an ordinary user is in these tests, and the name of the variable that says which test one runs.
const USER: &str = "54321";
const AS_USER: &str = "BANGER_AS_USER";

const LIMITS: Limits =
    Limits { memory: 256 << 20, mapped: 64 << 20, file: 1 << 20, time: Duration::from_secs(1) };

/// A host: the probe, a disk for it, a folder for it, and a file of somebody's.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("the host of a test");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/probe.c");
        let mut cc = Command::new("cc");
        cc.arg("-O1").arg("-w").arg("-pthread").arg("-o").arg(dir.path().join("probe")).arg(source);
        assert!(cc.status().expect("the host of a test").success());
        for name in ["disk", "secret"] {
            fs::write(dir.path().join(name), "words of it").expect("the host of a test");
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(dir.path().join(name), mode).expect("the host of a test");
        }
        fs::create_dir(dir.path().join("folder")).expect("the host of a test");
        fs::write(dir.path().join("folder/file"), "words").expect("the host of a test");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().expect("the host of a test").join(name)
    }

    fn run(&self, words: &[&str]) -> (String, ExitStatus) {
        let tool = Tool::new(&self.path("probe"), LIMITS)
            .expect("the host of a test")
            .sees(self.path("disk"), true)
            .sees(self.path("folder"), false);
        let mut command = tool.command();
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = tool.spawn(command, &self.path("folder")).expect("the host of a test");
        let mut said = String::new();
        child
            .stdout
            .take()
            .expect("the host of a test")
            .read_to_string(&mut said)
            .expect("the host of a test");
        (said, child.wait().expect("the host of a test"))
    }
}

/// Runs a test anew as an ordinary user; says whether the caller is that user now.
fn as_user(test: &str) -> bool {
    if std::env::var_os(AS_USER).is_some() || !nix::unistd::geteuid().is_root() {
        return true;
    }
    let mut again = Command::new("setpriv");
    again.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"]);
    again.arg(std::env::current_exe().expect("the host of a test")).args([
        "--exact",
        test,
        "--nocapture",
    ]);
    again.env(AS_USER, "1").env("TMPDIR", "/tmp").current_dir("/");
    let output = again.output().expect("the host of a test");
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && words.contains("1 passed"),
        "{words}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

fn sees_nothing_but_its_own(host: &Host) -> String {
    let (disk, file, secret) = (host.path("disk"), host.path("folder/file"), host.path("secret"));
    let paths = [&disk, &file, &secret, Path::new("/etc/passwd"), Path::new("/proc/self/status")];
    let mut words = vec!["look"];
    words.extend(paths.iter().map(|path| path.to_str().expect("the host of a test")));
    let (said, status) = host.run(&words);
    assert!(status.success(), "{said}");
    let can = |what: String| said.contains(&format!("{what}: yes\n"));
    assert!(can(format!("read {}", disk.display())), "{said}");
    assert!(can(format!("write {}", disk.display())), "{said}");
    assert!(can(format!("read {}", file.display())), "{said}");
    assert!(said.contains(&format!("in {}\n", host.path("folder").display())), "{said}");
    for path in &paths[2..] {
        assert!(!can(format!("read {}", path.display())), "{said}");
    }
    for path in &paths[1..] {
        assert!(!can(format!("write {}", path.display())), "{said}");
    }
    for path in paths {
        assert!(!can(format!("new {}.new", path.display())), "{said}");
    }
    assert!(can("thread".into()), "{said}");
    for what in [
        "inet",
        "unix",
        "netlink",
        "kill the parent",
        "kill all",
        "trace",
        "namespace",
        "root",
        "device",
        "mount",
        "memfd",
        "fork",
        "shell",
    ] {
        assert!(said.contains(&format!("{what}: ")) && !can(what.into()), "{what}: {said}");
    }
    for line in said.lines().filter_map(|line| line.strip_prefix("sees ")) {
        let known = ["/dev", "/etc", "/lib", "/usr", "/tmp", "/nix", "/gnu"];
        assert!(known.iter().any(|at| line.starts_with(at)), "it sees '{line}'");
    }
    assert_eq!(fs::read_to_string(&disk).expect("the host of a test"), "changedf it");
    assert!(weaker().is_none(), "{:?}", weaker());
    said
}

#[test]
fn a_tool_of_root_sees_its_disk_alone_as_a_user_of_its_own() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let host = Host::new();
    let said = sees_nothing_but_its_own(&host);
    let own = 0x7080_0000 + std::process::id();
    assert!(said.contains(&format!("uid {own} gid {own} pid 1\n")), "{said}");
    // Nothing changed hands.
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(host.path("disk")).unwrap());
    assert_eq!(owner, 0);
}

#[test]
fn a_tool_of_a_user_sees_its_disk_alone() {
    if as_user("a_tool_of_a_user_sees_its_disk_alone") {
        let said = sees_nothing_but_its_own(&Host::new());
        assert!(said.contains(" pid 1\n"), "{said}");
    }
}

#[test]
fn memory_and_time_of_a_tool_have_an_end() {
    let host = Host::new();
    let (said, status) = host.run(&["memory"]);
    assert!(status.success(), "{said}");
    let mib: Vec<u64> =
        said.lines().map(|l| l.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(mib[0] > 100 && mib[0] <= 256 && mib[0] + mib[1] <= 320, "{said}");
    let begun = Instant::now();
    let (_, status) = host.run(&["time"]);
    assert_eq!(status.signal(), Some(9));
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_tool_ends_as_it_would_without_its_jail() {
    let host = Host::new();
    assert_eq!(host.run(&["status"]).1.code(), Some(7));
    assert_eq!(host.run(&["fault"]).1.signal(), Some(11));
    assert!(!host.run(&["abort"]).1.success());
    let missing = Tool::new(&host.path("nothing"), LIMITS).unwrap_err();
    assert!(missing.chain().contains("cannot find"), "{}", missing.chain());
    fs::write(host.path("script"), "#!/bin/sh\n").unwrap();
    let script = Tool::new(&host.path("script"), LIMITS).unwrap_err();
    assert!(script.chain().contains("is a script, which no jail can hold"), "{}", script.chain());
    // What it is to see is not there: for root no reason to stay root.
    let absent = host.path("absent");
    let tool = Tool::new(&host.path("probe"), LIMITS).unwrap().sees(&absent, false);
    let error = tool.spawn(tool.command(), Path::new("/")).unwrap_err();
    assert!(error.chain().contains(absent.to_str().unwrap()), "{}", error.chain());
    assert!(error.report().hint.unwrap().contains("banger doctor"));
    assert!(weaker().is_none(), "{:?}", weaker());
}

/// The names of processes that run this probe.
fn left(host: &Host) -> usize {
    let probe = host.path("probe");
    let of = |entry: &fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    let name = probe.to_str().expect("the host of a test").as_bytes();
    let all = fs::read_dir("/proc").expect("the host of a test").flatten();
    all.filter(|entry| of(entry).starts_with(name)).count()
}

#[test]
fn nothing_is_left_of_a_tool_whose_caller_is_killed() {
    const CALLER: &str = "BANGER_CALLER";
    if let Some(dir) = std::env::var_os(CALLER) {
        let tool = Tool::new(&Path::new(&dir).join("probe"), LIMITS).unwrap();
        let mut command = tool.command();
        command.arg("wait");
        let _ = tool.spawn(command, Path::new("/")).unwrap().wait();
        return;
    }
    let host = Host::new();
    let mut caller = Command::new(std::env::current_exe().unwrap());
    caller.args(["--exact", "nothing_is_left_of_a_tool_whose_caller_is_killed"]);
    let mut caller = caller.env(CALLER, host.path("")).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    let until = |count: usize| {
        while left(&host) != count {
            assert!(Instant::now() < end, "{} run", left(&host));
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    until(1);
    caller.kill().unwrap();
    caller.wait().unwrap();
    until(0);
}

/// A host that allows no namespaces of this kind to anybody.
#[test]
fn without_namespaces_a_tool_still_has_limits_and_says_what_is_weaker() {
    const NAME: &str = "without_namespaces_a_tool_still_has_limits_and_says_what_is_weaker";
    const WITHOUT: &str = "BANGER_WITHOUT";
    if !as_user(NAME) {
        return;
    }
    if std::env::var_os(WITHOUT).is_none() {
        let script = "echo 0 > /proc/sys/user/max_pid_namespaces; exec \"$@\"";
        let mut again = Command::new("unshare");
        again.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]);
        again.arg(std::env::current_exe().unwrap()).args(["--exact", NAME, "--nocapture"]);
        let output = again.env(WITHOUT, "1").env("TMPDIR", "/tmp").output().unwrap();
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && words.contains("1 passed"), "{output:?}");
        return;
    }
    let host = Host::new();
    let (said, status) = host.run(&["look", host.path("disk").to_str().unwrap()]);
    assert!(status.success(), "{said}");
    assert!(weaker().unwrap().contains("no PID namespace"), "{:?}", weaker());
    assert!(said.contains(&format!("write {}: yes", host.path("disk").display())), "{said}");
    assert!(said.contains(&format!("in {}\n", host.path("folder").display())), "{said}");
    for what in ["inet", "unix", "kill the parent", "trace", "namespace", "mount", "fork"] {
        assert!(said.contains(&format!("{what}: Operation not permitted")), "{what}: {said}");
    }
    let (said, _) = host.run(&["memory"]);
    let mib: u64 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(mib > 100 && mib <= 256, "{said}");
}
