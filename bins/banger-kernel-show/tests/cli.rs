//! The contract of `banger-kernel-show`.

use banger_tests::Sandbox;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-kernel-show");

#[test]
fn kernels_are_shown_as_they_are_recorded() {
    let sandbox = Sandbox::new();
    let one = sandbox.plant_kernel("generic-6.12");
    let two = sandbox.plant_kernel("mine");
    let answer = sandbox.run(PROGRAM, &["mine", "generic-6.12", "mine"]);
    assert_eq!(answer.ok().documents, [two, one]);
}

#[test]
fn what_is_not_there_is_not_found_and_does_not_hide_the_others() {
    let sandbox = Sandbox::new();
    sandbox.run(PROGRAM, &["x"]).fails(3, "no state at");
    sandbox.plant_kernel("mine");
    let answer = sandbox.run(PROGRAM, &["x", "mine"]);
    answer.fails(3, "no kernel 'x'");
    assert_eq!(answer.documents[0]["name"], "mine");
    sandbox.run(PROGRAM, &[]).fails(2, "is missing");
    sandbox.run(PROGRAM, &["../x"]).fails(2, "is not a name");
}
