//! The contract of `banger-vm-supervise` up to the start of a VMM. Flows have real VMs.

use banger_tests::Sandbox;
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt};

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

/// An `e2fsck` that a guest's disk took over: writes into the disk what it can do.
const TAKEN_OVER: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int count, char **words) {
    char all[4096];
    int disk = open(words[count - 1], O_RDWR);
    size_t size = snprintf(all, sizeof all, "I am %d, pid %d\n", getuid(), getpid());
    for (int at = 0; at < 3; at++) {
        const char *path = (const char *[]){SECRET, OTHER, "/etc/passwd"}[at];
        int can = open(path, O_RDONLY) >= 0 || open(path, O_WRONLY) >= 0;
        size += snprintf(all + size, sizeof all - size, "%s: %s\n", path, can ? "open" : "closed");
    }
    int net = socket(AF_INET, SOCK_STREAM, 0) >= 0 || socket(AF_UNIX, SOCK_STREAM, 0) >= 0;
    size += snprintf(all + size, sizeof all - size, "sockets: %s\n", net ? "open" : "closed");
    return write(disk, all, size) != (ssize_t)size;
}
"#;

#[test]
fn an_e2fsck_that_a_guest_took_over_has_the_disk_alone() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let bin = sandbox.dir().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let secret = sandbox.home().join("secret");
    fs::write(&secret, "of the host").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let (overlay, work) =
        (sandbox.vm("web").join("overlay.ext4"), sandbox.vm("web").join("work.ext4"));
    for disk in [&overlay, &work] {
        fs::write(disk, [0; 8192]).unwrap();
    }
    let source = bin.join("e2fsck.c");
    fs::write(&source, TAKEN_OVER).unwrap();
    let e2fsck = bin.join("e2fsck");
    let mut cc = std::process::Command::new("cc");
    cc.arg(format!("-DSECRET={:?}", secret.to_str().unwrap()));
    cc.arg(format!("-DOTHER={:?}", sandbox.vm("web").join("vm.json").to_str().unwrap()));
    assert!(cc.arg("-o").arg(&e2fsck).arg(&source).status().unwrap().success());
    let path = format!("{}:{}", bin.display(), banger_tests::SYSTEM_PATH);
    sandbox
        .raw_with(SUPERVISE, &["web"], |command| {
            command.env("PATH", &path);
        })
        .ok();
    let log = fs::read_to_string(sandbox.vm("web").join("supervise.log")).unwrap();
    for disk in [&overlay, &work] {
        let said = fs::read(disk).unwrap();
        let said = String::from_utf8_lossy(&said);
        let said = said.trim_end_matches('\0');
        assert!(said.starts_with("I am ") && said.contains(", pid 1\n"), "{said}\n{log}");
        assert_eq!(said.matches(": closed").count(), 4, "{said}");
        if nix::unistd::geteuid().is_root() {
            assert!(!said.starts_with("I am 0,"), "{said}");
        }
    }
    // One that no jail can hold is not run at all.
    fs::write(&e2fsck, format!("#!/bin/sh\ntouch {}\n", bin.join("ran").display())).unwrap();
    sandbox
        .raw_with(SUPERVISE, &["web"], |command| {
            command.env("PATH", &path);
        })
        .ok();
    let log = fs::read_to_string(sandbox.vm("web").join("supervise.log")).unwrap();
    assert!(log.contains("is a script, which no jail can hold"), "{log}");
    assert!(!bin.join("ran").exists());
    assert_eq!(exit(&sandbox, "web")["disks_clean"], false);
}
