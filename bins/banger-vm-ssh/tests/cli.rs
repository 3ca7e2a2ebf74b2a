//! The contract of `banger-vm-ssh`.

use banger_tests::{Sandbox, have};
use std::fs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-vm-ssh");

#[test]
fn a_vm_that_does_not_run_is_said_to_be_so() {
    if !have("ssh-keygen") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let dir = sandbox.vm("web").join("ssh");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("known_host"), "web.vm ssh-ed25519 AAAA web.vm\n").unwrap();
    sandbox.plant_vm("old", "alpine", "generic-6.12");
    for (name, words) in [("web", "VM 'web' is created"), ("old", "VM 'old'"), ("no", "no VM 'no'")]
    {
        let answer = sandbox.raw(PROGRAM, &[name, "--", "true"]);
        assert_eq!(answer.status, 125, "{}", answer.stderr);
        assert!(answer.stderr.contains(words), "{}", answer.stderr);
        assert!(answer.stdout.is_empty());
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.raw(PROGRAM, &[]).status, 2);
    assert_eq!(sandbox.raw(PROGRAM, &["web", "--timeout", "0"]).status, 2);
    assert_eq!(sandbox.raw(PROGRAM, &["-web"]).status, 2);
}
