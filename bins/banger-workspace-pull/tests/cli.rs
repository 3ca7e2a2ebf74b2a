//! What `banger-workspace-pull` prints and leaves; what comes of which repository is tested in `shared/workspace`.

use banger_channel::bridge;
use banger_tests::Web;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-workspace-pull");

/// A VM `web` with a workspace, whose guest is a directory.
fn web() -> Web {
    Web::new(|listener, device| drop(bridge::run(listener, bridge::Device::Port(device))))
}

#[test]
fn a_pull_says_what_came_and_what_to_type() {
    let web = web();
    web.sh("cd guest/repo; git switch -qc lines; echo c >>a; git commit -qam three; echo n >new");
    let pulled = web.sandbox.run(PROGRAM, &["web"]);
    let document = pulled.ok().document().clone();
    assert_eq!(document["schema"], "banger.workspace-pull/1");
    assert_eq!(document["remote_added"], true);
    assert_eq!(document["wip"], "web/wip");
    let names: Vec<&str> = document["changed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["web/lines", "web/main", "web/wip"]);
    assert_eq!(document["changed"][0]["commits"], 1);
    assert_eq!(web.sh("cd repo; git log --format=%s ..web/lines; git status --short"), "three\n");
    assert_eq!(web.sh("cd repo; git config remote.web.url"), "banger::web\n");
    assert_eq!(web.sh("ls guest/repo; git -C guest/repo status --short"), "a\nnew\n?? new\n");

    let words = web.sandbox.terminal(&format!("{PROGRAM} web"), 200, |_| {}).text();
    assert!(words.contains("'git stash apply web/wip'"), "{words}");
    web.sh("cd guest/repo; git add new; git commit -qm four");
    let words = web.sandbox.terminal(&format!("{PROGRAM} web"), 200, |_| {}).text();
    assert!(words.contains("web/lines: 1 commit that the host did not have"), "{words}");
    assert!(words.contains("web/wip: gone"), "{words}");
    assert!(words.contains("'git log ..web/lines'"), "{words}");
    let quiet = web.sandbox.raw(PROGRAM, &["web", "-q"]);
    assert_eq!(quiet.ok().stderr, "");
    // Elsewhere, in a clone.
    web.sh("git clone -q repo other; mkdir other/sub");
    web.sandbox.run(PROGRAM, &["web", &web.at("other/sub")]).ok();
    web.sh("cd other; git fsck; git merge -q web/lines; test -e new");
}

#[test]
fn what_is_wrong_changes_nothing() {
    let web = web();
    let refs = || web.sh("cd repo; git for-each-ref; cat .git/config");
    let before = refs();
    for (words, status, part) in [
        (vec!["nobody"], 3, "no VM 'nobody'"),
        (vec!["web", "/nowhere/at/all"], 3, "no '/nowhere/at/all'"),
        (vec!["web", "--timeout", "0"], 2, "0"),
        (vec!["web", "a", "b"], 2, "'b'"),
    ] {
        let answer = web.sandbox.run(PROGRAM, &words);
        answer.fails(status, part);
    }
    let plain = web.at("guest");
    web.sandbox.run(PROGRAM, &["web", &plain]).fails(2, "no repository");
    let full = web.sandbox.raw("/bin/sh", &["-c", "exec \"$0\" web --json >/dev/full", PROGRAM]);
    assert_eq!(full.status, 1, "{}", full.stderr);
    web.sh("cd repo; git update-ref --stdin <<<\"$(git for-each-ref --format='delete %(refname)' refs/remotes refs/banger)\"
            git remote remove web");
    web.sh("touch repo/.git/config.lock");
    web.sandbox.run(PROGRAM, &["web"]).fails(4, "config.lock");
    web.sh("rm repo/.git/config.lock; cd repo; git remote add web /elsewhere");
    web.sandbox.run(PROGRAM, &["web"]).fails(4, "a remote 'web' already");
    web.sh("cd repo; git remote remove web");
    assert_eq!(refs().trim(), before.trim());
}

#[test]
fn one_that_is_killed_is_repeated() {
    use std::{
        process::Stdio,
        thread,
        time::{Duration, Instant},
    };
    let web = web();
    web.sh("cd guest/repo; for i in $(seq 30); do seq $i 3000 >f$i; git add -A; git commit -qm $i; done; echo o >>f1");
    let begin = Instant::now();
    web.sandbox.run(PROGRAM, &["web"]).ok();
    let whole = begin.elapsed();
    for round in 0..12_u32 {
        web.sh("cd repo; git for-each-ref --format='delete %(refname)' refs/remotes refs/banger | git update-ref --stdin
                git remote remove web || true; git gc -q --prune=now");
        let mut command = web.sandbox.command(PROGRAM);
        let mut child = command
            .arg("web")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(whole * (round + 1) / 12);
        let _ = child.kill();
        child.wait().unwrap();
        web.sh("cd repo; git fsck --strict --no-dangling; git status >/dev/null");
        // What it started may still end what it does.
        thread::sleep(Duration::from_millis(100));
        let again = web.sandbox.run(PROGRAM, &["web"]);
        again.ok();
        web.sh("cd repo; git fsck --strict --no-dangling; test $(git rev-list --count web/main) = 32; \
                git cat-file -e web/wip; ! ls .git/objects/pack/*.keep .git/*.lock .git/banger* 2>/dev/null");
    }
}
