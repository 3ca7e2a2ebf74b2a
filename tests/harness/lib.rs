//! A sandbox for tests: temporary state, empty environment, programs run under a timeout.
//!
//! Nothing of banger's is linked: programs are run, documents are read and written as JSON, as
//! somebody else's program would. What a test leaves running is ended with its sandbox.

mod answer;
mod guest;
mod page;
mod plant;
mod process;
mod stage;
mod tiny;
mod web;

pub use answer::Answer;
pub use guest::Running;
pub use page::{How, Page, Script, pages};
pub use process::{Ended, run_bounded};
pub use stage::{copy_program, write_program};
pub use tiny::{GREETING, Then, pvh_kernel, tiny_kernel};
pub use web::Web;

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tempfile::TempDir;

/// Where programs of the system lie; the rest of `PATH` is not handed on.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A state directory, a home and a scratch directory of a test's own.
#[derive(Debug)]
pub struct Sandbox {
    dir: TempDir,
    state: PathBuf,
    limit_ms: AtomicU64,
    elsewhere: Option<Elsewhere>,
}

/// Where commands run instead of right here.
#[derive(Debug)]
struct Elsewhere {
    /// What a command begins with.
    words: Vec<String>,
    /// Where banger's programs lie there.
    programs: PathBuf,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// Makes an empty sandbox. The state directory itself is not there yet: programs make it.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("banger-test-").tempdir().expect("a temp dir");
        for part in ["home", "scratch", "tmp"] {
            fs::create_dir(dir.path().join(part)).expect("a directory in the sandbox");
        }
        let state = dir.path().join("state");
        Self { dir, state, limit_ms: AtomicU64::new(60_000), elsewhere: None }
    }

    /// Has every command from now on begin with `words`, which lead to another namespace or user:
    /// there banger's programs lie in `programs`.
    pub fn go_elsewhere(&mut self, mut words: Vec<String>, programs: &Path) {
        words.extend(["env".to_owned(), format!("--chdir={}", self.dir().display())]);
        self.elsewhere = Some(Elsewhere { words, programs: programs.to_owned() });
    }

    /// Returns the folder of banger's programs, where commands run.
    pub fn programs(&self) -> PathBuf {
        self.elsewhere.as_ref().map_or_else(own_programs, |elsewhere| elsewhere.programs.clone())
    }

    /// Changes how long one program may run, 60 s at first.
    pub fn set_limit(&self, limit: Duration) {
        self.limit_ms.store(limit.as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns the state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Returns the folder of a VM.
    pub fn vm(&self, name: &str) -> PathBuf {
        self.state.join("vms").join(name)
    }

    /// Returns a scratch directory; programs start in it.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }

    /// Returns the home directory.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Writes `config.toml`.
    pub fn config(&self, text: &str) {
        let dir = self.home().join(".config/banger");
        fs::create_dir_all(&dir).expect("the folder of the config");
        fs::write(dir.join("config.toml"), text).expect("the config");
    }

    /// Returns a command with the sandbox's environment, for what [`Sandbox::run`] does not offer.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match &self.elsewhere {
            None => Command::new(program),
            Some(Elsewhere { words, programs }) => {
                let program = Path::new(program.as_ref());
                let own = program.strip_prefix(own_programs());
                let program = own.map_or_else(|_| program.to_owned(), |name| programs.join(name));
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]).arg(program);
                command
            }
        };
        command
            .env_clear()
            .env("PATH", SYSTEM_PATH)
            .env("HOME", self.home())
            .env("TMPDIR", self.dir.path().join("tmp"))
            .env("BANGER_STATE", &self.state)
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .current_dir(self.dir())
            .stdin(Stdio::null());
        for name in ["CI", "BANGER_GUEST_DIR", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// Runs a program to its end and reads the documents it prints; anything else on its stdout
    /// fails the test.
    pub fn run(&self, program: impl AsRef<OsStr>, args: &[&str]) -> Answer {
        self.with(program, args, |_| {})
    }

    /// Like [`Sandbox::run`]; `change` sees the command first.
    pub fn with(
        &self,
        program: impl AsRef<OsStr>,
        args: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Answer {
        self.raw_with(program, args, change).parsed()
    }

    /// Runs a program whose stdout is bytes: `exec`, `logs`, `ssh`.
    pub fn raw(&self, program: impl AsRef<OsStr>, args: &[&str]) -> Answer {
        self.raw_with(program, args, |_| {})
    }

    /// Like [`Sandbox::raw`]; `change` sees the command first.
    pub fn raw_with(
        &self,
        program: impl AsRef<OsStr>,
        args: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Answer {
        self.start(program, args, None, change)
    }

    /// Like [`Sandbox::raw`], with bytes for the program's stdin.
    pub fn feed(&self, program: impl AsRef<OsStr>, args: &[&str], stdin: &[u8]) -> Answer {
        self.start(program, args, Some(stdin), |_| {})
    }

    /// Runs a shell command whose stdout is a terminal so many columns wide; stderr stays a pipe.
    pub fn terminal(
        &self,
        command: &str,
        columns: u16,
        change: impl FnOnce(&mut Command),
    ) -> Answer {
        let mut shell = self.command("/bin/bash");
        shell.args(["-c", command]).env("TERM", "xterm").env("NO_COLOR", "1");
        change(&mut shell);
        let ended = process::run_on_terminal(&mut shell, columns, self.limit());
        Answer::new(self.own_words(&shell), self.dir.path(), ended)
    }

    /// Returns what a command says but for what leads elsewhere.
    fn own_words(&self, command: &Command) -> String {
        let before = self.elsewhere.as_ref().map_or(0, |elsewhere| elsewhere.words.len());
        let program = std::iter::once(command.get_program());
        let words = program.chain(command.get_args()).skip(before);
        words.map(|word| word.display().to_string()).collect::<Vec<_>>().join(" ")
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.limit_ms.load(Ordering::Relaxed))
    }

    fn start(
        &self,
        program: impl AsRef<OsStr>,
        args: &[&str],
        stdin: Option<&[u8]>,
        change: impl FnOnce(&mut Command),
    ) -> Answer {
        let mut command = self.command(program);
        command.args(args);
        change(&mut command);
        let ended = run_bounded(&mut command, stdin, self.limit());
        Answer::new(self.own_words(&command), self.dir.path(), ended)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for folder in fs::read_dir(self.state.join("vms")).into_iter().flatten().flatten() {
            process::end_recorded(&folder.path().join("running.json"));
        }
    }
}

/// Returns the path of one of banger's programs for tests of several programs, which have no
/// `CARGO_BIN_EXE_...` of them.
pub fn program(name: &str) -> PathBuf {
    let path = own_programs().join(name);
    assert!(path.is_file(), "'{}' is missing: run 'cargo xtask build' first", path.display());
    path
}

fn own_programs() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of the test");
    exe.parent().and_then(Path::parent).expect("the folder of the build").to_owned()
}

