//! The contract of `banger-ssh-proxy`.

use banger_tests::Sandbox;
use std::fs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-ssh-proxy");

#[test]
fn a_vm_is_named_with_or_without_its_ending() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    for name in ["web", "web.vm"] {
        let answer = sandbox.raw(PROGRAM, &[name]);
        assert_eq!(answer.status, 125);
        assert!(answer.stderr.contains("VM 'web' is created"), "{}", answer.stderr);
        assert!(answer.stdout.is_empty());
    }
}

#[test]
fn the_host_key_is_the_one_made_with_the_vm() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let answer = sandbox.raw(PROGRAM, &["--known-host", "web.vm"]);
    assert_eq!(answer.status, 125);
    assert!(answer.stderr.contains("no host key"), "{}", answer.stderr);
    let dir = sandbox.vm("web").join("ssh");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("known_host"), "web.vm ssh-ed25519 AAAA web.vm\n").unwrap();
    for name in ["web", "web.vm", "[web.vm]:2222"] {
        let answer = sandbox.raw(PROGRAM, &["--known-host", name]);
        assert_eq!(answer.ok().stdout, b"* ssh-ed25519 AAAA web.vm\n", "{name}");
    }
    for name in ["[web.vm]:", "[web.vm]", "[[web.vm]:1]:2", "[web.vm]:99999"] {
        assert_eq!(sandbox.raw(PROGRAM, &["--known-host", name]).status, 2, "{name}");
    }
}

#[test]
fn wrong_names_and_absent_vms_are_its_own_failures() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    assert_eq!(sandbox.raw(PROGRAM, &["nobody.vm"]).status, 125);
    assert_eq!(sandbox.raw(PROGRAM, &["../web"]).status, 2);
    assert_eq!(sandbox.raw(PROGRAM, &[]).status, 2);
}
