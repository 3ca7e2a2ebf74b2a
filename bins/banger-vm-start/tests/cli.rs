//! The contract of `banger-vm-start`, with stand-ins for the supervisor. Flows have real VMs.

use banger_tests::Sandbox;
use std::{fs, path::PathBuf};

const START: &str = env!("CARGO_BIN_EXE_banger-vm-start");

/// A copy of the program with a supervisor of the test's beside it.
fn with_supervisor(sandbox: &Sandbox, script: &str) -> PathBuf {
    let script = format!("cd $BANGER_STATE/vms/$1\n{script}");
    sandbox.beside(START, &[("banger-vm-supervise", &script)])
}

/// `say PHASE PID [MORE]`: `running.json` says so; without more of it the guest has booted.
const RUNNING: &str = r#"say() { printf '{"schema":"banger.running/1","phase":"%s","supervisor":{"pid":%s,"start_ticks":1},"vmm":"qemu","accelerator":"kvm","started_unix_ms":1,%s}' "$1" "$2" "${3:-"\"booted\":\"yes\""}" > .r; mv .r running.json; }"#;

#[test]
fn it_waits_for_the_phase_its_own_supervisor_says() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let script = format!(
        "{RUNNING}\nexec >/dev/null 2>&1\nexec 9<>lock; flock 9\nsay ready 1\nsleep 0.2\nsay booting $$\nsleep 0.2\nsay ready $$\nsleep 20"
    );
    let program = with_supervisor(&sandbox, &script);
    let answer = sandbox.run(&program, &["web"]);
    assert_eq!(answer.document()["status"], "running");
    assert!(answer.took.as_millis() >= 400, "{:?}", answer.took);
    let wanted = fs::read_to_string(sandbox.vm("web").join("wanted.json")).unwrap();
    assert!(wanted.contains(r#""desire":"running""#), "{wanted}");
}

/// What the supervisor says of a guest whose boot waits for a disk.
const WAITS: &str =
    r#""agent_ms":5,"booted":"no","waits_for":["dev-vdz.device"],"notes":["slow host"]"#;

#[test]
fn it_waits_for_the_mark_it_is_told_to() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let degraded = r#""agent_ms":5,"booted_ms":9,"booted":"degraded","notes":["slow host","in the guest: the unit x failed"]"#;
    let script = format!(
        "{RUNNING}\nexec >/dev/null 2>&1\nexec 9<>lock; flock 9\nsay ready $$ '{WAITS}'\nsleep 0.5\n\
         say ready $$ '{degraded}'\nsleep 3"
    );
    let program = with_supervisor(&sandbox, &script);
    let answer = sandbox.run(&program, &["web"]);
    assert_eq!(answer.document()["running"]["booted"], "degraded", "{}", answer.all());
    // Each note is said once, whenever it came.
    assert_eq!(answer.stderr.matches("slow host").count(), 1, "{}", answer.all());
    assert!(answer.stderr.contains("in the guest: the unit x failed"), "{}", answer.all());

    sandbox.plant_vm("two", "alpine", "generic-6.12");
    let answer = sandbox.run(&program, &["--wait", "agent", "two"]);
    assert_eq!(answer.document()["running"]["booted"], "no", "{}", answer.all());
    // What is true of the host is said once, not at every start.
    assert!(!answer.stderr.contains("slow host"), "{}", answer.all());
    sandbox.run(&program, &["--wait", "lunch", "two"]).fails(2, "'lunch' is none of agent, booted");
}

