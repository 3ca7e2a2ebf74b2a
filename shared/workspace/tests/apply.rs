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
    make(world).run(&|| false).unwrap_or_else(|error| panic!("{}", error.chain()))
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
        let done = Apply::make(&world.vm(), &world.files(), &onto(name)).unwrap();
        let done = done.run(&|| false).unwrap();
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

#[test]
fn line_ends_lie_as_the_host_has_them() {
    let crlf = "printf 'a\\r\\nb\\r\\nc\\r\\nd\\r\\ne\\r\\nf\\r\\n'";
    let world = prepared(&format!(
        "git init -q; git config core.autocrlf true; {crlf} >w; {crlf} >v; printf 'a\\r\\nb\\nc\\nd\\n' >mixed; \
         git add -A 2>/dev/null; git commit -qm one"
    ));
    world.shell(&world.guest(), "sed -i 's/^b/B/' w; sed -i 's/^a/A/' mixed; printf 'n\\r\\n' >n");
    world.shell(&world.host(), "sed -i 's/^f/F/' w");
    let done = apply(&world);
    assert_eq!((done.merged.len(), done.changes.len()), (1, 3), "{done:?}");
    let files = world.shell(
        &world.host(),
        "od -c w | head -2; git status --short; git diff w | grep -c '^[+-][^+-]'",
    );
    assert!(
        files.contains("B  \\r  \\n") && files.ends_with(" M mixed\n M w\n?? n\n4\n"),
        "{files}"
    );
    world.shell(world.path(), "cmp host/n guest/root/repo/n; cmp host/mixed guest/root/repo/mixed");
    // What git keeps of a file with both sorts of line ends does not tell what went in.
    let world = prepared(
        "git init -q; git config core.autocrlf true; printf 'a\\r\\nb\\nc\\nd\\n' >mixed; git add -A 2>/dev/null; git commit -qm one",
    );
    world.shell(&world.guest(), "sed -i 's/^a/A/' mixed");
    world.shell(&world.host(), "sed -i 's/^d/D/' mixed");
    assert_eq!(kinds(&world), [("mixed".to_owned(), ConflictKind::Content)]);
}

#[test]
fn attributes_say_what_is_merged() {
    let world = prepared(
        "git init -q; seq 20 >lock; seq 20 >log; printf 'lock -merge\\nlog merge=union\\n*.x merge=evil\\n' >.gitattributes; \
         seq 20 >a.x; git config merge.evil.driver 'touch $TOP/ran; false'; git add -A; git commit -qm one",
    );
    world.shell(
        &world.guest(),
        "sed -i s/^5$/g/ log a.x; echo g >>log; git config merge.evil.driver 'touch $TOP/ran'",
    );
    world.shell(&world.host(), "sed -i s/^15$/h/ a.x; echo h >>log");
    let done = apply(&world);
    assert_eq!(done.merged, ["a.x", "log"], "{done:?}");
    assert_eq!(world.shell(&world.host(), "tail -n2 log"), "h\ng\n");
    assert!(!world.path().join("ran").exists());
    world.shell(&world.guest(), "sed -i s/^5$/g/ lock");
    world.shell(&world.host(), "sed -i s/^15$/h/ lock");
    assert_eq!(kinds(&world), [("lock".to_owned(), ConflictKind::Binary)]);
}

#[test]
fn what_a_sparse_checkout_leaves_out_comes_where_the_guest_made_it() {
    let world = prepared(
        "git init -q; mkdir d e; echo a >a; seq 20 >d/b; seq 20 >d/c; echo e >e/e; git add -A; git commit -qm one; \
         git sparse-checkout set --no-cone '/*' '!/d/'",
    );
    assert!(!world.host().join("d").exists());
    world.shell(
        &world.guest(),
        "echo more >>a; git sparse-checkout disable; sed -i s/^5$/five/ d/b",
    );
    assert_eq!(applied(&world), " M a\n M d/b\n");
    assert_eq!(world.shell(&world.host(), "grep -c five d/b; ls d"), "1\nb\n");
}

#[test]
fn submodules_are_left_and_say_so() {
    let world = world::worked(
        "git init -q $TOP/s; (cd $TOP/s; echo 1 >l; git add l; git commit -qm 1); \
         git init -q; echo a >a; git add a; git submodule -q add $TOP/s lib; git commit -qm one",
        "echo more >>a; cd lib; echo 2 >l; git commit -qam 2; cd ..; git add lib; git commit -qm lib",
    );
    let done = apply(&world);
    assert!(done.is_applied && !done.is_exported, "{done:?}");
    assert!(
        done.notes.iter().any(|note| note.contains("'lib' is a submodule")),
        "{:?}",
        done.notes
    );
    assert_eq!(world.shell(&world.host(), "git status --short"), " M a\n");
    assert!(!world.unexported().is_empty());
}

