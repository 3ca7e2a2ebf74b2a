//! The contract of `banger-vm-prune`.

use banger_tests::Sandbox;

const PRUNE: &str = env!("CARGO_BIN_EXE_banger-vm-prune");

#[test]
fn nothing_to_delete_is_no_error() {
    let sandbox = Sandbox::new();
    assert!(sandbox.run(PRUNE, &[]).ok().documents.is_empty());
}

#[test]
fn without_a_terminal_it_does_not_guess() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let answer = sandbox.run(PRUNE, &[]);
    answer.fails(2, "nobody is there to ask");
    assert!(answer.stderr.contains("--force"));
    assert!(sandbox.vm("web").exists());
}

#[test]
fn those_that_do_not_run_go() {
    let sandbox = Sandbox::new();
    for name in ["a", "b", "c"] {
        sandbox.plant_vm(name, "alpine", "generic-6.12");
    }
    sandbox.plant_exit("b", "vmm-ended");
    let script = r#"test "$1" = --lose-work && shift; for vm; do echo '{"schema":"banger.removed/1","what":"vm","name":"'$vm'","freed_bytes":1}'; done"#;
    let program = sandbox.beside(PRUNE, &[("banger-vm-delete", script)]);
    // One that runs: its lock is held.
    let command = format!(
        "exec flock {} {} --force",
        sandbox.vm("c").join("lock").display(),
        program.display()
    );
    let answer = sandbox.run("/bin/sh", &["-c", &command]);
    let names: Vec<_> = answer.ok().documents.iter().map(|d| d["name"].clone()).collect();
    assert_eq!(names, ["a", "b"]);
}
