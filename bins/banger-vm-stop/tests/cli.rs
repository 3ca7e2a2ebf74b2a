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
fn a_person_sees_what_is_waited_for_and_how_long_it_took() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let folder = sandbox.vm("web");
    // Its VMM is gone at once; what comes after that takes a moment.
    let running = r#"{"schema":"banger.running/1","phase":"ready","supervisor":{"pid":4194999,"start_ticks":1},
        "vmm_process":{"pid":4194998,"start_ticks":1},"vmm":"qemu","accelerator":"tcg","started_unix_ms":1}"#;
    let script = r#"cd "$1"; exec 9>>lock; flock 9; touch "$2"
        until grep -q stopped wanted.json 2>/dev/null; do sleep 0.05; done
        sleep 1; mv exit last-exit.json; rm running.json"#;
    let exit = r#"{"schema":"banger.exit/1","reason":"stopped","message":"it stopped as asked","disks_clean":true,"ended_unix_s":1}"#;
    let stop = || {
        std::fs::write(folder.join("running.json"), running).expect("a file");
        std::fs::write(folder.join("exit"), exit).expect("a file");
        let held = sandbox.dir().join("held");
        let mut supervisor = sandbox.command("/bin/bash");
        let mut supervisor =
            supervisor.args(["-c", script, "bash"]).args([&folder, &held]).spawn().expect("bash");
        let taken = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !held.exists() {
            assert!(std::time::Instant::now() < taken, "nobody holds the lock");
        }
        std::fs::remove_file(held).expect("a mark");
        // Both streams are the terminal's.
        let shown = sandbox.terminal(&format!("{PROGRAM} web 2>&1"), 80, |_| {});
        supervisor.wait().expect("it ends");
        shown
    };
    let shown = stop().ok().text();
    assert!(shown.contains("web: checking its disks, "), "{shown:?}");
    // What changed is gone when the last line comes.
    let last = shown.trim_end().rsplit('\n').next().expect("a line");
    assert!(last.contains("web: stopped in ") && last.trim_end().ends_with('s'), "{shown:?}");
    // One that does not run says how it ended.
    let shown = sandbox.terminal(&format!("{PROGRAM} web"), 80, |_| {});
    assert_eq!(shown.ok().text().trim_end(), "web: it stopped as asked");
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
