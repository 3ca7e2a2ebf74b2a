//! The contract of `banger-kernel-delete`.

use banger_tests::Sandbox;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-kernel-delete");

#[test]
fn a_kernel_goes_with_its_files() {
    let sandbox = Sandbox::new();
    let kernel = sandbox.plant_kernel("mine");
    let answer = sandbox.run(PROGRAM, &["mine"]);
    assert_eq!(answer.ok().documents, [kernel]);
    assert!(!sandbox.state().join("kernels/mine").exists());
    sandbox.run(PROGRAM, &["mine"]).fails(3, "no kernel 'mine'");
}

#[test]
fn a_kernel_of_a_vm_stays() {
    let sandbox = Sandbox::new();
    sandbox.plant_kernel("mine");
    sandbox.plant_image("alpine");
    sandbox.plant_vm("web", "alpine", "mine");
    sandbox.run(PROGRAM, &["mine"]).fails(4, "kernel 'mine' is used by 'web'");
    assert!(sandbox.state().join("kernels/mine/kernel.json").exists());
}
