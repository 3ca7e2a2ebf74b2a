//! What git and `git-remote-banger` say to each other, and what comes of it; what a guest may play at is tested
//! in `shared/workspace`.

use banger_channel::bridge;
use banger_tests::{Web, program};
use std::fs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_git-remote-banger");

/// A VM `web` with a workspace, whose guest is a directory.
fn web() -> Web {
    Web::new(|listener, device| drop(bridge::run(listener, bridge::Device::Port(device))))
}

#[test]
fn git_fetches_from_a_vm_as_from_any_remote() {
    let web = web();
    web.sh("cd guest/repo; git switch -qc lines; echo c >>a; git commit -qam three; git tag v1");
    assert!(web.unexported() > 0);
    let listed = web.sh("git ls-remote banger::web");
    assert!(listed.contains("\trefs/heads/lines\n") && listed.contains("\tHEAD\n"), "{listed}");
    web.sh("cd repo; git remote add web banger::web; git fetch -q web");
    assert_eq!(web.sh("cd repo; git log --format=%s web/main..web/lines"), "three\n");
    assert_eq!(web.sh("cd repo; git tag"), "v1\n");
    assert_eq!(web.unexported(), 0);
    web.sh("cd repo; git fsck --strict; test -z \"$(git fetch web 2>&1)\"");
    let kept = web.sh("cd repo; git for-each-ref --format='%(refname)' refs/banger/web | wc -l");
    assert_eq!(kept.trim(), "2");
    // Uncommitted work is not in a branch.
    web.sh("echo d >>guest/repo/a; cd repo; git fetch -q web");
    assert_eq!(web.unexported(), 1);
    web.sh("cd repo; git fetch -q web refs/banger/wip; git switch -q --detach web/lines; git stash apply -q FETCH_HEAD; tail -1 a | grep -qx d");
    assert_eq!(web.unexported(), 0);
    web.sh("cd repo; git update-ref -d $(git for-each-ref --format='%(refname)' refs/banger/web | head -1)");
    assert!(web.unexported() > 0);
}

#[test]
fn git_clones_from_a_vm() {
    let web = web();
    web.sh("cd guest/repo; echo c >>a; git commit -qam three");
    web.sh(
        "git clone -q banger::web clone; cd clone; git fsck; test $(git rev-list --count HEAD) = 3",
    );
    assert_eq!(web.unexported(), 0, "a clone keeps it too");
    let kept = web.sh("cd repo; git for-each-ref refs/banger");
    assert_eq!(kept, "");
    web.sh(&format!("git ls-remote banger::web:{}/guest/repo", web.at(".").trim_end_matches("/.")));
}

#[test]
fn git_pushes_into_a_vm() {
    let web = web();
    web.sh("cd repo; git remote add web banger::web; echo p >p; git add p; git commit -qm pushed
            git push -q web HEAD:topic");
    assert_eq!(
        web.sh("cd guest/repo; git fsck --strict; git log --format=%s topic -1"),
        "pushed\n"
    );
    assert_eq!(
        web.sh("cd guest/repo; git status --short; git symbolic-ref --short HEAD"),
        "main\n"
    );
    assert_eq!(web.unexported(), 0, "what was pushed is no work of the guest's");
    let again = web.try_sh("cd repo; git push web HEAD:topic");
    assert!(again.ok().stderr.contains("up-to-date"), "{}", again.stderr);

    web.sh("echo w >>guest/repo/a");
    let refused = web.try_sh("cd repo; git push web HEAD:main");
    assert_eq!(refused.status, 1);
    let why = "it is checked out in the guest, and 'a' has changes there";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    web.sh("git -C guest/repo checkout -q a; git -C repo push -q web HEAD:main");
    assert_eq!(
        web.sh("cd guest/repo; git status --short; git rev-parse HEAD"),
        web.sh("git -C repo rev-parse HEAD")
    );
    assert_eq!(web.unexported(), 0);
    let refused = web.try_sh("cd repo; git push web HEAD:refs/other/x");
    assert!(refused.stderr.contains("only branches and tags"), "{}", refused.stderr);

    web.sh("cd guest/repo; git switch -q topic; echo q >q; git add q; git commit -qm theirs; git switch -q main");
    let refused =
        web.try_sh("cd repo; echo r >r; git add r; git commit -qm mine; git push web HEAD:topic");
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("rejected"), "{}", refused.stderr);
    web.sh("cd repo; git push -q --dry-run web +HEAD:topic");
    assert_eq!(web.sh("git -C guest/repo log --format=%s topic -1"), "theirs\n");
    web.sh("cd repo; git push -q web +HEAD:topic; git tag -am t t1; git push -q web t1");
    assert_eq!(
        web.sh("cd guest/repo; git log --format=%s topic -1; git cat-file -t t1"),
        "mine\ntag\n"
    );
    web.sh("git -C guest/repo pack-refs --all; cd repo; git push -q web :topic :t1");
    assert_eq!(
        web.sh(
            "cd guest/repo; git for-each-ref refs/heads refs/tags --format='%(refname)'; git fsck --no-dangling"
        ),
        "refs/heads/main\n"
    );
}

