//! Commits and uncommitted work of a guest in the host's repository, as git has them.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod cases;
mod world;

use banger_doc::{WorkKind, WorkspaceMode};
use banger_workspace::{Offer, Wish};
use cases::CASES;
use std::{collections::BTreeSet, fs, path::PathBuf};
use world::{World, differing, fingerprint, worked};

const SETUP: &str = "git init -q; printf 'a\nb\nc\n' >a; echo x >x; mkdir d; echo d >d/f; echo '*.o' >.gitignore; \
                     git add -A; git commit -qm one; echo two >>a; git commit -qam two; git tag v0";
const WORK: &str = "git switch -qc lines; echo l1 >>a; git commit -qam l1; echo l2 >l2; git add l2; git commit -qm l2; \
                    git switch -q main; printf 'm\\0\\1' >m; git add m; git commit -qm m; git merge -q --no-edit lines; \
                    git tag -am v1 v1; git mv x y; echo staged >>d/f; git add d/f; echo more >>d/f; chmod +x a; \
                    echo new >new; echo o >o.o; ln -s a link; rm l2";

#[test]
fn all_of_it_comes_as_git_has_it() {
    let world = worked(SETUP, WORK);
    let before = fingerprint(&world.host());
    assert!(!world.unexported().is_empty());
    let pulled = world.pull().unwrap();
    assert!(pulled.remote_added, "{pulled:?}");
    assert_eq!(pulled.wip.as_deref(), Some("web/wip"));
    let names: Vec<&str> = pulled.changed.iter().map(|changed| changed.name.as_str()).collect();
    assert_eq!(names, ["web/lines", "web/main", "web/tags/v1", "web/wip"]);
    assert_eq!(world.unexported(), [""; 0]);

    // Nothing but what was named changed.
    let git = world.host().join(".git");
    let places = ["refs/remotes", "refs/banger", "logs/refs/remotes", "objects/pack", "config"];
    let strange: Vec<PathBuf> = differing(&fingerprint(&world.host()), &before)
        .into_iter()
        .filter(|path| !places.iter().any(|place| path.starts_with(git.join(place))))
        .filter(|path| !path.is_dir())
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
    world.shell(
        &world.host(),
        "git fsck --strict; test -z \"$(git status --short)\"; ! ls .git/objects/pack/*.keep",
    );
    for branch in ["main", "lines"] {
        let of = |dir: PathBuf, name: &str| {
            world.shell(&dir, &format!("git log --format='%H %an %ae %ad %s %P' {name}"))
        };
        assert_eq!(of(world.host(), &format!("web/{branch}")), of(world.guest(), branch));
    }
    assert_eq!(world.shell(&world.host(), "git tag"), "v0\n");
    world.shell(&world.host(), "test $(git cat-file -t web/tags/v1) = tag");

    // What a stash would be.
    let state = "git status --short; git diff; git diff --cached; cat new link";
    let theirs = world.shell(&world.guest(), state);
    world.shell(
        &world.host(),
        "git merge -q --ff-only web/main; git stash apply -q --index web/wip",
    );
    assert_eq!(world.shell(&world.host(), state), theirs);

    let again = world.pull().unwrap();
    assert!(again.changed.is_empty() && !again.remote_added, "{again:?}");
}

#[test]
fn it_counts_as_out_only_while_it_is_kept() {
    let world = worked(SETUP, WORK);
    world.pull().unwrap();
    assert_eq!(world.unexported(), [""; 0]);
    world.shell(&world.guest(), "echo even more >>new");
    let found = world.unexported().join();
    assert!(found.contains("change") && !found.contains("commit"), "{found}");
    world.pull().unwrap();
    assert_eq!(world.unexported(), [""; 0]);
    world.shell(&world.guest(), "git add -A; git commit -qm rest");
    let found = world.unexported().join();
    assert!(found.contains("1 commit on branch 'main'"), "{found}");
    let pulled = world.pull().unwrap();
    assert_eq!(pulled.wip, None);
    let gone = pulled.changed.iter().find(|changed| changed.name == "web/wip").unwrap();
    assert!(gone.after.is_none() && gone.before.is_some());
    assert_eq!(world.unexported(), [""; 0]);

    // Packed or loose, the references are what counts.
    world.shell(&world.host(), "git pack-refs --all; git gc -q --prune=now");
    assert_eq!(world.unexported(), [""; 0]);
    world.shell(
        &world.host(),
        "git for-each-ref --format='delete %(refname)' refs/banger | git update-ref --stdin",
    );
    let found = world.unexported().join();
    assert!(found.contains(" on branch 'main'") && found.contains(" on branch 'lines'"), "{found}");
    world.pull().unwrap();
    assert_eq!(world.unexported(), [""; 0]);
    fs::rename(world.host(), world.path().join("elsewhere")).unwrap();
    assert!(!world.unexported().is_empty());
}

