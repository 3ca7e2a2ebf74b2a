//! The contract of `banger-vm-ssh`.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_tests::{Running, Sandbox, have};
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

/// Plants a VM that runs as far as anybody can tell, whose agent answers each wish for a connection
/// with these words. Returns what holds its lock.
fn running(sandbox: &Sandbox, answer: &'static [u8]) -> Running {
    let running = sandbox.plant_running("web", &serde_json::json!({}));
    let folder = sandbox.vm("web");
    fs::create_dir(folder.join("ssh")).unwrap();
    fs::write(folder.join("ssh/known_host"), "web.vm ssh-ed25519 AAAA web.vm\n").unwrap();
    running.pretend(answer);
    running
}

#[test]
fn who_leaves_a_shell_is_told_that_the_vm_runs_on() {
    if !have("ssh-keygen") {
        return;
    }
    let sandbox = Sandbox::new();
    let _lock = running(&sandbox, b"ok\nSSH-2.0-OpenSSH_9.2\r\n");
    let ssh = sandbox.dir().join("ssh");
    sandbox.config(&format!("[binaries]\nssh = '{}'\n", ssh.display()));
    let typed = |status: &str, words: &str| {
        banger_tests::write_program(&ssh, &format!("#!/bin/sh\necho in; {status}\n"));
        let line = format!("exec </proc/self/fd/1 2>&1; {PROGRAM} {words}; echo status $?");
        sandbox.terminal(&line, 200, |_| {}).text()
    };
    let told =
        "VM 'web' runs on; 'banger vm ssh web' goes back into it, 'banger vm stop web' stops it";
    let text = typed("exit 7", "web");
    assert!(text.contains(told) && text.contains("status 7"), "{text}");
    // A shell that a signal ended, and one that was stopped meanwhile and goes on.
    assert!(typed("kill -TERM $$", "web").contains("status 143"));
    for (status, words) in [
        ("exit 255", "web"),
        ("exit 0", "-q web"),
        ("exit 0", "web -- true"),
        ("exit 0", "web </dev/null"),
    ] {
        let text = typed(status, words);
        assert!(text.contains("in\r\n") && !text.contains("runs on"), "{words}: {text}");
    }
}

#[test]
fn a_server_that_does_not_come_up_is_not_waited_for_forever() {
    if !have("ssh-keygen") {
        return;
    }
    for (answer, why) in [
        (&b"error connection refused\n"[..], "nothing listens on the guest's port 22"),
        (b"ok\nHTTP/1.1 400 Bad Request\r\n", "no ssh server"),
        (b"ok\n", "closed the connection"),
    ] {
        let sandbox = Sandbox::new();
        let _lock = running(&sandbox, answer);
        let answer = sandbox.raw(PROGRAM, &["web", "--timeout", "4", "--", "true"]);
        assert!(answer.fails(125, "ssh did not come up within 4s").stdout.is_empty());
        assert!(answer.stderr.contains(why), "{}", answer.all());
        assert!(answer.stderr.contains("the VM is kept; 'banger vm exec web'"), "{}", answer.all());
        assert!(answer.stderr.contains("web: waiting for its ssh server"), "{}", answer.all());
        assert!(sandbox.vm("web").is_dir());
    }
}
