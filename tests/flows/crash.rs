//! What dies must leave a right answer and nothing else.

use crate::guest::Guest;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::time::Duration;

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
    kill_role(&guest, "supervisor");
    guest.wait_for("error", Duration::from_secs(10));
    guest.nothing_remains(&pids);
    guest.run("vm-start", &["web"]).ok();
    assert_eq!(guest.says("cat /root/kept"), "kept\n");

    // A kill asked for is an orderly end.
    let pids = guest.pids();
    guest.run("vm-kill", &["web"]).ok();
    assert_eq!(guest.status(), "stopped");
    guest.nothing_remains(&pids);
    guest.run("gc", &[]).ok();
    let run = guest.folder().join("run");
    let left: Vec<_> = std::fs::read_dir(&run).into_iter().flatten().flatten().collect();
    assert!(
        left.iter().all(|file| !file.path().to_string_lossy().ends_with(".sock")),
        "sockets are left: {left:?}"
    );
    guest.run("vm-delete", &["web"]).ok();
    assert!(!guest.folder().exists());
}

fn kill_role(guest: &Guest, role: &str) {
    let view = guest.view();
    let pid = view["running"][role]["pid"].as_i64().unwrap_or_else(|| panic!("no {role}: {view}"));
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("kill");
}
