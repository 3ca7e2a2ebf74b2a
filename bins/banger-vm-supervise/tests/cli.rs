//! The contract of `banger-vm-supervise` up to the start of a VMM. Flows have real VMs.

use banger_tests::Sandbox;
use serde_json::Value;
use std::fs;

const SUPERVISE: &str = env!("CARGO_BIN_EXE_banger-vm-supervise");

fn exit(sandbox: &Sandbox, vm: &str) -> Value {
    let text = fs::read_to_string(sandbox.vm(vm).join("last-exit.json")).expect("an exit record");
    serde_json::from_str(&text).expect("a document")
}

#[test]
fn a_vm_has_one_supervisor() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let command =
        format!("exec flock {} {SUPERVISE} web", sandbox.vm("web").join("lock").display());
    sandbox.run("/bin/sh", &["-c", &command]).fails(4, "VM 'web' is running");
    sandbox.run(SUPERVISE, &["nobody"]).fails(3, "no VM 'nobody'");
}

#[test]
fn a_log_that_cannot_be_written_is_said() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    fs::create_dir(sandbox.vm("web").join("supervise.log")).unwrap();
    sandbox.run(SUPERVISE, &["web"]).fails(1, "cannot open 'supervise.log'");
}

#[test]
fn an_end_that_cannot_be_written_down_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    fs::create_dir(sandbox.vm("web").join("last-exit.json")).unwrap();
    sandbox.run(SUPERVISE, &["web"]).ok();
    assert!(sandbox.vm("web").join("running.json").exists());
}

#[test]
fn a_run_that_cannot_begin_is_written_down_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    fs::write(sandbox.vm("web").join("running.json"), "from a killed supervisor").unwrap();
    let answer = sandbox.run(SUPERVISE, &["web"]);
    assert!(answer.ok().stdout.is_empty() && answer.stderr.is_empty(), "{answer:?}");
    let exit = exit(&sandbox, "web");
    assert_eq!(exit["schema"], "banger.exit/1");
    assert_eq!(exit["reason"], "start-failed");
    let message = exit["message"].as_str().unwrap();
    assert!(message.contains("the image of VM 'web' is gone"), "{message}");
    assert!(!sandbox.vm("web").join("running.json").exists());
    assert!(!sandbox.vm("web").join("run").exists());
}

#[test]
fn a_kernel_that_is_none_ends_as_a_start_that_failed() {
    let sandbox = Sandbox::new();
    if !banger_tests::have("qemu-system-x86_64") {
        return;
    }
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let guest = sandbox.dir().join("guest");
    fs::create_dir_all(&guest).unwrap();
    fs::copy("/bin/busybox", guest.join("banger-guest-init")).unwrap();
    let answer = sandbox.with(SUPERVISE, &["web"], |command| {
        command.env("BANGER_GUEST_DIR", &guest);
    });
    answer.ok();
    let exit = exit(&sandbox, "web");
    assert_eq!(exit["reason"], "start-failed", "{exit}");
    assert_eq!(exit["vmm_status"], 1, "{exit}");
    assert!(exit["message"].as_str().unwrap().contains("kernel"), "{exit}");
    assert!(!sandbox.vm("web").join("run").exists());
}