trait Join {
    fn join(&self) -> String;
}

impl Join for Vec<String> {
    fn join(&self) -> String {
        self.as_slice().join("; ")
    }
}

#[test]
fn what_was_fetched_by_git_alone_counts_as_far_as_it_came() {
    let world = worked(
        SETUP,
        "git switch -qc one; echo 1 >1; git add 1; git commit -qm 1; git switch -qc two main; \
                               echo 2 >2; git add 2; git commit -qm 2",
    );
    let keep = || {
        let mut offer = Offer::make(&world.vm(), &world.files()).unwrap();
        offer.keep(&world.host(), &[], &world.keeper()).unwrap();
    };
    keep();
    let found = world.unexported().join();
    assert!(found.contains("'one'") && found.contains("'two'"), "{found}");
    world.shell(&world.host(), "git fetch -q $TOP/guest/root/repo two:refs/remotes/web/two");
    keep();
    let found = world.unexported().join();
    assert!(
        found.contains("'one'") && !found.contains("'two'") && !found.contains("change"),
        "{found}"
    );
    world.shell(&world.host(), "git fetch -q $TOP/guest/root/repo one");
    keep();
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn stashes_and_a_detached_head_come_too() {
    let world = worked(
        SETUP,
        "echo 1 >>a; git stash -q; echo 2 >>x; git stash -q; git switch -q --detach; echo 3 >3; git add 3; \
         git commit -qm 3; git branch wip v0; git branch stash/0 v0",
    );
    let pulled = world.pull().unwrap();
    assert_eq!(world.unexported(), [""; 0], "{pulled:?}");
    let names: BTreeSet<&str> = pulled.changed.iter().map(|c| c.name.as_str()).collect();
    for name in ["web/detached", "web/stash-2/0", "web/stash-2/1", "web/wip", "web/stash/0"] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
    assert_eq!(pulled.wip, None);
    world.shell(
        &world.host(),
        "git stash apply -q web/stash-2/1; git diff --quiet -- x; tail -1 a | grep -qx 1",
    );
    world.shell(&world.guest(), "echo 4 >>a");
    assert_eq!(world.pull().unwrap().wip.as_deref(), Some("web/wip-2"));
}

#[test]
fn a_repository_without_commits_gives_its_files() {
    let world = World::new("git init -q; echo a >a; git add a");
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.guest(), "echo b >>a; echo n >n");
    let pulled = world.pull().unwrap();
    assert_eq!(pulled.wip.as_deref(), Some("web/wip"));
    assert_eq!(world.unexported(), [""; 0]);
    world.shell(
        &world.host(),
        "test \"$(git show web/wip:a)\" = \"$(printf 'a\\nb')\"; git fsck --strict",
    );
}

#[test]
fn another_remote_of_that_name_is_left_alone() {
    let world = worked(SETUP, WORK);
    world.shell(&world.host(), "git remote add web https://example.org/x");
    let before = fingerprint(&world.host());
    let error = world.pull().unwrap_err();
    assert_eq!(error.kind(), banger_doc::Kind::Conflict);
    assert!(error.to_string().contains("https://example.org/x"), "{error}");
    assert!(differing(&fingerprint(&world.host()), &before).is_empty());
    // One that somebody added by hand serves.
    world.shell(&world.host(), "git remote rename web other; git remote add web banger::web");
    assert!(!world.pull().unwrap().remote_added);
}

