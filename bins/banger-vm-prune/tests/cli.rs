//! The contract of `banger-vm-prune`.

use banger_tests::{Sandbox, program};

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
    let script = r#"test "$1" != --lose-work || exit 9; for vm; do echo '{"schema":"banger.removed/1","what":"vm","name":"'$vm'","freed_bytes":1}'; done"#;
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

#[test]
fn not_asking_gives_no_work_away() {
    let sandbox = Sandbox::new();
    for name in ["a", "b", "c"] {
        sandbox.plant_vm(name, "alpine", "generic-6.12");
    }
    // Two hold work, and the guest cannot be asked: nobody knows what is in it.
    for name in ["b", "c"] {
        std::fs::create_dir_all(sandbox.vm(name).join("workspaces/0123456789abcdef")).unwrap();
        std::fs::write(sandbox.vm(name).join("workspaces/0123456789abcdef/workspace.json"), "{}")
            .unwrap();
    }
    let check = r#"for vm; do :; done; echo '{"schema":"banger.error/1","kind":"conflict","message":"VM '$vm' holds work"}'; exit 4"#;
    let delete = program("banger-vm-delete");
    sandbox.beside(delete.to_str().unwrap(), &[("banger-workspace-status", check)]);
    let prune = sandbox.beside(PRUNE, &[]);
    let answer = sandbox.run(&prune, &["-f"]);
    answer.fails(4, "VM b holds work");
    assert!(answer.all().contains("VM c holds work"), "each is named: {}", answer.all());
    assert!(!sandbox.vm("a").exists() && sandbox.vm("b").exists() && sandbox.vm("c").exists());
    sandbox.run(&prune, &["-f", "--keep-work"]).fails(2, "--keep-work");
    sandbox.run(&prune, &["-f", "--lose-work"]).ok();
    assert!(!sandbox.vm("b").exists() && !sandbox.vm("c").exists());
}

/// Runs it on a terminal of its own, where somebody types.
fn typed(sandbox: &Sandbox, program: &std::path::Path, typed: &str) -> banger_tests::Answer {
    let script = format!(
        "(sleep 1; printf '{typed}\\n'; sleep 1) | script -qec 'stty -echo; {}' /dev/null",
        program.display()
    );
    sandbox.raw("/bin/sh", &["-c", &script])
}

#[test]
fn somebody_at_a_terminal_sees_a_table_and_decides() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.plant_exit("web", "stopped");
    let delete = program("banger-vm-delete");
    let link = format!("exec {} \"$@\"", delete.display());
    let prune = sandbox.beside(PRUNE, &[("banger-vm-delete", &link)]);
    let no = typed(&sandbox, &prune, "");
    let text = no.ok().text().replace('\r', "");
    assert!(text.contains("NAME  STATUS   IMAGE   DISK\nweb   stopped  alpine  "), "{text}");
    assert!(text.contains("Delete 1 VM and its disks? [y/N] nothing was deleted"), "{text}");
    assert!(sandbox.vm("web").exists());
    let yes = typed(&sandbox, &prune, "y");
    assert!(yes.ok().text().contains("deleted VM 'web'"), "{}", yes.all());
    assert!(!sandbox.vm("web").exists());
}

#[test]
fn one_that_stays_does_not_hide_those_that_went() {
    let sandbox = Sandbox::new();
    for name in ["a", "b"] {
        sandbox.plant_vm(name, "alpine", "generic-6.12");
    }
    let script = r#"echo '{"schema":"banger.removed/1","what":"vm","name":"a","freed_bytes":1}'
        echo '{"schema":"banger.error/1","kind":"conflict","message":"VM b holds work"}'; exit 4"#;
    let prune = sandbox.beside(PRUNE, &[("banger-vm-delete", script)]);
    let answer = sandbox.run(prune, &["--force"]);
    answer.fails(4, "VM b holds work");
    assert_eq!(answer.documents[0]["name"], "a", "{}", answer.all());
}

#[test]
fn one_that_cannot_be_read_stays_and_is_named() {
    let sandbox = Sandbox::new();
    for name in ["a", "b"] {
        sandbox.plant_vm(name, "alpine", "generic-6.12");
    }
    std::fs::write(sandbox.vm("a").join("vm.json"), "half").unwrap();
    let prune = sandbox.beside(
        PRUNE,
        &[("banger-vm-delete", &format!("exec {} \"$@\"", program("banger-vm-delete").display()))],
    );
    let answer = sandbox.run(prune, &["--force"]);
    answer.fails(1, "cannot read VM 'a'");
    assert_eq!(answer.documents[0]["name"], "b", "{}", answer.all());
    assert!(sandbox.vm("a").exists() && !sandbox.vm("b").exists());
}
