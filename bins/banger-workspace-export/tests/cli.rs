//! What `banger-workspace-export` says when there is nothing to export; patches are tested in
//! `shared/workspace` and in the flows.

use banger_tests::Sandbox;

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
    let answer = sandbox.raw(PROGRAM, &["web", "--mark"]);
    assert_eq!(answer.status, 125, "{}", answer.stderr);
}