/// Says whether a program of the system is there. Where `CI` is set an absent one fails the test;
/// elsewhere the test says that it skips, and why.
pub fn have(tool: &str) -> bool {
    let there = std::env::split_paths(SYSTEM_PATH).any(|dir| dir.join(tool).is_file());
    assert!(there || std::env::var_os("CI").is_none(), "'{tool}' is missing: 'cargo xtask setup'");
    if !there {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: '{tool}' is missing; 'cargo xtask setup' installs it"
        );
    }
    there
}

/// Returns the folder of the real Firecracker and its jailer, if they and a KVM to open are there: those
/// that `cargo xtask setup` brings, or those that `BANGER_TEST_FIRECRACKER` names, a folder or the
/// program `firecracker` in it. Where `CI` is set their absence fails the test; elsewhere the test
/// says that it skips, and why.
pub fn firecracker() -> Option<PathBuf> {
    let dir = firecracker_programs()?;
    match fs::File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Some(dir),
        Err(error) => skipped(&format!("/dev/kvm: {error}")),
    }
}

/// Like [`firecracker`], for a test that brings a KVM of its own.
pub fn firecracker_programs() -> Option<PathBuf> {
    let exe = std::env::current_exe().expect("the path of the test");
    let target = exe.ancestors().nth(3).expect("the folder of the build");
    let dir = std::env::var_os("BANGER_TEST_FIRECRACKER")
        .map_or_else(|| target.join("firecracker/1.12.1"), |named| chosen(Path::new(&named)));
    if dir.join("firecracker").is_file() && dir.join("jailer").is_file() {
        return Some(dir);
    }
    skipped("Firecracker is missing; 'cargo xtask setup' fetches it")
}

