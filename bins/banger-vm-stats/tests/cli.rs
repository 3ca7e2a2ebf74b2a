//! The contract of `banger-vm-stats`: the real agent answers over the real channel, with this
//! machine in place of a guest, and a busy shell in place of VMM and supervisor.
#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_channel::bridge;
use banger_tests::{Running, Sandbox};
use serde_json::{Value, json};
use std::{fs, process::Child};

const STATS: &str = env!("CARGO_BIN_EXE_banger-vm-stats");

/// A VM whose lock is held, and whose VMM and supervisor are one process.
struct Live {
    running: Running,
    process: Child,
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn running(sandbox: &Sandbox, name: &str) -> Live {
    let process = sandbox.command("/bin/sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let start: u64 = stat.rsplit_once(')').unwrap().1.split(' ').nth(20).unwrap().parse().unwrap();
    let this = json!({ "pid": process.id(), "start_ticks": start });
    let running = sandbox.plant_running(name, &json!({ "supervisor": this, "vmm_process": this }));
    Live { running, process }
}

#[test]
fn a_running_vm_has_all_figures() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    let mut live = running(&sandbox, "web");
    live.running.start_agent(&sandbox, &json!({}), |listener, device| {
        drop(bridge::run(listener, bridge::Device::Port(device)));
    });
    let look = || {
        let answer = sandbox.run(STATS, &["web", "web"]);
        answer.ok();
        assert_eq!(answer.documents.len(), 1, "{}", answer.all());
        answer.document().clone()
    };
    // VMM and supervisor are one process here, so each millisecond counts twice. Where many others
    // work too, the process may have little of a processor for as long as a look takes.
    let is_busy = |stats: &Value| stats["host"]["cpu_percent"].as_f64().unwrap() > 20.0;
    let stats = (0..50).map(|_| look()).find(is_busy).expect("a busy one");
    assert_eq!((&stats["vm"], &stats["status"]), (&json!("web"), &json!("running")));
    assert!(stats["host"]["cpu_ms"].as_u64().unwrap() > 0, "{stats}");
    assert!(stats["host"]["vmm_memory_bytes"].as_u64().unwrap() > 1 << 16, "{stats}");
    assert!(stats["host"]["supervisor_memory_bytes"].as_u64().unwrap() > 1 << 16, "{stats}");
    let memory = fs::read_to_string("/proc/meminfo").unwrap();
    let kib: u64 = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(stats["guest"]["memory_total_bytes"], kib * 1024, "{stats}");
    assert!(stats["guest"]["memory_used_bytes"].as_u64().unwrap() < kib * 1024, "{stats}");
    assert!(stats["guest"]["cpu_percent"].as_f64().unwrap() > 5.0, "{stats}");
    assert!(stats["guest"]["disks"][0]["used_bytes"].as_u64().unwrap() > 0, "{stats}");
    assert!(stats["network"]["received_bytes"].is_u64(), "{stats}");
    assert!(stats["disk"]["exclusive_bytes"].as_u64().unwrap() < 1 << 20, "{stats}");
    assert!(stats["disk"]["shared_bytes"].as_u64().unwrap() > 0, "{stats}");
    assert!(stats["disk"]["apparent_bytes"].as_u64().unwrap() > 2 << 20, "{stats}");
}

#[test]
fn a_hostile_guest_is_cut_to_size_and_a_silent_one_is_absent() {
    let sandbox = Sandbox::new();
    let web = running(&sandbox, "web");
    let disk = r#"{"path":"/\u001b[2J","total_bytes":1,"free_bytes":9}"#;
    let disks = vec![disk; 100].join(",");
    web.running.pretend(
        format!(
            "{{\"memory_total_bytes\":1,\"memory_available_bytes\":18446744073709551615,\"load1\":0,\
             \"processes\":1,\"cpu_busy_ms\":18446744073709551615,\"cpu_idle_ms\":1,\"disks\":[{disks}]}}\n"
        ),
    );
    let answer = sandbox.run(STATS, &["web"]);
    let guest = answer.document()["guest"].clone();
    assert_eq!(guest["memory_used_bytes"], 0, "{guest}");
    assert_eq!(guest["disks"].as_array().unwrap().len(), 8);
    assert_eq!(guest["disks"][0], json!({"path": "/[2J", "total_bytes": 1, "used_bytes": 0}));

    let bad = running(&sandbox, "bad");
    bad.running.pretend("x".repeat(2 << 20));
    let answer = sandbox.run(STATS, &["bad"]);
    assert!(answer.document()["guest"].is_null(), "{}", answer.all());
    assert!(answer.document()["host"].is_object(), "{}", answer.all());
}

#[test]
fn without_names_those_that_run_and_of_others_the_disk() {
    let sandbox = Sandbox::new();
    assert!(sandbox.run(STATS, &[]).ok().documents.is_empty(), "no state is no error");
    sandbox.plant_vm("off", "alpine", "generic-6.12");
    assert!(sandbox.run(STATS, &[]).ok().documents.is_empty());
    let answer = sandbox.run(STATS, &["off"]);
    let stats = answer.document();
    assert_eq!(stats["status"], "created");
    assert!(stats["host"].is_null() && stats["guest"].is_null() && stats["network"].is_null());
    assert!(stats["disk"]["exclusive_bytes"].is_u64());
    // A bad name hides no good one, and decides the status.
    let answer = sandbox.run(STATS, &["nobody", "off"]);
    answer.fails(3, "no VM 'nobody'");
    assert!(answer.documents.iter().any(|one| one["vm"] == "off"), "{}", answer.all());
    sandbox.run(STATS, &["--interval", "1"]).fails(2, "--watch");
    sandbox.run(STATS, &["--watch", "--interval", "0"]).fails(2, "interval");
}

#[test]
fn watching_goes_on_until_nobody_listens() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("off", "alpine", "generic-6.12");
    // `head` goes away after three looks; the program then ends by itself.
    let script = format!("{STATS} --watch --interval 1 off | head -n 3");
    let answer = sandbox.run("/bin/sh", &["-c", &script]);
    assert_eq!(answer.ok().documents.len(), 3, "{}", answer.all());
    let shown =
        sandbox.terminal(&format!("timeout 8 {STATS} --watch --interval 1 off"), 120, |_| {});
    assert!(shown.text().matches("NAME").count() >= 2, "{}", shown.all());
}
