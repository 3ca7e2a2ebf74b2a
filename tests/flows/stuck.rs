//! Guests that never come up: explained, kept, ended in bounded time.

use crate::fixture;
use banger_tests::{Answer, Sandbox, program};
use serde_json::Value;
use std::{fs, fs::File, time::Duration};

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(5));
    fixture::kernel(&sandbox);
    sandbox.plant_image("empty");
    sandbox
}

fn run(sandbox: &Sandbox, name: &str, words: &[&str]) -> Answer {
    sandbox.run(program(name), words)
}

fn view(sandbox: &Sandbox) -> Value {
    run(sandbox, "banger-vm-show", &["web"]).document().clone()
}

#[test]
fn a_guest_that_gives_up_says_why_and_is_kept() {
    let sandbox = sandbox();
    let disk = sandbox.state().join("images/empty/rootfs.ext4");
    File::create(&disk).and_then(|file| file.set_len(1 << 20)).expect("a disk of zeros");
    let words = ["--rm", "--image", "empty", "--name", "web", "--memory", "256M", "--", "true"];
    let answer = sandbox.raw(program("banger-vm-run"), &words);
    answer.fails(125, "VM 'web' did not come up: the guest gave up: cannot mount '/dev/vda'");
    assert!(answer.stderr.contains("banger vm logs web"), "{}", answer.all());
    assert!(answer.stdout.is_empty(), "{}", answer.all());

    let view = view(&sandbox);
    assert_eq!(view["status"], "error");
    assert_eq!(view["last_exit"]["reason"], "vmm-ended", "{view}");
    assert_eq!(view["last_exit"]["disks_clean"], true, "{view}");
    let logs = sandbox.raw(program("banger-vm-logs"), &["web"]);
    assert!(logs.ok().text().contains("cannot mount '/dev/vda'"), "{}", logs.all());

    // Its agent answers before that: whoever goes on then learns the same.
    let _ = run(&sandbox, "banger-vm-start", &["--wait", "agent", "web"]);
    sandbox.raw(program("banger-vm-exec"), &["web", "--", "true"]).fails(125, "'web'");
    run(&sandbox, "banger-vm-wait", &["--for", "stopped", "web"]).ok();
    let late = sandbox.raw(program("banger-vm-exec"), &["web", "--", "true"]);
    late.fails(125, "VM 'web' is error: the guest gave up: cannot mount '/dev/vda'");
    run(&sandbox, "banger-vm-prune", &["--force"]).ok();
    assert!(!sandbox.vm("web").exists());
}

#[test]
fn a_guest_whose_agent_never_answers_is_kept_and_can_be_stopped() {
    if !banger_tests::have("busybox") {
        return;
    }
    let sandbox = sandbox();
    // A guest that boots, and has no agent.
    let guest = sandbox.dir().join("guest");
    fs::create_dir(&guest).expect("a directory");
    fs::copy("/bin/busybox", guest.join("banger-guest-init")).expect("a static program");
    let create = ["--image", "empty", "--name", "web", "--memory", "256M", "--timeout", "20"];
    let answer = sandbox.with(program("banger-vm-create"), &create, |command| {
        command.env("BANGER_GUEST_DIR", &guest);
    });
    answer.fails(1, "did not come up within 20 s; it is kept");
    assert!(answer.stderr.contains("banger vm logs web"), "{}", answer.all());
    assert_eq!(view(&sandbox)["status"], "starting");

    sandbox.raw(program("banger-vm-exec"), &["web", "--", "true"]).fails(125, "is starting");
    run(&sandbox, "banger-vm-start", &["web"]).fails(4, "is running");
    run(&sandbox, "banger-vm-delete", &["web"]).fails(4, "is running");
    run(&sandbox, "banger-vm-wait", &["--timeout", "1", "web"])
        .fails(1, "the agent of VM 'web' does not answer after 1 s");

    let answer = run(&sandbox, "banger-vm-stop", &["web"]);
    assert!(answer.took < Duration::from_secs(25), "{}", answer.all());
    let exit = &answer.document()["last_exit"];
    assert_eq!(exit["reason"], "killed", "{exit}");
    assert!(exit["message"].as_str().expect("text").contains("power button"), "{exit}");
    assert_eq!(view(&sandbox)["status"], "stopped");
}
