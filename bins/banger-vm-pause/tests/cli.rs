//! The contract of `banger-vm-pause`. A booted guest becomes paused in the flows.

use banger_tests::Sandbox;
use std::fs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-vm-pause");

fn planted() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox
}

#[test]
fn a_vm_that_is_not_there_is_not_found() {
    planted().run(PROGRAM, &["nope"]).fails(3, "no VM 'nope'");
}

#[test]
fn a_vm_that_does_not_run_is_a_conflict() {
    planted().run(PROGRAM, &["web"]).fails(4, "is created");
}

#[test]
fn what_is_no_name_is_a_usage_error() {
    let sandbox = planted();
    sandbox.run(PROGRAM, &["../x"]).fails(2, "../x");
    sandbox.run(PROGRAM, &[]).fails(2, "is missing");
}

#[test]
fn a_vm_that_was_asked_to_stop_is_not_held_instead() {
    let sandbox = planted();
    let folder = sandbox.vm("web");
    let running = r#"{"schema":"banger.running/1","phase":"ready","supervisor":{"pid":4194999,"start_ticks":1},
        "vmm":"qemu","accelerator":"tcg","started_unix_ms":1}"#;
    let wanted = r#"{"schema":"banger.wanted/1","desire":"stopped","grace_ms":1000}"#;
    fs::write(folder.join("running.json"), running).expect("a file");
    fs::write(folder.join("wanted.json"), wanted).expect("a file");
    // Its lock is held, as by a supervisor.
    let command = format!("exec flock {} {PROGRAM} web", folder.join("lock").display());
    let answer = sandbox.run("/bin/sh", &["-c", &command]);
    answer.fails(4, "is being stopped");
    assert!(answer.stderr.contains("banger vm wait --for stopped web"), "{}", answer.all());
    assert_eq!(fs::read_to_string(folder.join("wanted.json")).expect("a file"), wanted);
}

#[test]
fn what_the_supervisor_refuses_is_said_at_once() {
    let sandbox = planted();
    let folder = sandbox.vm("web");
    let running = |refused: &str| {
        format!(
            r#"{{"schema":"banger.running/1","phase":"ready","supervisor":{{"pid":4194999,"start_ticks":1}},
            "vmm":"firecracker","accelerator":"kvm","started_unix_ms":1{refused}}}"#
        )
    };
    let refused = |at: u32| {
        let words = r#""kind":"unavailable","message":"on Firecracker 1.16.1 a VM cannot be paused","hint":"let it run""#;
        format!(r#","refused":{{"desire":"paused","refused_unix_ms":{at},{words}}}"#)
    };
    // What was refused before, when something else asked, is no answer.
    fs::write(folder.join("running.json"), running(&refused(1))).expect("a file");
    fs::write(folder.join("answer"), running(&refused(2))).expect("a file");
    let script = r#"cd "$1"; exec 9>>lock; flock 9
        until grep -q '"paused"' wanted.json 2>/dev/null; do sleep 0.05; done
        sleep 0.3; mv answer running.json; sleep 5"#;
    let mut supervisor = sandbox.command("/bin/bash");
    supervisor.args(["-c", script, "bash"]).arg(&folder);
    let mut supervisor = supervisor.spawn().expect("bash");
    let taken = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while sandbox.raw("flock", &["-n", folder.join("lock").to_str().expect("text"), "true"]).status
        == 0
    {
        assert!(std::time::Instant::now() < taken, "nobody holds the lock");
    }
    let began = std::time::Instant::now();
    let answer = sandbox.run(PROGRAM, &["web"]);
    let took = began.elapsed();
    supervisor.kill().expect("it lives");
    supervisor.wait().expect("it ends");
    answer.fails(5, "VM 'web' cannot be paused: on Firecracker 1.16.1 a VM cannot be paused");
    assert!(answer.stderr.contains("hint: let it run"), "{}", answer.all());
    assert!(took.as_secs() < 5, "{took:?}");
    // Nobody wants it any more: another request would hold the VM still then.
    let wanted = fs::read_to_string(folder.join("wanted.json")).expect("a request");
    assert!(wanted.contains("\"running\""), "{wanted}");
}
