//! Whatever of a VM is killed, at whatever moment: the state stays valid, nothing is left, and the
//! VM starts again.

use crate::fixture;
use banger_tests::{Sandbox, program};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

/// Moments after the supervisor's first word, over the start of the VMM and of the guest's kernel.
const MOMENTS_MS: [u64; 6] = [0, 5, 15, 40, 120, 600];

#[test]
fn a_start_can_be_killed_at_any_moment() {
    let vm = Vm::new();
    for role in ["supervisor", "stub", "vmm_process", "starter"] {
        for moment in MOMENTS_MS {
            vm.start_and_kill(role, Duration::from_millis(moment));
        }
    }
    vm.works();
}

#[test]
fn a_stop_can_be_killed_at_any_moment() {
    let vm = Vm::new();
    for moment in [0, 5, 20, 60, 120] {
        vm.sandbox.run(program("banger-vm-start"), &["web"]).ok();
        let pid = vm.running()["supervisor"]["pid"].clone();
        let mut stop = vm.spawn("banger-vm-stop");
        sleep(Duration::from_millis(moment));
        end(&pid);
        vm.comes_to_rest("a stop");
        // It waited for the run to end, however it ended.
        assert!(stop.wait().expect("its status").success(), "a stop after {moment} ms");
    }
    vm.works();
}

struct Vm {
    sandbox: Sandbox,
}

impl Vm {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.set_limit(Duration::from_mins(5));
        fixture::kernel(&sandbox);
        sandbox.plant_image("empty");
        let words = [
            "--image",
            "empty",
            "--name",
            "web",
            "--memory",
            "128M",
            "--net",
            "none",
            "--no-start",
        ];
        sandbox.run(program("banger-vm-create"), &words).ok();
        Self { sandbox }
    }

    fn folder(&self) -> PathBuf {
        self.sandbox.vm("web")
    }

    fn running(&self) -> Value {
        let text = fs::read(self.folder().join("running.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn spawn(&self, name: &str) -> std::process::Child {
        let mut command = self.sandbox.command(program(name));
        command.arg("web").stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("a program")
    }

    fn start_and_kill(&self, role: &str, moment: Duration) {
        // What the one killed before left behind.
        let before = self.running()["supervisor"].clone();
        let mut starter = self.spawn("banger-vm-start");
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            let now = self.running()["supervisor"].clone();
            if !now.is_null() && now != before {
                break;
            }
            assert!(Instant::now() < limit, "no supervisor says a word");
            sleep(Duration::from_millis(1));
        }
        sleep(moment);
        let what = format!("{role} after {moment:?}");
        let victim = self.running()[role]["pid"].clone();
        if role == "starter" {
            starter.kill().expect("kill");
            starter.wait().expect("its end");
        } else {
            end(&victim);
        }
        if victim.is_null() {
            // The VM does not depend on its starter; one that had not begun was not killed.
            self.sandbox.run(program("banger-vm-kill"), &["web"]).ok();
        }
        self.comes_to_rest(&what);
        // The starter notices, and says so.
        assert!(!starter.wait().expect("its status").success(), "{what}");
    }

    /// Checks that soon nobody is at work on the VM, and that everybody sees it so.
    fn comes_to_rest(&self, what: &str) {
        let limit = Instant::now() + Duration::from_secs(15);
        loop {
            let view = self.sandbox.run(program("banger-vm-show"), &["web"]).document().clone();
            let left = self.at_work();
            let status = view["status"].as_str().unwrap_or_default().to_owned();
            if left.is_empty() && ["created", "stopped", "error"].contains(&status.as_str()) {
                return;
            }
            assert!(Instant::now() < limit, "killed {what}: {status}, left {left:?}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Returns the processes whose directory is the VM's folder, its supervisor and what it starts,
    /// or that hold the lock of its disks, its VMM in a jail. One that has ended, and nobody waited
    /// for, has neither.
    fn at_work(&self) -> Vec<String> {
        let folder = self.folder();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let there = |path: PathBuf| fs::read_link(path).is_ok_and(|it| it.starts_with(&folder));
        entries
            .filter(|entry| ["cwd", "fd/0"].iter().any(|name| there(entry.path().join(name))))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Checks that it starts, stops with clean disks, and goes.
    fn works(&self) {
        let run = |name: &str, words: &[&str]| self.sandbox.run(program(name), words);
        run("banger-vm-start", &["web"]).ok();
        let view = run("banger-vm-stop", &["web"]).document().clone();
        assert_eq!(view["last_exit"]["reason"], "stopped", "{view}");
        assert_eq!(view["last_exit"]["disks_clean"], true, "{view}");
        for disk in ["overlay.ext4", "work.ext4"] {
            let path = self.folder().join(disk);
            self.sandbox.raw("/usr/sbin/e2fsck", &["-fn", path.to_str().expect("text")]).ok();
        }
        run("banger-vm-delete", &["web"]).ok();
        assert!(!self.folder().exists());
    }
}

fn end(pid: &Value) {
    if let Some(pid) = pid.as_i64().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}
