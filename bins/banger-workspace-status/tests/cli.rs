//! What `banger-workspace-status` says without a guest; the rest is tested in `shared/workspace` and
//! in the flows.

use banger_tests::Sandbox;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-workspace-status");

#[test]
fn a_vm_that_is_not_there_is_not_found() {
    let sandbox = Sandbox::new();
    sandbox.run(PROGRAM, &["web"]).fails(3, "no VM 'web'");
}
