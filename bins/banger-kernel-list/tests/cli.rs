//! The contract of `banger-kernel-list`.

use banger_tests::Sandbox;
use std::fs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-kernel-list");

#[test]
fn no_state_is_an_empty_list_and_makes_none() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(PROGRAM, &[]).ok().documents.len(), 0);
    assert!(!sandbox.state().exists());
}

#[test]
fn kernels_are_listed_by_name() {
    let sandbox = Sandbox::new();
    sandbox.plant_kernel("mine");
    sandbox.plant_kernel("generic-6.12");
    fs::create_dir(sandbox.state().join("kernels/.new-x-1")).unwrap();
    let answer = sandbox.run(PROGRAM, &[]);
    let names: Vec<_> = answer.ok().documents.iter().map(|d| d["name"].clone()).collect();
    assert_eq!(names, ["generic-6.12", "mine"]);
}

#[test]
fn a_damaged_record_is_named() {
    let sandbox = Sandbox::new();
    sandbox.plant_kernel("mine");
    fs::write(sandbox.state().join("kernels/mine/kernel.json"), "{").unwrap();
    sandbox.run(PROGRAM, &[]).fails(1, "mine");
    sandbox.run(PROGRAM, &["extra"]).fails(2, "unexpected argument");
}
