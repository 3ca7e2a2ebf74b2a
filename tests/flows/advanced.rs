//! What `docs/advanced.md` tells to type, typed.

use crate::{fixture, guest::Guest, registry::Registry};
use banger_tests::{Answer, Sandbox, program};
use serde_json::{Value, json};
use std::{fs, time::Duration};

/// A shell with the programs in its `PATH`, as a user has it.
fn typed(sandbox: &Sandbox, line: &str) -> Answer {
    let beside = program("banger");
    let beside = beside.parent().expect("a folder").display().to_string();
    sandbox.raw_with("/bin/bash", &["-euo", "pipefail", "-c", line], |command| {
        command.env("PATH", format!("{beside}:{}", banger_tests::SYSTEM_PATH));
    })
}

/// `vm create` by itself, and what there is to look at when a boot fails.
#[test]
fn a_vm_is_made_piece_by_piece() {
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(5));
    fixture::kernel(&sandbox);
    let registry = Registry::start();
    let typed = |line: &str| typed(&sandbox, line);
    typed(&format!(
        "banger image pull {}/busybox:1 --kernel-ref generic-6.12 --name debian-bookworm",
        registry.address
    ))
    .ok();
    typed("banger vm create --image debian-bookworm --name testbox --no-start").ok();
    let status = || typed("banger vm show testbox | jq -r .status").ok().text();
    assert_eq!(status(), "created\n");
    typed("banger vm start testbox").ok();
    assert_eq!(status(), "running\n");
    typed("banger vm logs testbox").ok();
    typed("banger vm ports testbox").ok();
    let pid = typed("banger vm show testbox | jq -r .running.vmm_process.pid").ok().text();
    assert!(pid.trim().parse::<u32>().is_ok(), "{pid}");
    typed("banger vm stop testbox").ok();
    assert_eq!(status(), "stopped\n");
    typed("banger vm delete testbox").ok();
    typed("banger vm show testbox").fails(3, "no VM 'testbox'");
}

/// `image register` and `promote`: a stack that lies on the host, read and never written to.
#[test]
fn files_on_the_host_become_a_vm() {
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(5));
    fixture::kernel(&sandbox);
    let registry = Registry::start();
    let typed = |line: &str| typed(&sandbox, line);
    typed(&format!(
        "banger image pull {}/busybox:1 --kernel-ref generic-6.12 --name source",
        registry.address
    ))
    .ok();
    let kernel = typed("banger image show source | jq -r .kernel").ok().text();
    assert_eq!(kernel, "generic-6.12\n");
    typed("cp $BANGER_STATE/images/source/rootfs.ext4 rootfs.ext4").ok();
    typed("cp $BANGER_STATE/kernels/generic-6.12/vmlinux vmlinux").ok();
    let sum = typed("sha256sum rootfs.ext4").ok().text();
    typed("banger image register --name base --rootfs $PWD/rootfs.ext4 --kernel-ref generic-6.12")
        .ok();
    typed("banger image register --name own --rootfs $PWD/rootfs.ext4 --kernel $PWD/vmlinux").ok();
    let own = typed("banger image show own | jq -r .kernel").ok().text();
    typed(&format!("banger kernel show {own} | jq -e '.format == \"elf\"'").replace('\n', "")).ok();
    typed("banger image delete own").ok();
    let shown = typed("banger image show base | jq -c '[.managed, .kernel]'").ok().text();
    assert_eq!(shown, "[false,\"generic-6.12\"]\n");
    typed("banger vm run -d --image base --name testbox --memory 256M").ok();
    typed("banger vm exec testbox -- sh -c 'echo changed > /base/inside'").ok();
    typed("banger vm stop testbox").ok();
    assert_eq!(typed("sha256sum rootfs.ext4").ok().text(), sum, "the file was written to");
    // Promoted, the image does not need the file.
    typed("banger image promote base && rm rootfs.ext4 && banger vm start testbox").ok();
    assert_eq!(typed("banger vm exec testbox -- cat /base/inside").ok().text(), "changed\n");
    // What is in use stays.
    let refused = typed("banger image delete base");
    refused.fails(4, "testbox");
    typed("banger vm stop testbox && banger vm delete testbox && banger image delete base").ok();
}

