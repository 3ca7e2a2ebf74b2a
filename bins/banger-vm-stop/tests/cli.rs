//! The contract of `banger-vm-stop` where nothing runs. Flows have real VMs.

use banger_tests::Sandbox;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-vm-stop");

#[test]
fn a_vm_that_does_not_run_is_left_as_it_is() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.plant_vm("db", "alpine", "generic-6.12");
    sandbox.plant_exit("db", "vmm-ended");
    let answer = sandbox.run(PROGRAM, &["web", "db", "web"]);
    let seen: Vec<_> =
        answer.ok().documents.iter().map(|d| (d["name"].clone(), d["status"].clone())).collect();
    assert_eq!(seen, [("web".into(), "created".into()), ("db".into(), "error".into())]);
    assert!(!sandbox.vm("web").join("wanted.json").exists(), "nobody is there to ask");
}

#[test]
fn a_bad_name_does_not_keep_the_others_from_being_done() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let answer = sandbox.run(PROGRAM, &["nobody", "web"]);
    answer.fails(3, "no VM 'nobody'");
    assert_eq!(answer.documents[0]["name"], "web");
}

#[test]
fn the_command_line_is_checked() {
    let sandbox = Sandbox::new();
    sandbox.run(PROGRAM, &[]).fails(2, "VM");
    sandbox.run(PROGRAM, &["../x"]).fails(2, "is not a name");
}

#[test]
fn the_timeout_is_checked() {
    let sandbox = Sandbox::new();
    sandbox.run(PROGRAM, &["web", "--timeout", "0"]).fails(2, "--timeout");
    sandbox.run(PROGRAM, &["web", "--timeout", "soon"]).fails(2, "--timeout");
    sandbox.run(PROGRAM, &["web", "-t", "0"]).fails(2, "--timeout");
    sandbox.run(PROGRAM, &["web", "--time", "0"]).fails(2, "--timeout");
}

#[test]
fn all_are_those_that_run() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    assert!(sandbox.run(PROGRAM, &["--all", "-t", "5"]).ok().documents.is_empty());
    sandbox.run(PROGRAM, &["-a", "web"]).fails(2, "cannot be used with");
}
