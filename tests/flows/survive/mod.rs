//! A state that survives anything: programs killed and refused at every point, a full disk, many at
//! once, random orders.
//!
//! The tests here try one point of each kind, and for a minute; `cargo xtask soak` has them try all,
//! and longer: it sets `BANGER_SOAK`.

mod case;
mod fault;
mod kill;
mod load;
mod model;
mod state;
mod trace;

use banger_tests::{Answer, Sandbox, program};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use trace::Stage;

/// Says whether everything is to be tried, not a selection.
pub(crate) fn soak() -> bool {
    std::env::var_os("BANGER_SOAK").is_some()
}

/// Keeps what tests found, for whoever runs them: nextest shows it with `--no-capture`, and a test
/// that fails with what it says.
pub(crate) fn say(words: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{words}");
}

/// Has the sandbox's QEMU hold its guest before the first instruction: all of a VM is there, and it
/// costs no time.
fn hold_guests(sandbox: &Sandbox) {
    let path = sandbox.dir().join("held-qemu");
    let real = format!("qemu-system-{}", std::env::consts::ARCH);
    fs::write(&path, format!("#!/bin/sh\nexec {real} \"$@\" -S\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    sandbox.config(&format!("[binaries]\nqemu = \"{}\"\n", path.display()));
}

/// Creates a VM that needs no more than it must.
fn create(sandbox: &Sandbox, name: &str, image: &str) -> Answer {
    let words = [
        "--no-start",
        "--image",
        image,
        "--kernel",
        "generic-6.12",
        "--name",
        name,
        "--memory",
        "64M",
        "--net",
        "none",
        "--ports",
        "auto",
        "--disk-size",
        "16M",
        "--overlay-size",
        "16M",
        "--vmm",
        "qemu",
    ];
    sandbox.run(program("banger-vm-create"), &words)
}

/// Copies a state, holes as holes.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let mut command = Command::new("cp");
    command.args(["-a", "--sparse=always"]).arg(from).arg(to);
    let ended = banger_tests::run_bounded(&mut command, None, Duration::from_mins(1));
    assert_eq!(ended.status, 0, "{}", String::from_utf8_lossy(&ended.stderr));
}

/// Asks `doctor` whether the state is valid. Nothing else of the host is of interest, so it finds
/// no tools, which is quicker.
fn must_be_valid(sandbox: &Sandbox, after: &str) {
    let answer = sandbox.with(program("banger-doctor"), &[], |command| {
        command.env("PATH", "/nonexistent");
    });
    let state = answer.documents.iter().find(|check| check["name"] == "state");
    let outcome = state.map(|check| check["outcome"].clone()).unwrap_or_default();
    assert_eq!(outcome, "pass", "the state after {after}: {}", answer.all());
}

/// Runs `gc`; returns what it removes of this state. Root's removes control groups of other states'
/// VMs too, such as one that is just ending; held guests have none.
fn swept(sandbox: &Sandbox) -> Vec<serde_json::Value> {
    let swept = sandbox.run(program("banger-gc"), &[]);
    let mut removed = swept.ok().documents.clone();
    removed.retain(|one| one["what"] != "control group");
    removed
}

/// A folder of a test's own that ends with it.
fn folder(sandbox: &Sandbox, name: &str) -> PathBuf {
    let path = sandbox.dir().join(name);
    fs::create_dir_all(&path).expect("a folder");
    path
}

/// Starts the held VM, waits until its VMM is there, stops it; returns what the stop said.
fn start_and_stop(sandbox: &Sandbox, stage: &Stage) -> Answer {
    let start = begin(sandbox, stage, "banger-vm-start", &["web"]);
    stop(sandbox, stage, vec![start])
}

/// Starts the held VM, starts it anew, stops it; returns what the stop said.
fn restart_and_stop(sandbox: &Sandbox, stage: &Stage) -> Answer {
    let start = begin(sandbox, stage, "banger-vm-start", &["web"]);
    let again = begin(sandbox, stage, "banger-vm-restart", &["web", "--timeout", "1"]);
    stop(sandbox, stage, vec![start, again])
}

/// Has a program start the held VM; returns it when a new VMM is there. It waits on, for the guest
/// never comes up.
fn begin(sandbox: &Sandbox, stage: &Stage, name: &str, words: &[&str]) -> Child {
    let running = || -> serde_json::Value {
        let text = fs::read(sandbox.vm("web").join("running.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    };
    // Of the run before, or what a supervisor that was killed left behind.
    let before = running()["supervisor"].clone();
    let mut start = sandbox.command(stage.program(name));
    start.args(words).stdout(Stdio::null()).stderr(Stdio::null());
    let mut start = start.spawn().expect("a start");
    let end = Instant::now() + Duration::from_secs(30);
    // Until the guest would run, or the start has failed.
    loop {
        let now = running();
        let there = now["vmm_process"].is_object() && now["supervisor"] != before;
        if there || start.try_wait().expect("its status").is_some() {
            return start;
        }
        assert!(Instant::now() < end, "a start neither ends nor gets on");
        sleep(Duration::from_millis(2));
    }
}

/// Stops the held VM, and sees whoever waited for it end; returns what the stop said.
fn stop(sandbox: &Sandbox, stage: &Stage, waiting: Vec<Child>) -> Answer {
    let stop = sandbox.run(stage.program("banger-vm-stop"), &["web", "--timeout", "1"]);
    // A stop that was killed leaves a VM that runs; nobody may be left when the next point comes.
    sandbox.run(program("banger-vm-kill"), &["web"]).ok();
    let end = Instant::now() + Duration::from_secs(30);
    for mut child in waiting {
        while child.try_wait().expect("its status").is_none() {
            assert!(Instant::now() < end, "a start does not see that the run has ended");
            sleep(Duration::from_millis(2));
        }
    }
    stop
}
