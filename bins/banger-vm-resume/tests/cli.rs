//! The contract of `banger-vm-resume`. A booted guest becomes running in the flows.

use banger_tests::Sandbox;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-vm-resume");

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
