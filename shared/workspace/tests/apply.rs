//! A guest's work goes onto the host's checkout: what comes of it is what git itself makes of three commits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use banger_doc::{ConflictKind, WorkspaceApply};
use banger_workspace::{Apply, Onto};
use std::{fs, os::unix::fs::PermissionsExt};
use world::{World, differing, fingerprint};

const SETUP: &str = "git init -q; seq 20 >a; mkdir d; echo b >d/b; echo c >c; ln -s c l; printf 'x\\0y' >bin; \
                     echo '*.o' >.gitignore; git add -A; git commit -qm one";

fn make(world: &World) -> Apply {
    Apply::make(&world.vm(), &world.files(), &Onto::default())
        .unwrap_or_else(|error| panic!("{}", error.chain()))
}

fn apply(world: &World) -> WorkspaceApply {
    make(world).run().unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// Applies, which has to end well, and returns what `git status` says on the host.
fn applied(world: &World) -> String {
    let index = fs::read(world.host().join(".git/index")).unwrap();
    let done = apply(world);
    assert!(done.is_applied && done.conflicts.is_empty(), "{done:?}");
    assert_eq!(fs::read(world.host().join(".git/index")).unwrap(), index, "the index is untouched");
    world.shell(&world.host(), "git status --short -uall")
}

/// Applies, which has to touch nothing, and returns what is in conflict.
fn refused(world: &World) -> Vec<(String, ConflictKind, String)> {
    let before = fingerprint(&world.host());
    let done = apply(world);
    let touched = differing(&fingerprint(&world.host()), &before);
    assert!(touched.is_empty(), "{touched:?}");
    assert!(!done.is_applied && !done.is_exported && !done.conflicts.is_empty(), "{done:?}");
    assert!(!world.unexported().is_empty(), "it is still work");
    let words = |c: banger_doc::Conflict| (c.path, c.kind, c.words + &c.hunks.unwrap_or_default());
    done.conflicts.into_iter().map(words).collect()
}

fn kinds(world: &World) -> Vec<(String, ConflictKind)> {
    refused(world).into_iter().map(|(path, kind, _)| (path, kind)).collect()
}

fn prepared(setup: &str) -> World {
    let world = World::new(setup);
    world.prepare(&world.wish()).unwrap();
    world
}

fn same_files(world: &World) {
    world.shell(world.path(), "diff -r --no-dereference -x .git host guest/root/repo");
}

#[test]
fn all_sorts_of_work_come_as_edits() {
    let world = prepared(SETUP);
    world.shell(
        &world.guest(),
        "sed -i s/^5$/five/ a; git commit -qam five; echo n >n; mkdir -p e/f; echo f >e/f/g; chmod +x c; rm d/b; \
         ln -sf a l; printf 'x\\0z' >bin; echo o >x.o; ln -s nowhere m; printf '#!/bin/sh\\n' >run; chmod +x run",
    );
    assert_eq!(applied(&world), " M a\n M bin\n M c\n D d/b\n M l\n?? e/f/g\n?? m\n?? n\n?? run\n");
    world.shell(&world.guest(), "rm x.o; rmdir d");
    same_files(&world);
    assert!(!world.host().join("d").exists(), "an empty directory goes");
    let mode = |name: &str| fs::metadata(world.host().join(name)).unwrap().permissions().mode();
    assert_eq!((mode("run") & 0o111, mode("c") & 0o100), (0o111, 0o100));
    assert_eq!(world.unexported(), [""; 0], "it is out");
    let again = apply(&world);
    assert!(again.changes.is_empty() && again.is_applied && again.is_exported, "{again:?}");
}

#[test]
fn edits_that_went_in_stay_as_they_are() {
    let world = prepared(&format!("{SETUP}; echo local >>c; sed -i s/^2$/two/ a; echo u >u"));
    world.shell(&world.guest(), "sed -i s/^9$/nine/ a; git commit -qam all");
    let done = apply(&world);
    assert_eq!(done.changes.len(), 1);
    assert_eq!(done.merged, [""; 0]);
    let diff = world.shell(&world.host(), "git diff -U0 a | grep '^[+-][^+-]'");
    assert_eq!(diff, "-2\n+two\n-9\n+nine\n");
    assert_eq!(world.shell(&world.host(), "git status --short"), " M a\n M c\n?? u\n");
}

#[test]
fn what_both_changed_is_merged() {
    let world = prepared(SETUP);
    world.shell(&world.guest(), "sed -i s/^5$/five/ a; chmod +x d/b");
    world.shell(&world.host(), "sed -i s/^15$/fifteen/ a; echo more >>d/b; git commit -qam host");
    let done = apply(&world);
    assert_eq!(done.merged, ["a"]);
    assert!(done.notes.iter().any(|note| note.contains("HEAD of the host")), "{:?}", done.notes);
    let diff = world.shell(&world.host(), "git diff -U0 | grep '^[+-][^+-]'; git status --short");
    assert_eq!(diff, "-5\n+five\n M a\n M d/b\n");
    assert_eq!(world.shell(&world.host(), "cat d/b; test -x d/b"), "b\nmore\n");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn what_cannot_be_merged_touches_nothing() {
    let world = prepared(SETUP);
    world.shell(
        &world.guest(),
        "sed -i s/^5$/five/ a; printf 'x\\0z' >bin; rm c; echo x >d/b; ln -sf a l; echo n >n; echo g >x.c; echo ok >ok",
    );
    world.shell(
        &world.host(),
        "sed -i s/^5$/fünf/ a; printf 'x\\0w' >bin; echo c >>c; git rm -qf d/b; git commit -qm d; ln -sf d l; \
         echo other >n; echo h >x.c; git add x.c",
    );
    let found = refused(&world);
    let kinds: Vec<_> = found.iter().map(|(path, kind, _)| (path.as_str(), *kind)).collect();
    assert_eq!(
        kinds,
        [
            ("a", ConflictKind::Content),
            ("bin", ConflictKind::Binary),
            ("c", ConflictKind::ModifyDelete),
            ("d/b", ConflictKind::ModifyDelete),
            ("l", ConflictKind::Types),
            ("n", ConflictKind::Untracked),
            ("x.c", ConflictKind::AddAdd),
        ]
    );
    assert_eq!(
        found[0].2,
        "CONFLICT (content): Merge conflict in a@@ line 5 @@\n<<<<<<< host\nfünf\n=======\nfive\n>>>>>>> guest\n"
    );
    assert_eq!(
        found[3].2,
        "CONFLICT (modify/delete): d/b deleted on the host and modified in the guest"
    );
}

#[test]
fn an_ignored_file_in_the_way_stays() {
    let world = prepared(SETUP);
    world.shell(&world.guest(), "echo guest >x.o; git add -f x.o; git commit -qm o");
    world.shell(&world.host(), "echo host >x.o");
    assert_eq!(kinds(&world), [("x.o".to_owned(), ConflictKind::Untracked)]);
}

#[test]
fn staged_changes_and_unfinished_merges_are_respected() {
    let world = prepared(SETUP);
    world.shell(&world.guest(), "sed -i s/^5$/five/ a; echo n >n");
    world.shell(&world.host(), "sed -i s/^15$/fifteen/ a; git add a; echo more >>c; git add c");
    assert_eq!(kinds(&world), [("a".to_owned(), ConflictKind::Staged)]);
    world.shell(&world.host(), "git restore --staged a");
    assert_eq!(applied(&world), " M a\nM  c\n?? n\n");

    let world = prepared(SETUP);
    world.shell(&world.guest(), "echo n >n");
    world.shell(
        &world.host(),
        "git checkout -qb side; echo s >>c; git commit -qam s; git checkout -q main; echo m >>c; git commit -qam m; \
         git merge -q side || true",
    );
    let error = Apply::make(&world.vm(), &world.files(), &Onto::default()).unwrap_err();
    assert_eq!(error.kind(), banger_doc::Kind::Conflict);
    assert!(error.to_string().contains("a merge is going on"), "{error}");
}

#[test]
fn a_file_and_a_directory_change_places() {
    let world = prepared(SETUP);
    world.shell(
        &world.guest(),
        "rm c; mkdir c; echo x >c/x; rm -r d; echo d >d; git add -A; git commit -qm swap",
    );
    assert_eq!(applied(&world), " D c\n D d/b\n?? c/x\n?? d\n");
    same_files(&world);

    let world = prepared(SETUP);
    world.shell(&world.guest(), "rm -r d; echo d >d; rm a; mkdir a; echo x >a/x");
    world.shell(&world.host(), "echo mine >d/mine; echo more >>a");
    let found = kinds(&world);
    assert_eq!(
        found,
        [
            ("a".to_owned(), ConflictKind::ModifyDelete),
            ("a/x".to_owned(), ConflictKind::InTheWay),
            ("d".to_owned(), ConflictKind::InTheWay),
        ]
    );
    world.shell(&world.host(), "rm d/mine; git checkout -q a; mkdir -p d/empty/er; ln -s d lnk");
    assert_eq!(applied(&world), " D a\n D d/b\n?? a/x\n?? d\n?? lnk\n");
}

#[test]
fn nothing_is_written_through_a_link() {
    let world = prepared(SETUP);
    world.shell(&world.guest(), "echo more >>d/b; echo n >d/n");
    world.shell(&world.host(), "mkdir ../outside; cp d/b ../outside; rm -r d; ln -s ../outside d");
    let before = fingerprint(&world.path().join("outside"));
    let found = kinds(&world);
    assert_eq!(
        found,
        [
            ("d/b".to_owned(), ConflictKind::ModifyDelete),
            ("d/n".to_owned(), ConflictKind::InTheWay)
        ]
    );
    assert_eq!(fingerprint(&world.path().join("outside")), before);
}

#[test]
fn renames_are_followed_on_either_side() {
    let world = prepared(SETUP);
    world.shell(
        &world.guest(),
        "git mv a moved; sed -i s/^5$/five/ moved; git commit -qam moved; sed -i s/c/C/ c",
    );
    world.shell(&world.host(), "sed -i s/^15$/fifteen/ a; mv c d/c");
    let done = apply(&world);
    assert!(done.is_applied, "{done:?}");
    assert_eq!(
        world.shell(&world.host(), "git status --short -uall; cat d/c"),
        " D a\n D c\n?? d/c\n?? moved\nC\n"
    );
    let moved = fs::read_to_string(world.host().join("moved")).unwrap();
    assert!(moved.contains("\nfive\n") && moved.contains("\nfifteen\n"), "{moved}");
    let again = apply(&world);
    assert!(again.changes.is_empty() && again.is_applied, "{again:?}");

    let world = prepared(SETUP);
    world.shell(&world.guest(), "git mv a moved");
    world.shell(&world.host(), "git rm -q a; git commit -qm gone");
    assert_eq!(kinds(&world), [("moved".to_owned(), ConflictKind::RenameDelete)]);
}

#[test]
fn the_next_time_begins_where_the_last_one_ended() {
    let world = prepared(SETUP);
    world.shell(&world.guest(), "sed -i s/^5$/five/ a; echo n >n; rm d/b; printf 'x\\0z' >bin");
    apply(&world);
    // The guest goes on in the same lines, and takes something back.
    world.shell(
        &world.guest(),
        "sed -i s/^five$/FIVE/ a; echo nn >n; git checkout -q d/b; printf 'x\\0v' >bin",
    );
    world.shell(&world.host(), "sed -i s/^15$/fifteen/ a");
    let done = apply(&world);
    assert!(done.is_applied, "{done:?}");
    assert_eq!(world.shell(&world.host(), "git status --short; cat n"), " M a\n M bin\n?? n\nnn\n");
    let diff = world.shell(&world.host(), "git diff -U0 a | grep '^[+-][^+-]'");
    assert_eq!(diff, "-5\n+FIVE\n-15\n+fifteen\n");
    // The host changes what it got; the guest has no news there, and some elsewhere.
    world.shell(&world.host(), "sed -i s/^FIVE$/5.0/ a; rm n");
    world.shell(&world.guest(), "echo more >>c");
    let done = apply(&world);
    assert!(done.is_applied, "{done:?}");
    assert!(done.notes.iter().any(|note| note.contains("'a' stays")), "{:?}", done.notes);
    let diff = world.shell(&world.host(), "git diff -U0 a c | grep '^[+-][^+-]'");
    assert_eq!(diff, "-5\n+5.0\n-15\n+fifteen\n+more\n");
    // The host puts all of it away, and gets it once more.
    world.shell(&world.host(), "git stash -qu; sed -i s/^19$/nineteen/ a");
    let done = apply(&world);
    assert!(done.is_applied, "{done:?}");
    let diff = world.shell(&world.host(), "git diff -U0 a c | grep '^[+-][^+-]'");
    assert_eq!(diff, "-5\n+FIVE\n-19\n+nineteen\n+more\n");
}

#[test]
fn another_checkout_of_the_repository_will_do() {
    let world = prepared(SETUP);
    world.shell(&world.guest(), "sed -i s/^5$/five/ a");
    world.shell(
        world.path(),
        "git clone -q host clone; git -C host worktree add -q ../linked; git init -q other",
    );
    let onto = |name: &str| Onto { path: Some(world.path().join(name)), ..Onto::default() };
    for name in ["clone/d", "linked"] {
        let done = Apply::make(&world.vm(), &world.files(), &onto(name)).unwrap().run().unwrap();
        assert!(done.is_applied && done.changes.len() == 1, "{done:?}");
    }
    assert_eq!(world.shell(&world.host(), "git status --short"), "");
    assert_eq!(world.shell(&world.path().join("clone"), "git status --short"), " M a\n");
    for (name, kind, words) in [
        ("other", banger_doc::Kind::Usage, "no checkout of what went in"),
        ("vm", banger_doc::Kind::Usage, "no checkout"),
        ("nowhere", banger_doc::Kind::NotFound, "no '"),
    ] {
        let error = Apply::make(&world.vm(), &world.files(), &onto(name)).unwrap_err();
        assert!(error.kind() == kind && error.chain().contains(words), "{}", error.chain());
        assert!(error.hint_text().is_some());
    }
}
