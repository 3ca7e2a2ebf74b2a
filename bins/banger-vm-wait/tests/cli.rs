//! The contract of `banger-vm-wait`, with a supervisor that is only played.

use banger_tests::Sandbox;
use serde_json::json;
use std::time::Duration;

const WAIT: &str = env!("CARGO_BIN_EXE_banger-vm-wait");

#[test]
fn a_vm_that_does_not_run_is_stopped_and_waited_for_in_vain() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let answer = sandbox.run(WAIT, &["--for", "stopped", "web"]);
    assert_eq!(answer.document()["status"], "created");
    let answer = sandbox.run(WAIT, &["web"]);
    answer.fails(4, "so it will not come up");
    assert!(answer.took < Duration::from_secs(20));
}

#[test]
fn each_mark_is_waited_for() {
    let sandbox = Sandbox::new();
    let waits = json!({ "booted": "no", "waits_for": ["a.service", "b.service"] });
    let _slow = sandbox.plant_running("slow", &waits);
    sandbox.run(WAIT, &["--for", "agent", "slow"]).ok();
    let late =
        "VM 'slow' has not finished booting after 1 s: it waits for 'a.service', 'b.service'";
    sandbox.run(WAIT, &["--timeout", "1", "slow"]).fails(1, late);
    sandbox.run(WAIT, &["--timeout", "1", "--for", "stopped", "slow"]).fails(1, "is not stopped");
    // One that failed in part, and one of which nobody can tell, keep nobody waiting.
    for booted in ["yes", "degraded", "unknown"] {
        let _done = sandbox.plant_running(booted, &json!({ "booted": booted }));
        let answer = sandbox.run(WAIT, &[booted]);
        assert_eq!(answer.document()["running"]["booted"], booted);
    }
    // One that is held still gets nowhere.
    let _held = sandbox.plant_running("held", &json!({ "phase": "paused" }));
    let answer = sandbox.run(WAIT, &["--timeout", "60", "held"]);
    answer.fails(4, "VM 'held' is paused, so it gets no further");
    assert!(answer.stderr.contains("'banger vm resume held'"), "{}", answer.all());
    assert!(answer.took < Duration::from_secs(30));
    let _early = sandbox.plant_running("early", &json!({ "phase": "booting", "agent_ms": null }));
    let late = "the agent of VM 'early' does not answer after 1 s";
    sandbox.run(WAIT, &["--timeout", "1", "--for", "agent", "early"]).fails(1, late);
}

#[test]
fn the_command_line_is_checked() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox
        .run(WAIT, &["--for", "lunch", "web"])
        .fails(2, "'lunch' is none of agent, booted, stopped");
    sandbox.run(WAIT, &["--timeout", "0", "web"]).fails(2, "--timeout");
    sandbox.run(WAIT, &["nobody"]).fails(3, "no VM 'nobody'");
}