fn skipped<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
    None
}

/// Returns the folder of a Firecracker that was named. One that lacks a program is no reason to test
/// another.
fn chosen(named: &Path) -> PathBuf {
    let dir = if named.is_file() { named.parent().unwrap_or(named) } else { named };
    for name in ["firecracker", "jailer"] {
        let path = dir.join(name);
        assert!(path.is_file(), "BANGER_TEST_FIRECRACKER: there is no '{}'", path.display());
    }
    dir.canonicalize().expect("a folder that is there")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(sandbox: &Sandbox, script: &str) -> Answer {
        sandbox.run("/bin/sh", &["-c", script])
    }

    #[test]
    fn documents_and_statuses_are_read() {
        let sandbox = Sandbox::new();
        let answer = shell(&sandbox, r#"echo '{"schema":"banger.x/1","home":"'$HOME'"}'"#);
        assert_eq!(answer.document()["home"], sandbox.home().to_str().expect("text"));
        assert_eq!(sandbox.raw("/bin/sh", &["-c", "kill -9 $$"]).status, 137);
        assert_eq!(sandbox.feed("/bin/cat", &["-"], b"abc\0").stdout, b"abc\0");
        shell(
            &sandbox,
            r#"echo 'x: no VM' >&2; echo '{"schema":"banger.error/1","kind":"not-found","message":"no VM"}'; exit 3"#,
        )
        .fails(3, "no VM");
    }

    #[test]
    fn a_firecracker_is_named_by_its_folder_or_itself() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["firecracker", "jailer"] {
            fs::write(dir.path().join(name), "").expect("a file");
        }
        let folder = dir.path().canonicalize().expect("a folder");
        assert_eq!(chosen(dir.path()), folder);
        assert_eq!(chosen(&dir.path().join("firecracker")), folder);
    }

    #[test]
    #[should_panic(expected = "there is no '/nowhere/firecracker'")]
    fn a_firecracker_that_is_named_and_not_there_fails_a_test() {
        chosen(Path::new("/nowhere"));
    }

    #[test]
    #[should_panic(expected = "no document")]
    fn words_on_stdout_fail_a_test() {
        let _ = shell(&Sandbox::new(), "echo hello");
    }

    #[test]
    #[should_panic(expected = "still running")]
    fn a_hung_program_is_ended() {
        let sandbox = Sandbox::new();
        sandbox.set_limit(Duration::from_millis(200));
        let _ = shell(&sandbox, "sleep 50 & sleep 50");
    }

    #[test]
    fn planted_objects_are_whole() {
        let sandbox = Sandbox::new();
        sandbox.plant_image("alpine");
        sandbox.plant_kernel("generic-6.12");
        sandbox.plant_vm("web", "alpine", "generic-6.12");
        let disk = sandbox.state().join("images/alpine/rootfs.ext4");
        sandbox.raw("/usr/sbin/e2fsck", &["-fn", disk.to_str().expect("text")]).ok();
        let initramfs = fs::read(sandbox.state().join("kernels/generic-6.12/initramfs.cpio"));
        assert_eq!(initramfs.expect("an initramfs").len() % 4, 0);
    }
}
