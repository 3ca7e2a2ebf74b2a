//! The contract of `banger-vm-wait` where nothing runs.

use banger_tests::Sandbox;
use std::time::Duration;

const WAIT: &str = env!("CARGO_BIN_EXE_banger-vm-wait");

#[test]
fn a_vm_that_does_not_run_is_stopped_and_will_not_be_ready() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let answer = sandbox.run(WAIT, &["--for", "stopped", "web"]);
    assert_eq!(answer.document()["status"], "created");
    let answer = sandbox.run(WAIT, &["web"]);
    answer.fails(4, "so it will not be ready");
    assert!(answer.took < Duration::from_secs(20));
}

#[test]
fn the_command_line_is_checked() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.run(WAIT, &["--for", "lunch", "web"]).fails(2, "'lunch' is none of");
    sandbox.run(WAIT, &["--timeout", "0", "web"]).fails(2, "--timeout");
    sandbox.run(WAIT, &["nobody"]).fails(3, "no VM 'nobody'");
}
