//! What `banger-workspace-prepare` prints and leaves; the way into a guest is tested in
//! `shared/workspace` and in the flows.

use banger_tests::Sandbox;
use std::{fs, process::Command};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-workspace-prepare");

/// Makes a repository with one commit, an edit, an untracked and an ignored file.
fn repository(sandbox: &Sandbox) -> String {
    let dir = sandbox.dir().join("repo");
    fs::create_dir(&dir).expect("a directory");
    let script = "git init -q -b main; echo '*.o' >.gitignore; echo a >a; git add -A; \
                  git -c user.name=A -c user.email=a@b commit -qm one; echo e >>a; echo u >u; echo o >x.o";
    let status = Command::new("timeout")
        .args(["60", "sh", "-ec", script])
        .current_dir(&dir)
        .env("HOME", sandbox.dir())
        .status()
        .expect("a shell");
    assert!(status.success());
    dir.to_str().expect("text").to_owned()
}

#[test]
fn a_dry_run_lists_exactly_what_would_go() {
    let sandbox = Sandbox::new();
    let repository = repository(&sandbox);
    let answer = sandbox.run(PROGRAM, &["web", &repository, "--dry-run"]);
    answer.ok();
    let plan = &answer.documents[0];
    assert_eq!(plan["schema"], "banger.workspace-plan/1");
    assert_eq!(plan["files"], serde_json::json!([".gitignore", "a"]));
    assert_eq!(plan["untracked_left"], 1);
    assert_eq!(plan["mode"], "shallow");
    assert!(answer.stderr.contains("--include-untracked"), "{}", answer.stderr);
    assert!(!sandbox.state().join("vms").exists(), "a dry run makes nothing");

    let answer = sandbox.run(PROGRAM, &["web", &repository, "--dry-run", "--include-untracked"]);
    answer.ok();
    assert_eq!(answer.documents[0]["files"], serde_json::json!([".gitignore", "a", "u"]));
}

#[test]
fn wrong_lines_and_wrong_paths_are_refused() {
    let sandbox = Sandbox::new();
    let repository = repository(&sandbox);
    sandbox.run(PROGRAM, &["web", &repository]).fails(3, "no VM 'web'");
    sandbox.run(PROGRAM, &["web", "/nowhere", "--dry-run"]).fails(3, "no '/nowhere'");
    let dry = |more: &[&str]| {
        let words = [&["web", &repository, "--dry-run"], more].concat();
        sandbox.run(PROGRAM, &words)
    };
    dry(&["--guest-path", "repo"]).fails(2, "no absolute path");
    dry(&["--guest-path", "/a/../etc"]).fails(2, "no absolute path");
    dry(&["--from", "HEAD"]).fails(2, "--branch");
    dry(&["--mode", "rsync"]).fails(2, "neither shallow nor full_copy");
    dry(&["--branch", "main"]).fails(4, "exists on the host");
    dry(&["--branch", "-x"]).fails(2, "");
    dry(&["--branch=a..b"]).fails(2, "not the name of a branch");
    dry(&["--branch", "x", "--from", "nothing"]).fails(3, "no commit 'nothing'");
    let bare = sandbox.dir().join("bare");
    Command::new("git").args(["init", "-q", "--bare"]).arg(&bare).status().unwrap();
    let bare = bare.to_str().unwrap();
    sandbox.run(PROGRAM, &["web", bare, "--dry-run"]).fails(2, "bare repository");
}