#[test]
fn modes_that_say_nothing_are_kept() {
    let world = prepared(
        "git init -q; git config core.filemode false; echo a >a; chmod 640 a; git add -A; git commit -qm one",
    );
    world.shell(&world.guest(), "echo more >>a; chmod 755 a; echo n >n; chmod +x n");
    assert_eq!(applied(&world), " M a\n?? n\n");
    assert_eq!(world.shell(&world.host(), "stat -c %a a"), "640\n");
    // Otherwise the owner's own are, but for what may be run; setuid is nobody's to give.
    let world = prepared(
        "git init -q; echo a >a; echo b >b; chmod 640 a; chmod 750 b; git add -A; git commit -qm one",
    );
    world.shell(&world.guest(), "echo more >>a; chmod 4755 a; chmod -x b; echo n >n; chmod 6755 n");
    apply(&world);
    let modes = world.shell(&world.host(), "umask; stat -c %a a b n");
    assert_eq!(modes, "0022\n750\n640\n755\n");
}

#[test]
fn names_that_differ_in_case_alone_are_refused_where_that_does_not_count() {
    let world = prepared(
        "git init -q; git config core.ignorecase true; echo a >a; git add -A; git commit -qm one",
    );
    world.shell(
        &world.guest(),
        "git config core.ignorecase false; echo A >A; echo x >x; echo X >X; echo ok >ok",
    );
    let found: Vec<_> = kinds(&world);
    let case = |path: &str| (path.to_owned(), ConflictKind::Case);
    assert_eq!(found, [case("A"), case("X"), case("x")]);
}

#[test]
fn a_directory_without_git_gets_its_work_too() {
    let world = prepared("seq 20 >a; mkdir d; echo b >d/b; echo c >c");
    world.shell(&world.guest(), "sed -i s/^5$/five/ a; rm c; echo n >d/n; git init -q");
    world.shell(&world.host(), "sed -i s/^15$/fifteen/ a; echo mine >mine");
    let done = apply(&world);
    assert!(done.is_applied && done.merged == ["a"], "{done:?}");
    assert_eq!(
        world.shell(&world.host(), "ls -A . d; grep -c f a"),
        ".:\na\nd\nmine\n\nd:\nb\nn\n2\n"
    );
    world.shell(&world.guest(), "echo g >mine");
    assert_eq!(kinds(&world), [("mine".to_owned(), ConflictKind::AddAdd)]);
}

#[test]
fn a_prepare_is_a_new_beginning() {
    let world = prepared(SETUP);
    world.shell(&world.guest(), "sed -i s/^5$/five/ a");
    apply(&world);
    world.shell(&world.host(), "git commit -qam five; sed -i s/^5/V/ a; sed -i s/^five$/V/ a");
    let wish = banger_workspace::Wish { force: true, ..world.wish() };
    world.prepare(&wish).unwrap();
    world.shell(&world.guest(), "sed -i s/^15$/fifteen/ a");
    assert_eq!(applied(&world), " M a\n");
    assert_eq!(
        world.shell(&world.host(), "git diff -U0 | grep '^[+-][^+-]'"),
        "-five\n+V\n-15\n+fifteen\n"
    );
}

#[test]
fn odd_names_and_many_files_come_whole() {
    let world = prepared("git init -q; echo a >a; git add a; git commit -qm one");
    world.shell(
        &world.guest(),
        "deep=$(printf 'd/%.0s' $(seq 200)); mkdir -p $deep; echo x >$deep/x; echo n >$'new\\nline'; echo q >'\"q\" $(x)'; \
         echo b >$'\\xff\\xfe'; echo c >:colon; echo m >-minus; for i in $(seq 300); do echo $i >f$i; done; echo t >.banger-mine",
    );
    let done = apply(&world);
    assert!(done.is_applied, "{done:?}");
    same_files(&world);
    // An agent's own litter is none of the work.
    assert!(world.host().join("f300").exists());
}

#[test]
fn one_that_is_over_before_the_first_file_changes_leaves_nothing() {
    let world = prepared(SETUP);
    world.shell(&world.guest(), "for i in 1 2 3 4; do echo $i >n$i; done; sed -i s/^5$/five/ a");
    let before = world.shell(&world.host(), "git status -s; ls -A");
    let looks = std::cell::Cell::new(0);
    let is_over = || looks.replace(looks.get() + 1) == 3;
    let error = make(&world).run(&is_over).unwrap_err();
    assert!(error.to_string().starts_with("nothing was changed in"), "{}", error.chain());
    assert_eq!(world.shell(&world.host(), "git status -s; ls -A"), before);
    assert!(banger_workspace::guest_work(&world.vm(), &world.files()).unwrap().len() == 1);
    assert!(apply(&world).is_applied);
    same_files(&world);
}
