//! What `banger-workspace-export` prints and what counts as exported by it; patches are tested in
//! `shared/workspace` and in the flows.

use banger_channel::bridge;
use banger_tests::{Sandbox, program};
use serde_json::json;
use std::fs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-workspace-export");

#[test]
fn its_stdout_is_the_patch_alone() {
    let sandbox = Sandbox::new();
    let answer = sandbox.raw(PROGRAM, &["web"]);
    assert_eq!((answer.status, answer.stdout.len()), (125, 0));
    assert!(answer.stderr.contains("no VM 'web'"), "{}", answer.stderr);
    let answer = sandbox.raw(PROGRAM, &["web", "--stat", "--output", "x"]);
    assert_eq!((answer.status, answer.stdout.len()), (2, 0));
}

#[test]
fn a_mark_is_of_what_is_printed() {
    let sandbox = Sandbox::new();
    for other in [&["--stat"][..], &["--output", "x"]] {
        let words = [&["web", "--mark"][..], other].concat();
        let answer = sandbox.raw(PROGRAM, &words);
        assert_eq!(answer.status, 2, "{}", answer.stderr);
    }
}

#[test]
fn printing_counts_as_exporting_only_when_it_is_marked() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.plant_running("web", &json!({}));
    let bridge = |listener, device| drop(bridge::run(listener, bridge::Device::Port(device)));
    running.start_agent(&sandbox, &json!({}), bridge);
    let at = |path: &str| sandbox.dir().join(path).to_str().unwrap().to_owned();
    let (repository, guest) = (at("repo"), at("guest/repo"));
    let make = "git init -q $0; cd $0; echo a >a; git add a; \
                git -c user.name=A -c user.email=a@b commit -qm one";
    sandbox.raw("/bin/sh", &["-ec", make, &repository]).ok();
    let prepare = program("banger-workspace-prepare");
    let words = ["web", &repository, "--guest-path", &guest];
    sandbox.run(prepare.to_str().unwrap(), &words).ok();
    fs::write(at("guest/repo/a"), "b\n").unwrap();

    let status = program("banger-workspace-status");
    let unexported = || {
        let answer = sandbox.run(status.to_str().unwrap(), &["web"]);
        answer.ok().document()["unexported"].as_array().unwrap().len()
    };
    assert_eq!(unexported(), 1);
    let printed = sandbox.raw(PROGRAM, &["web"]);
    assert!(printed.ok().stderr.contains("does not count as exported"), "{}", printed.stderr);
    assert!(String::from_utf8_lossy(&printed.stdout).contains("\n-a\n+b\n"));
    sandbox.raw(PROGRAM, &["web", "--stat"]).ok();
    let full = sandbox.raw("/bin/sh", &["-c", "exec \"$0\" web --mark >/dev/full", PROGRAM]);
    assert_eq!(full.status, 125, "{}", full.stderr);
    assert_eq!(unexported(), 1, "nobody has the patch yet");
    let marked = sandbox.raw(PROGRAM, &["web", "--mark"]);
    assert_eq!(marked.ok().stdout, printed.stdout);
    assert!(!marked.stderr.contains("does not count"), "{}", marked.stderr);
    assert_eq!(unexported(), 0);
    fs::write(at("guest/repo/a"), "c\n").unwrap();
    assert_eq!(unexported(), 1);
    sandbox.raw(PROGRAM, &["web", "--output", &at("patch")]).ok();
    assert_eq!(unexported(), 0);
}
