//! Git takes a file for unchanged by its size and the second of its time, unless its index is no older.
//! What that hides on one side must not be hidden on the other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use world::World;

/// A commit of a file, with the times of both at `$T`, and both as the guest's git will look at them.
const COMMITTED: &str = "git init -q; git config core.checkStat minimal; git config core.trustctime false; \
                         echo aaa >a; touch -d @$T a; git add a; git commit -qm one; touch -d @$T .git/index";
const STATUS: &str = "git --no-optional-locks status --porcelain";

fn at(time: &str, script: &str) -> String {
    format!("T={time}; {script}")
}

#[test]
fn an_edit_in_the_second_of_the_commit_is_seen_in_the_guest() {
    let world = World::new(&at("1700000000", COMMITTED));
    let edit = "echo bbb >a; touch -d @1700000000 a";
    world.shell(&world.host(), edit);
    assert_eq!(world.shell(&world.host(), STATUS), " M a\n");
    world.prepare(&world.wish()).unwrap();
    assert_eq!(world.shell(&world.guest(), STATUS), " M a\n");
}

#[test]
fn an_edit_that_a_second_prepare_brings_is_seen_in_the_guest() {
    let world = World::new(&at("1700000000", COMMITTED));
    world.prepare(&world.wish()).unwrap();
    assert_eq!(world.shell(&world.guest(), "git status --porcelain"), "");
    world.shell(&world.host(), "echo bbb >a; touch -d @1700000000 a");
    world.prepare(&world.wish()).unwrap();
    assert_eq!(world.shell(&world.guest(), STATUS), " M a\n");
    // And its end too.
    world.shell(&world.host(), "echo aaa >a; touch -d @1700000000 a");
    world.prepare(&world.wish()).unwrap();
    assert_eq!(world.shell(&world.guest(), STATUS), "");
}

#[test]
fn an_edit_in_the_second_of_the_prepare_is_seen_in_the_guest() {
    let world = World::new(&at("$(date +%s)", COMMITTED));
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.guest(), "echo bbb >a");
    assert_eq!(world.shell(&world.guest(), STATUS), " M a\n");
}

/// As where the guest's clock is behind the host's.
#[test]
fn an_edit_of_a_file_from_the_future_is_seen_in_the_guest() {
    let world = World::new(&at("4000000000", COMMITTED));
    world.prepare(&world.wish()).unwrap();
    assert_eq!(world.shell(&world.guest(), STATUS), "");
    world.shell(&world.guest(), "echo bbb >a; touch -d @4000000000 a");
    assert_eq!(world.shell(&world.guest(), STATUS), " M a\n");
}

/// A filter that the guest lacks: read again, the file would look changed.
#[test]
fn what_is_unchanged_is_not_read_again() {
    let world = World::new(
        "git init -q; echo '*.big filter=x' >.gitattributes; git config filter.x.clean 'tr a-z A-Z'; \
         git config filter.x.smudge cat; echo large >x.big; git add -A; git commit -qm one; sleep 0.02; git status -s",
    );
    world.prepare(&world.wish()).unwrap();
    assert_eq!(world.shell(&world.guest(), STATUS), "");
    world.shell(&world.guest(), "touch -d @1700000000 x.big");
    assert_eq!(world.shell(&world.guest(), STATUS), " M x.big\n", "the case is one");
}
