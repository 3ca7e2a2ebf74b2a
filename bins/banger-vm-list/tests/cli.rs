//! The contract of `banger-vm-list`.

use banger_tests::Sandbox;
use std::fs;

const LIST: &str = env!("CARGO_BIN_EXE_banger-vm-list");

#[test]
fn a_state_that_is_a_file_is_no_empty_one() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.state(), "").unwrap();
    let answer = sandbox.run(LIST, &[]);
    answer.fails(1, "is no directory");
    assert!(answer.stderr.contains("hint: BANGER_STATE names"), "{}", answer.all());
}

#[test]
fn without_a_state_there_is_nothing_to_list() {
    let sandbox = Sandbox::new();
    assert!(sandbox.run(LIST, &[]).ok().documents.is_empty());
    assert!(!sandbox.state().exists(), "a listing makes nothing");
}

#[test]
fn what_stdout_is_can_be_chosen_for_a_pipe_and_a_terminal() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let run = |words: &[&str], format: &str| {
        sandbox.raw_with(LIST, words, |command| {
            command.env("BANGER_FORMAT", format);
        })
    };
    let is_table = |words: &[&str], format: &str| {
        let text = run(words, format).ok().text();
        assert_eq!(text.lines().count(), if text.starts_with('{') { 1 } else { 2 }, "{text}");
        text.starts_with("NAME ")
    };
    assert!(!is_table(&[], ""));
    assert!(is_table(&["--format", "table"], ""));
    assert!(is_table(&["-a", "--format=table"], ""));
    assert!(is_table(&[], "table"));
    assert!(!is_table(&["--json"], "table"));
    assert!(!is_table(&["--format", "json"], "table"));
    // The last one counts.
    assert!(is_table(&["--json", "--format", "table"], ""));
    assert!(!is_table(&["--format", "table", "--json"], ""));
    run(&["--format", "yaml"], "").fails(2, "'yaml' is no format");
    let answer = run(&[], "wide");
    answer.fails(2, "'wide' is no format");
    answer.fails(2, "hint: BANGER_FORMAT takes table or json");
    // A program of banger's own that asks gets documents.
    let answer = sandbox.raw_with(LIST, &[], |command| {
        command.env("BANGER_FORMAT", "table").env("BANGER_CALLED", "1");
    });
    assert!(answer.ok().text().starts_with('{'));
    let shown = sandbox.terminal(&format!("{LIST} --format json"), 80, |_| {});
    assert!(shown.ok().text().starts_with('{'), "{}", shown.text());
}

#[test]
fn a_state_that_cannot_be_read_is_no_empty_one() {
    let sandbox = Sandbox::new();
    let answer = sandbox.raw_with(LIST, &[], |command| {
        // A path through a file: the same to root as to anybody else.
        command.env("BANGER_STATE", "/etc/passwd/state");
    });
    answer.fails(1, "cannot read the state at '/etc/passwd/state'");
    answer.fails(1, "hint: BANGER_STATE names");
}

#[test]
fn each_vm_is_a_document_with_its_computed_status() {
    let sandbox = Sandbox::new();
    for (name, exit) in [("a", ""), ("b", "stopped"), ("c", "vmm-ended"), ("d", "killed")] {
        sandbox.plant_vm(name, "alpine", "generic-6.12");
        if !exit.is_empty() {
            sandbox.plant_exit(name, exit);
        }
    }
    // What a killed supervisor leaves.
    fs::write(sandbox.vm("b").join("running.json"), "half a docum").unwrap();
    let answer = sandbox.run(LIST, &[]);
    let seen: Vec<String> = answer
        .ok()
        .documents
        .iter()
        .map(|d| format!("{} {}", d["name"].as_str().unwrap(), d["status"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, ["a created", "b error", "c error", "d stopped"]);
    assert!(sandbox.run(LIST, &["--running"]).ok().documents.is_empty());
}

#[test]
fn a_broken_record_is_said_and_the_others_are_listed() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("a", "alpine", "generic-6.12");
    sandbox.plant_vm("b", "alpine", "generic-6.12");
    fs::write(sandbox.vm("a").join("vm.json"), "{}").unwrap();
    let answer = sandbox.run(LIST, &[]);
    answer.fails(1, "cannot read VM 'a'");
    assert_eq!(answer.documents[0]["name"], "b");
}

#[test]
fn a_vm_that_cannot_be_looked_at_is_said_and_the_others_are_listed() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    std::os::unix::fs::symlink("loop", sandbox.state().join("vms/loop")).unwrap();
    let answer = sandbox.run(LIST, &[]);
    answer.fails(1, "vms/loop");
    assert_eq!(answer.documents[0]["name"], "web", "{}", answer.all());
}

#[test]
fn folders_that_are_no_vms_are_not_listed() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("a", "alpine", "generic-6.12");
    fs::create_dir(sandbox.state().join("vms/.new-b-1")).unwrap();
    fs::create_dir(sandbox.state().join("vms/half")).unwrap();
    assert_eq!(sandbox.run(LIST, &[]).ok().documents.len(), 1);
}

#[test]
fn a_person_who_has_no_vm_is_told_how_to_get_one() {
    let sandbox = Sandbox::new();
    let on_terminal =
        |words: &str| sandbox.terminal(&format!("'{LIST}' {words}"), 100, |_| {}).ok().all();
    for _ in 0..2 {
        let said = on_terminal("");
        assert!(said.contains("no VMs; 'banger vm run' makes one\n"), "{said}");
        assert!(!on_terminal("--quiet").contains("makes one"));
        assert!(!on_terminal("--json").contains("makes one"));
        assert!(!sandbox.run(LIST, &[]).ok().all().contains("makes one"));
        sandbox.plant_vm("web", "alpine", "generic-6.12");
        assert!(!on_terminal("").contains("makes one"));
        assert!(on_terminal("--running").contains("'banger vm list' lists all"));
        fs::remove_dir_all(sandbox.vm("web")).unwrap();
    }
}
