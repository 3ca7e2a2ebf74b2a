//! The contract of `banger-vm-restart`, with stand-ins for the two programs it runs.

use banger_tests::Sandbox;
use std::fs;

const RESTART: &str = env!("CARGO_BIN_EXE_banger-vm-restart");

#[test]
fn it_stops_then_starts_each() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let view = r#"{"schema":"banger.view/1","status":"running","name":"web","id":"0","image":"a","kernel":"k","mac":"","created_unix_s":1,"spec":{"vcpu":1,"memory_mib":1,"overlay_bytes":1,"disk_bytes":1},"folder":"/"}"#;
    let log = sandbox.dir().join("log");
    let script = format!("echo ${{0##*/}} $* >> {}; echo '{view}'", log.display());
    let program =
        sandbox.beside(RESTART, &[("banger-vm-stop", &script), ("banger-vm-start", &script)]);
    let answer = sandbox.run(&program, &["web", "--timeout", "5", "web"]);
    assert_eq!(answer.document()["status"], "running");
    let said = fs::read_to_string(&log).unwrap();
    assert_eq!(said, "banger-vm-stop --timeout 5 web\nbanger-vm-start web\n");
    sandbox.run(&program, &["--wait", "agent", "--console", "web"]).ok();
    let said = fs::read_to_string(log).unwrap();
    assert!(said.ends_with("banger-vm-start --wait=agent --console web\n"), "{said}");

    let report =
        r#"echo '{"schema":"banger.error/1","kind":"not-found","message":"no VM"}'; exit 3"#;
    sandbox.beside(RESTART, &[("banger-vm-stop", report)]);
    sandbox.run(&program, &["web"]).fails(3, "no VM");
}

#[test]
fn the_command_line_is_checked() {
    let sandbox = Sandbox::new();
    sandbox.run(RESTART, &[]).fails(2, "VM");
    sandbox.run(RESTART, &["web", "--timeout", "0"]).fails(2, "--timeout");
}
