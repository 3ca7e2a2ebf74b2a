//! Work in places where few look: what no patch holds of them counts, and spoils nothing else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use world::{applied, counts, worked};

const ONE: &str = "git init -q; mkdir d; echo a >a; echo f >d/f; echo '*.o' >.gitignore; git add -A; git commit -qm one";
const MODULE: &str = "git init -q $TOP/s; (cd $TOP/s; echo 1 >l; git add l; git commit -qm 1); \
                      git init -q; echo a >a; git add a; git submodule -q add $TOP/s lib; git commit -qm one";

#[test]
fn what_is_in_the_index_of_a_submodule_alone_is_work() {
    for work in ["echo 2 >l; git add l; echo 1 >l", "echo n >n; git add n; rm n"] {
        let world = worked(MODULE, &format!("cd lib; {work}"));
        counts(&world, "in the index of the submodule 'lib'");
        assert_eq!(applied(&world), "");
        counts(&world, "in the index of the submodule 'lib'");
        world.shell(&world.guest(), "cd lib; git reset -q; git status");
        assert_eq!(world.unexported(), [""; 0]);
    }
}

#[test]
fn a_new_file_in_a_submodule_does_not_take_its_place() {
    let world = worked(MODULE, "echo n >lib/new; echo more >>a");
    assert_eq!(applied(&world), "M  a\n");
    counts(&world, "1 changed file in submodules");
}

#[test]
fn a_repository_that_was_put_elsewhere_is_told_and_its_files_come_out() {
    let world = worked(ONE, "git init -q --separate-git-dir ../elsewhere; echo more >>a");
    counts(&world, "no '.git' that can be read");
    assert_eq!(applied(&world), "M  a\n");
    counts(&world, "no '.git' that can be read");
    world.prepare(&world.wish()).unwrap_err();
}

#[test]
fn branches_in_tables_are_work() {
    // An older git has no such form, so it is made as gitrepository-layout(5) has it.
    let world = worked(
        ONE,
        "git checkout -qb side; echo s >>a; git commit -qam s; git checkout -q main; \
         rm -r .git/refs .git/packed-refs; mkdir .git/refs .git/reftable; echo none >.git/refs/heads; \
         echo 'ref: refs/heads/.invalid' >.git/HEAD",
    );
    counts(&world, "branches in a form that is not read");
    assert_eq!(applied(&world), "");
    counts(&world, "branches in a form that is not read");
}

#[test]
fn a_version_that_is_committed_and_absent_on_purpose_is_work() {
    let world =
        worked(ONE, "echo more >>d/f; git commit -qam more; git sparse-checkout set --no-cone /a");
    assert!(!world.guest().join("d/f").exists());
    assert_eq!(applied(&world), "");
    counts(&world, "a version of 'd/f', which is absent on purpose");
    world.shell(&world.guest(), "git sparse-checkout disable");
    assert_eq!(applied(&world), "M  d/f\n");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn rules_that_are_absent_on_purpose_are_heeded() {
    let world = worked(
        &format!("{ONE}; git sparse-checkout set --no-cone /d"),
        "echo o >d/x.o; echo n >d/n",
    );
    assert!(!world.guest().join(".gitignore").exists());
    assert_eq!(world.shell(&world.guest(), "git status --short"), "?? d/n\n");
    assert_eq!(applied(&world), "A  d/n\n");
}