#[test]
fn a_history_that_was_cut_is_whole_on_the_host() {
    let world = World::new(
        "git init -q; for i in $(seq 30); do echo $i >a; git add a; git commit -qm $i; done",
    );
    world.prepare(&world.wish()).unwrap();
    world.shell(
        &world.guest(),
        "test $(git rev-list --count HEAD) = 10; echo more >>a; git commit -qam more",
    );
    world.pull().unwrap();
    let count = world
        .shell(&world.host(), "git rev-list --count web/main; git fsck; test ! -e .git/shallow");
    assert_eq!(count, "31\n");
    // Elsewhere it lacks what it begins from.
    world.shell(world.path(), "git init -q empty; rm -rf host; mv empty host");
    let error = world.pull().unwrap_err();
    assert!(error.to_string().contains("lacks commits"), "{error}");
}

/// What a pull brings of each sort of repository is what git has in the guest.
#[test]
fn every_sort_of_repository_is_pulled() {
    for case in CASES {
        let world = World::new(case.setup);
        let mode = if case.full { WorkspaceMode::FullCopy } else { WorkspaceMode::Shallow };
        let wish = Wish { mode, include_untracked: case.untracked, ..world.wish() };
        world.prepare(&wish).unwrap();
        world.shell(&world.guest(), case.work);
        if !world.guest().join(".git").exists() {
            assert_eq!(world.pull().unwrap_err().kind(), banger_doc::Kind::Usage, "{}", case.name);
            continue;
        }
        let before = world.shell(&world.guest(), "git status --porcelain=v2; git for-each-ref");
        let pulled =
            world.pull().unwrap_or_else(|error| panic!("{}: {}", case.name, error.chain()));
        let after = world.shell(&world.guest(), "git status --porcelain=v2; git for-each-ref");
        assert_eq!(after, before, "{}: the guest is touched", case.name);
        let work = world.work();
        let brought = |work: &&banger_doc::Work| {
            matches!(work.kind, WorkKind::Commits | WorkKind::Head | WorkKind::Changes)
        };
        assert!(!work.iter().any(|work| brought(&work)), "{}: {work:?} {pulled:?}", case.name);
        let heads = "git for-each-ref --format='%(objectname) %(refname:lstrip=2)' refs/heads";
        for line in world.shell(&world.guest(), heads).lines() {
            let (oid, name) = line.split_once(' ').unwrap();
            let there =
                world.shell(&world.host(), &format!("git rev-parse refs/remotes/web/{name}"));
            assert_eq!(there.trim(), oid, "{}: {name}", case.name);
        }
        world.shell(&world.host(), "git fsck --no-dangling");
        if matches!(case.name, "line ends" | "filters as of large files") || case.full {
            continue;
        }
        // All files together are what 'git add -A' would take.
        let all = "export GIT_INDEX_FILE=$TOP/all; rm -f $GIT_INDEX_FILE; cp .git/index $GIT_INDEX_FILE 2>/dev/null || true; \
                   git add -A; git write-tree";
        // What went in untracked and was not touched lies on the host, and is no work.
        let given = if case.untracked { "; git rm -q --cached l; git write-tree" } else { "" };
        let expected = world.shell(&world.guest(), &format!("{all}{given}"));
        let expected = expected.lines().last().unwrap_or_default().to_owned() + "\n";
        let wip = pulled.wip.as_deref().unwrap_or("none");
        let sum = format!(
            "export GIT_INDEX_FILE=$TOP/sum; rm -f $GIT_INDEX_FILE; if git rev-parse -q --verify {wip} >/dev/null; then \
             git read-tree {wip}; if git rev-parse -q --verify {wip}^3 >/dev/null; then git ls-tree -r {wip}^3 | \
             git update-index --index-info; fi; git write-tree; else echo clean; fi"
        );
        let have = world.shell(&world.host(), &sum);
        let clean = world.shell(&world.guest(), "git rev-parse -q --verify HEAD^{tree} || true");
        let have = if have == "clean\n" { clean } else { have };
        assert_eq!(have, expected, "{}", case.name);
    }
}