/// `vm prune` takes what does not run, and nothing else.
#[test]
fn prune_takes_what_does_not_run() {
    let guest = Guest::boot("busybox:1", &["sh", "-c"]);
    for (name, exit) in [("old", Some("stopped")), ("broken", Some("vmm-ended")), ("new", None)] {
        guest.sandbox.plant_vm(name, "busybox-1", "generic-6.12");
        if let Some(reason) = exit {
            guest.sandbox.plant_exit(name, reason);
        }
    }
    typed(&guest.sandbox, "banger vm prune -f").ok();
    let left = typed(&guest.sandbox, "banger vm list | jq -r .name").ok().text();
    assert_eq!(left, "web\n");
    assert_eq!(guest.says("echo alive"), "alive\n");
}

/// A guest that never comes up is kept, also with `--rm`, and its console is shown.
#[test]
fn a_guest_that_never_comes_up_is_kept() {
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(5));
    fixture::kernel(&sandbox);
    sandbox.plant_image("broken");
    // A disk that is none: the guest finds no file system on it.
    let disk = sandbox.state().join("images/broken/rootfs.ext4");
    fs::write(disk, vec![0; 4 << 20]).expect("a disk");
    let ran = typed(&sandbox, "banger vm run --rm --name web --image broken --timeout 60 -- true");
    ran.fails(125, "web");
    assert!(ran.stderr.contains("banger vm logs web"), "{}", ran.all());
    let shown = typed(&sandbox, "banger vm show web | jq -r .status").ok().text();
    assert_ne!(shown, "running\n");
    let console = typed(&sandbox, "banger vm logs web").ok().text();
    assert!(!console.is_empty(), "the console says nothing");
    typed(&sandbox, "banger vm delete --force --lose-work web").ok();
}

/// A repository goes in and its changes come out, by the commands of the page.
#[test]
fn a_repository_goes_in_and_its_work_comes_out() {
    if !banger_tests::have("git") {
        return;
    }
    let guest = Guest::boot("busybox:1", &["sh", "-c"]);
    let typed = |line: &str| typed(&guest.sandbox, line);
    typed(
        "git init -q -b main other-repo && cd other-repo && \
         git config user.name Tester && git config user.email tester@example.org && \
         echo one > tracked && printf '#!/bin/sh\\necho ran\\n' > tool && chmod +x tool && \
         echo '*.log' > .gitignore && git add . && git commit -q -m first && \
         echo edited >> tracked && echo new > untracked && echo noise > x.log",
    )
    .ok();
    let before = typed("tar -c other-repo | sha256sum").ok().text();

    // A dry run names the files and touches nothing.
    let plan = typed("banger vm workspace prepare web ./other-repo --dry-run").ok().text();
    let plan: Value = serde_json::from_str(&plan).expect("a document");
    assert_eq!(plan["files"], json!([".gitignore", "tool", "tracked"]), "{plan}");
    assert_eq!(plan["untracked_left_paths"], json!(["untracked"]), "{plan}");
    assert!(!guest.says("ls -A /root").contains("repo"), "the dry run wrote");

    typed("banger vm workspace prepare web ./other-repo --guest-path /root/repo").ok();
    let listed = guest.says("cd /root/repo && ls -A | sort | tr '\n' ' '");
    assert_eq!(listed, ".git .gitignore tool tracked ");
    assert_eq!(guest.says("cat /root/repo/tracked; /root/repo/tool"), "one\nedited\nran\n");

    // The guest works; its work comes out as a patch that applies.
    guest.says("cd /root/repo && echo guest >> tracked && mkdir deep && echo deep > deep/file");
    typed("banger workspace status web").ok();
    typed("banger workspace export web --base-commit prepared --output work.patch").ok();
    typed(
        "git clone -q other-repo fresh && cd fresh && \
         git apply ../work.patch && grep -qx guest tracked && grep -qx deep deep/file",
    )
    .ok();
    assert_eq!(typed("tar -c other-repo | sha256sum").ok().text(), before, "the host's repository");

    // Work that was not asked for again is not overwritten; other ways in have a place of their own.
    typed("banger vm workspace prepare web ./other-repo").fails(4, "");
    typed("banger vm workspace prepare web ./other-repo --force --include-untracked").ok();
    assert!(guest.says("ls /root/repo").contains("untracked"));
    assert!(!guest.says("ls /root/repo").contains("x.log"));
    typed("banger vm delete --force --lose-work web").ok();
}