#[test]
fn what_is_wrong_is_one_clear_error() {
    let web = web();
    let cases = [
        ("banger::nobody", "no VM 'nobody'"),
        ("banger::..", "name"),
        ("banger::web:/elsewhere", "no workspace in '/elsewhere'"),
    ];
    for (address, words) in cases {
        let answer = web.try_sh(&format!("git ls-remote {address}"));
        assert_eq!(answer.status, 128, "{}", answer.stderr);
        assert!(answer.stderr.contains(words), "{address}: {}", answer.stderr);
    }
    for (input, words) in
        [("bogus\n", "'bogus'"), ("push :\n\n", "what to push"), ("\u{1}\n", "\\u{1}")]
    {
        let line = format!("printf '{input}' | {PROGRAM} web web");
        let answer = web.try_sh(&line);
        assert_eq!((answer.status, answer.stdout.len()), (2, 0), "{}", answer.stderr);
        assert!(answer.stderr.contains(words), "{input:?}: {}", answer.stderr);
    }
    let answer = web.sandbox.raw(PROGRAM, &["web"]);
    assert_eq!(answer.status, 2);
    let said = web.sh(&format!("printf 'capabilities\\n' | {PROGRAM} web web"));
    assert_eq!(said, "fetch\noption\npush\nobject-format\n\n");
    let full = web.try_sh(&format!("printf 'capabilities\\n' | {PROGRAM} web web >/dev/full"));
    assert_eq!(full.status, 125, "{}", full.stderr);
}

#[test]
fn a_repository_that_is_gone_or_another_changes_nothing() {
    let web = web();
    fs::remove_dir_all(web.at("guest/repo")).unwrap();
    let answer = web.try_sh("git ls-remote banger::web");
    assert!(answer.stderr.contains("in the guest"), "{}", answer.stderr);
    assert_eq!(answer.status, 128);
}

#[test]
fn of_several_workspaces_the_one_of_the_repository_is_meant() {
    let web = web();
    web.sh("git init -q other; cd other; echo o >o; git add o; git commit -qm other");
    let words = ["web", &web.at("other"), "--guest-path", &web.at("guest/other")];
    web.sandbox.run(program("banger-workspace-prepare"), &words).ok();
    for name in ["repo", "other"] {
        let fetched =
            web.sh(&format!("cd {name}; git fetch -q banger::web; git rev-parse FETCH_HEAD HEAD"));
        let oids: Vec<&str> = fetched.lines().collect();
        assert_eq!(oids[0], oids[1], "{name}");
    }
    let refused = web.try_sh("git ls-remote banger::web");
    let hint = "'git remote set-url web banger::web:/GUEST/PATH' says which workspace";
    assert!(refused.status != 0 && refused.stderr.contains(hint), "{}", refused.stderr);
}