#[test]
fn notes_about_the_host_are_one_line_said_once() {
    let sandbox = Sandbox::new();
    for name in ["quiet", "one", "two", "three"] {
        sandbox.plant_vm(name, "alpine", "generic-6.12");
    }
    let notes = |more: &str| {
        let notes =
            format!(r#""booted":"yes","notes":["slow host","weak\u001b[2J network"{more}]"#);
        let script = format!(
            "{RUNNING}\nexec >/dev/null 2>&1\nexec 9<>lock; flock 9\nsay ready $$ '{notes}'\nsleep 3"
        );
        with_supervisor(&sandbox, &script)
    };
    let program = notes("");
    // Nothing was said to who asked for silence.
    assert_eq!(sandbox.run(&program, &["-q", "quiet"]).stderr, "");
    let said = sandbox.run(&program, &["one"]).stderr;
    assert_eq!(said, "one: slow host; weak\\u{1b}[2J network\n");
    assert_eq!(sandbox.run(&program, &["two"]).stderr, "");
    // What is new is said, and what is about the guest each time.
    let program = notes(r#","new here","in the guest: x failed""#);
    let said = sandbox.run(&program, &["three"]).stderr;
    assert_eq!(said, "three: new here\nthree: in the guest: x failed\n");
}

#[test]
fn a_boot_that_does_not_end_names_what_it_waits_for() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let script = format!(
        "{RUNNING}\nexec >/dev/null 2>&1\nexec 9<>lock; flock 9\nsay ready $$ '{WAITS}'\nsleep 20"
    );
    let program = with_supervisor(&sandbox, &script);
    let answer = sandbox.run(&program, &["--timeout", "1", "web"]);
    answer.fails(
        1,
        "VM 'web' has not finished booting after 1 s: it waits for 'dev-vdz.device'; it is kept",
    );
    assert!(answer.stderr.contains("banger vm exec web"), "{}", answer.all());
}

#[test]
fn a_guest_that_does_not_come_up_is_kept_and_its_console_shown() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    // Its second begins when its supervisor's stdout is closed.
    let script = format!(
        "{RUNNING}\necho 'no such disk' > console.log\nexec >/dev/null 2>&1\nexec 9<>lock; flock 9\nsay booting $$\nsleep 20"
    );
    let program = with_supervisor(&sandbox, &script);
    let answer = sandbox.run(&program, &["--timeout", "1", "web"]);
    answer.fails(1, "did not come up within 1 s");
    assert!(answer.stderr.contains("no such disk"), "{answer:?}");
    assert!(answer.stderr.contains("banger vm logs web"), "{answer:?}");
}

#[test]
fn nobody_is_sent_to_a_console_that_is_empty() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let script =
        format!("{RUNNING}\nexec >/dev/null 2>&1\nexec 9<>lock; flock 9\nsay booting $$\nsleep 20");
    let program = with_supervisor(&sandbox, &script);
    let answer = sandbox.run(&program, &["--timeout", "1", "web"]);
    answer.fails(1, "its console is empty");
    assert!(!answer.stderr.contains("banger vm logs"), "{}", answer.all());
    assert!(answer.stderr.contains("'banger vm wait web' waits on; 'banger vm kill web'"));
}

#[test]
fn a_dumb_terminal_is_told_in_whole_lines() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let script =
        format!("{RUNNING}\nexec >/dev/null 2>&1\nexec 9<>lock; flock 9\nsay ready $$\nsleep 1");
    let program = with_supervisor(&sandbox, &script);
    let command = format!("TERM=dumb {} web 2>&1", program.display());
    let shown = sandbox.terminal(&command, 80, |_| {}).text();
    assert!(shown.starts_with("web: ready in "), "{shown:?}");
}

#[test]
fn a_run_that_ends_at_once_is_explained() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.plant_exit("web", "start-failed");
    let script = "exec >/dev/null 2>&1\ncp last-exit.json .e; mv .e last-exit.json";
    let program = with_supervisor(&sandbox, script);
    let answer = sandbox.run(&program, &["web"]);
    answer.fails(1, "planted: start-failed");
    assert!(answer.stderr.contains("planted console line"), "{answer:?}");
}

#[test]
fn how_an_earlier_run_ended_explains_nothing() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.plant_exit("web", "stopped");
    let program = with_supervisor(&sandbox, "exec >/dev/null 2>&1");
    sandbox.run(&program, &["web"]).fails(1, "ended unexpectedly");
}

#[test]
fn what_the_supervisor_reports_is_passed_on() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let report = r#"{"schema":"banger.error/1","kind":"conflict","message":"VM 'web' is running"}"#;
    let program = with_supervisor(&sandbox, &format!("cat <<'X'\n{report}\nX\nexit 4"));
    sandbox.run(&program, &["web"]).fails(4, "VM 'web' is running");
}

#[test]
fn a_vm_that_runs_is_a_conflict() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let script = format!("exec flock {0} {START} web", sandbox.vm("web").join("lock").display());
    sandbox.run("/bin/sh", &["-c", &script]).fails(4, "VM 'web' is running");
}

#[test]
fn unknown_names_are_not_found() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.run(START, &["nobody"]).fails(3, "no VM 'nobody'");
    sandbox.run(START, &[]).fails(2, "VM");
    sandbox.run(START, &["web", "--timeout", "0"]).fails(2, "--timeout");
}
