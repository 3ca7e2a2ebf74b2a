//! What dies must leave a right answer and nothing else.

use crate::guest::Guest;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

#[test]
fn a_killed_vmm_or_supervisor_leaves_the_truth_and_nothing_else() {
    let guest = Guest::boot("busybox:1", &["sh", "-c"]);
    guest.says("echo kept > /root/kept; sync");

    // The VMM: its supervisor sees it at once.
    let pids = guest.pids();
    kill_role(&guest, "vmm_process");
    guest.wait_for("error", Duration::from_secs(10));
    let exit = guest.view()["last_exit"].clone();
    assert_eq!(exit["reason"], "vmm-ended", "{exit}");
    assert_eq!(exit["vmm_signal"], 9, "{exit}");
    guest.nothing_remains(&pids);
    guest.exec(&["true"]).fails(125, "is error");

    // It starts again, with what was synced.
    guest.run("vm-start", &["web"]).ok();
    assert_eq!(guest.says("cat /root/kept"), "kept\n");

    // The supervisor: the kernel takes its lock back and ends all it started.
    let pids = guest.pids();
    assert!(pids.len() >= 2, "{}", guest.view());
    let supervisor = kill_role(&guest, "supervisor");
    gone(supervisor);
    assert_eq!(guest.status(), "error");
    guest.nothing_remains(&pids);
    guest.run("vm-start", &["web"]).ok();
    assert_eq!(guest.says("cat /root/kept"), "kept\n");

    // A guest that only says that it has halted goes on; of one that has, no VMM knows.
    guest.says("echo '[    9.9] reboot: System halted' > /dev/console; sleep 7; echo still here");
    assert_eq!(guest.status(), "running");
    let pids = guest.pids();
    assert_ne!(guest.exec(&["busybox", "halt", "-f"]).status, 0);
    guest.wait_for("stopped", Duration::from_secs(30));
    let exit = guest.view()["last_exit"].clone();
    assert_eq!(exit["reason"], "guest-shutdown", "{exit}");
    guest.nothing_remains(&pids);
    guest.run("vm-start", &["web"]).ok();

    // A kill asked for is an orderly end.
    let pids = guest.pids();
    guest.run("vm-kill", &["web"]).ok();
    assert_eq!(guest.status(), "stopped");
    guest.nothing_remains(&pids);
    guest.run("gc", &[]).ok();
    let run = guest.folder().join("run");
    let left: Vec<_> = fs::read_dir(&run).into_iter().flatten().flatten().collect();
    assert!(
        left.iter().all(|file| !file.path().to_string_lossy().ends_with(".sock")),
        "sockets are left: {left:?}"
    );
    guest.run("vm-delete", &["web"]).ok();
    assert!(!guest.folder().exists());
}

fn kill_role(guest: &Guest, role: &str) -> i64 {
    let view = guest.view();
    let pid = view["running"][role]["pid"].as_i64().unwrap_or_else(|| panic!("no {role}: {view}"));
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("kill");
    pid
}

/// Waits until nothing of a process runs, whether or not somebody has asked how it ended: its first
/// thread may have ended before others that have its files open.
fn gone(pid: i64) {
    let end = Instant::now() + Duration::from_secs(10);
    let place = format!("/proc/{pid}");
    let lives = || {
        let stat = fs::read_to_string(format!("{place}/stat")).unwrap_or_default();
        let runs = |(_, rest): (&str, &str)| !rest.starts_with(['Z', 'X']);
        let threads = fs::read_dir(format!("{place}/task")).map_or(0, Iterator::count);
        threads > 1 || stat.rsplit_once(") ").is_some_and(runs)
    };
    while lives() {
        assert!(Instant::now() < end, "{pid} does not end");
        sleep(Duration::from_millis(1));
    }
}
