//! What `banger-workspace-push` prints and leaves; the same by git is tested with `git-remote-banger`.

use banger_channel::bridge;
use banger_tests::{Sandbox, Web, program};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-workspace-push");

/// A VM `web` with a workspace, whose guest is a directory.
fn web() -> Web {
    Web::new(|listener, device| drop(bridge::run(listener, bridge::Device::Port(device))))
}

#[test]
fn a_push_says_what_the_guest_has_now() {
    let web = web();
    web.sh(
        "cd repo; git switch -qc topic; echo p >p; git add p; git commit -qm pushed; git tag v1",
    );
    let dry = web.sandbox.run(PROGRAM, &["web", "--dry-run"]);
    assert_eq!(dry.ok().document()["references"][0]["name"], "refs/heads/topic");
    assert_eq!(web.sh("git -C guest/repo branch"), "* main\n");
    let pushed = web.sandbox.run(PROGRAM, &["web"]);
    let document = pushed.ok().document().clone();
    assert_eq!(document["schema"], "banger.workspace-push/1");
    assert_eq!(document["references"][0]["before"], json!(null));
    assert_eq!(
        web.sh(
            "cd guest/repo; git fsck --strict; git log --format=%s -1 topic; git status --short"
        ),
        "pushed\n"
    );
    let again =
        web.sandbox.terminal(&format!("{PROGRAM} web topic v1:refs/tags/v1"), 200, |_| {}).text();
    assert!(
        again.contains("topic: as it was") && again.contains("v1: new in the guest"),
        "{again}"
    );
    let status = program("banger-workspace-status");
    let status = web.sandbox.run(status.to_str().unwrap(), &["web"]);
    assert_eq!(status.ok().document()["unexported"], json!([]));
    // What the host's own settings and hooks would do has no part in it.
    web.sh("cd repo; printf '#!/bin/sh\\nexit 1\\n' >.git/hooks/pre-push; chmod +x .git/hooks/pre-push; \
            git commit -q --allow-empty -m more");
    web.sandbox.run(PROGRAM, &["web", "HEAD~1:old", "topic"]).ok();
    assert_eq!(web.sh("git -C guest/repo log --format=%s -1 topic"), "more\n");
    // A prepare goes on from there.
    web.sandbox
        .run(
            program("banger-workspace-prepare").to_str().unwrap(),
            &["web", &web.at("repo"), "--guest-path", &web.at("guest/repo")],
        )
        .ok();
    web.sh("cd guest/repo; git fsck; test $(git symbolic-ref --short HEAD) = topic");
}

#[test]
fn what_the_guest_does_not_take_keeps_nothing_else_back() {
    let web = web();
    web.sh("cd repo; echo c >>a; git commit -qam new; echo w >>../guest/repo/a");
    let answer = web.sandbox.run(PROGRAM, &["web", "main", "HEAD:topic", "none:other", ":gone"]);
    let why = "it is checked out in the guest, and 'a' has changes there that are not committed; push to another";
    answer.fails(4, &format!("'refs/heads/main': {why}"));
    assert!(
        answer.stderr.contains("'refs/heads/other': the host has no such commit"),
        "{}",
        answer.stderr
    );
    assert!(
        answer.stderr.contains("'refs/heads/gone': the guest has no such reference"),
        "{}",
        answer.stderr
    );
    assert_eq!(
        web.sh("git -C guest/repo for-each-ref --format='%(refname:short)' refs/heads"),
        "main\ntopic\n"
    );
    web.sandbox.run(PROGRAM, &["web", "HEAD:topic/x"]).fails(4, "the guest has 'refs/heads/topic'");
    web.sandbox.run(PROGRAM, &["web", "HEAD~1:topic"]).fails(4, "non-fast-forward");
    web.sh("touch guest/repo/.git/refs/heads/topic.lock");
    web.sandbox.run(PROGRAM, &["web", "+HEAD~1:topic"]).fails(4, "topic.lock");
    web.sh("rm guest/repo/.git/refs/heads/topic.lock");
    web.sandbox.run(PROGRAM, &["web", "+HEAD~1:topic"]).ok();
    web.sh("git -C guest/repo worktree add -q ../tree topic");
    web.sandbox.run(PROGRAM, &["web", "HEAD:topic"]).fails(4, "checked out");
    for (words, status, part) in [
        (vec!["nobody"], 3, "no VM 'nobody'"),
        (vec!["web", "HEAD:a..b"], 2, "what to push"),
        (vec!["web", "HEAD:refs/other/x"], 4, "only branches and tags"),
        (vec!["web", "--path", "/nowhere/at/all"], 3, "/nowhere/at/all"),
    ] {
        web.sandbox.run(PROGRAM, &words).fails(status, part);
    }
    web.sh("git -C guest/repo checkout -q a");
    web.sandbox.run(PROGRAM, &["web", "main"]).ok();
    assert_eq!(
        web.sh("cd guest/repo; git status --short; git log --format=%s -1; cmp a ../../repo/a"),
        "new\n"
    );
    web.sh("cd repo; git switch -q --detach");
    web.sandbox.run(PROGRAM, &["web"]).fails(2, "is on no branch");
}

#[test]
fn a_vm_that_does_not_run_takes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.run(PROGRAM, &["web", "main"]).fails(4, "web");
}
