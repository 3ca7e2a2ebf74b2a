//! A push to the branch that a guest has checked out: its files and index go along, or nothing changes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use banger_workspace::{Offer, Outcome, Push, Wish};
use world::{World, fingerprint, worked};

const SETUP: &str = "git init -q; seq 9 >a; seq 20 >b; echo x >x; mkdir d e; echo 1 >d/1; echo 2 >d/2; echo f >e/f; \
                     ln -s a l; printf 'x\\0y' >bin; echo '*.o' >.gitignore; git add -A; git commit -qm one";
/// What the host commits: changes of every sort.
const NEXT: &str = "echo more >>a; chmod +x b; git mv x y; ln -sf b l; printf 'p\\0q' >bin; git rm -q d/1; \
                    git rm -qr e; echo file >e; mkdir n; echo new >n/new; git add -A; git commit -qm two";

fn push(world: &World, spec: &str, dry_run: bool) -> banger_doc::Result<Outcome> {
    let files = world.files();
    let mut offer = Offer::make(&world.vm(), &files)?;
    let wanted = [Push::parse(spec).unwrap()];
    let mut done = offer.push(&files, &world.host(), &[], &wanted, dry_run)?;
    Ok(done.remove(0))
}

/// Both have the same commit, the same files but for what `apart` names, and nothing uncommitted.
fn agree(world: &World, apart: &str) {
    let script = format!("diff -r --no-dereference -x .git {apart} host guest/root/repo");
    world.shell(world.path(), &script);
    let state = "git rev-parse HEAD main; git symbolic-ref HEAD; git status --porcelain -uno; git fsck --strict --no-dangling; \
                 find . -name .git -prune -o -type f -perm -100 -print | sort";
    assert_eq!(world.shell(&world.guest(), state), world.shell(&world.host(), state));
}

#[test]
fn it_moves_forward_with_its_files_and_all_goes_on_from_there() {
    let world = worked(
        SETUP,
        "seq 30 >b; echo w >w; git add w; git commit -qam guest; echo o >d/x.o; echo mine >notes",
    );
    world.pull().unwrap();
    world.shell(&world.host(), &format!("git merge -q --ff-only web/main; {NEXT}"));
    let before = fingerprint(&world.guest());
    assert!(push(&world, "main", true).unwrap().is_ok());
    assert_eq!(fingerprint(&world.guest()), before, "a dry run");
    let done = push(&world, "main", false).unwrap().unwrap();
    assert_ne!(done.before, done.after);
    agree(&world, "-x x.o -x notes");
    world.shell(&world.guest(), "grep -q o d/x.o; grep -q mine notes");
    let found = world.unexported().join("; ");
    assert_eq!(found, "1 changed file (notes)", "what was pushed is no work");
    world.shell(&world.guest(), "rm notes");
    // It is so already.
    assert_eq!(push(&world, "main", false).unwrap().unwrap().before, done.after);
    // What is done on either side from there is new.
    world.shell(&world.host(), "echo edit >>a; rm b");
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.guest(), "test ! -e b; tail -n1 a | grep -q edit; git fsck --strict");
    world.shell(&world.guest(), "sleep 0.02; echo again >>y; git commit -qm g y");
    let found = world.unexported().join("; ");
    assert!(found.contains("(y)") && found.contains("1 commit on branch 'main'"), "{found}");
    world.shell(&world.host(), "git checkout -q .");
    let patch = String::from_utf8(world.export()).unwrap();
    assert!(
        patch.contains("+again") && !patch.contains("edit") && !patch.contains("n/new"),
        "{patch}"
    );
}

#[test]
fn what_is_there_already_is_in_nobodys_way() {
    let world = worked(
        SETUP,
        "mkdir n; echo new >n/new; echo more >>a; echo own >>.git/info/exclude; echo k >own",
    );
    world.shell(&world.host(), NEXT);
    push(&world, "main", false).unwrap().unwrap();
    agree(&world, "-x own");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn what_the_guest_ignores_stays_where_the_commit_deletes_it() {
    let world = worked(SETUP, "git rm -q --cached d/1; echo d/1 >>.git/info/exclude; echo w >>d/1");
    world.shell(&world.host(), NEXT);
    push(&world, "main", false).unwrap().unwrap();
    world.shell(&world.guest(), "tail -n1 d/1 | grep -q w; rm d/1");
    agree(&world, "");
}

#[test]
fn line_ends_and_files_that_went_untracked_go_as_git_has_them() {
    let world = World::new(
        "git init -q; git config core.autocrlf true; printf 'a\\r\\n' >a; printf 'b\\r\\n' >b; git add -A; git commit -qm one; echo key >key",
    );
    world.prepare(&Wish { include_untracked: true, ..world.wish() }).unwrap();
    world.shell(
        &world.host(),
        "printf 'a\\r\\nmore\\r\\n' >a; printf 'c\\r\\n' >c; git add a c; git commit -qm two",
    );
    push(&world, "main", false).unwrap().unwrap();
    agree(&world, "");
    assert_eq!(world.unexported(), [""; 0]);
    world.shell(&world.host(), "git add key; git commit -qm three");
    push(&world, "main", false).unwrap().unwrap();
    agree(&world, "");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn where_something_would_be_lost_nothing_changes() {
    let cases = [
        ("echo w >>a", "'a' has changes there that are not committed"),
        ("echo w >>d/2", "'d/2' has changes there that are not committed"),
        ("rm b", "'b' has changes there that are not committed"),
        ("chmod +x a", "'a' has changes there that are not committed"),
        ("echo w >>d/1", "'d/1' has changes there that are not committed"),
        ("echo w >>d/2; git add d/2; git show HEAD:d/2 >d/2", "'d/2' has staged changes"),
        ("git rm -q --cached d/2", "'d/2' has staged changes"),
        ("echo n >i; git add -N i", "'i' is in conflict there, or only meant to be added"),
        ("mkdir n; echo own >n/new", "'n/new' there is in the way"),
        ("mkdir n; echo own >n/new; echo n >>.git/info/exclude", "'n/new' there is in the way"),
        ("echo own >n", "'n' there is in the way"),
        ("ln -s /tmp n", "'n' there is in the way"),
        ("ln -s /tmp n; echo n >>.git/info/exclude", "'n' there is in the way"),
        ("git init -q n", "'n' there is in the way"),
        ("echo own >e/own", "'e' there is in the way"),
        ("echo o >e/x.o", "'e' there is in the way"),
        ("mkdir -p e/g/h", "'e' there is in the way"),
        ("mkfifo n; echo n >>.git/info/exclude", "'n' there is in the way"),
        ("git rev-parse HEAD >.git/CHERRY_PICK_HEAD", "a merge, a rebase or the like is going on"),
        ("git sparse-checkout set d", "its checkout is a sparse one"),
        ("git commit -q --allow-empty -m own", "non-fast-forward"),
    ];
    for (work, words) in cases {
        let world = worked(SETUP, work);
        world.shell(&world.host(), NEXT);
        let before = fingerprint(&world.guest());
        for (spec, dry_run) in [("main", true), ("main", false), ("+main", false)] {
            let why = push(&world, spec, dry_run).unwrap();
            let why = why.expect_err(work);
            assert!(why.contains(words), "{work}: {why}");
            assert!(why.contains("checked out in the guest") || spec == "main", "{work}: {why}");
        }
        assert_eq!(fingerprint(&world.guest()), before, "{work}");
    }
    let world = worked(SETUP, "touch .git/index.lock");
    world.shell(&world.host(), NEXT);
    let before = fingerprint(&world.guest());
    let error = push(&world, "main", false).unwrap_err();
    assert!(error.chain().contains(".git/index.lock"), "{}", error.chain());
    assert!(push(&world, ":main", false).unwrap().unwrap_err().contains("not deleted"));
    assert_eq!(fingerprint(&world.guest()), before);
}

#[test]
fn what_git_would_run_something_for_is_left_to_the_guest() {
    let world = worked(SETUP, "");
    world.shell(
        &world.host(),
        "echo '*.big filter=lfs' >.gitattributes; echo pointer >x.big; git add -A; git commit -qm big",
    );
    let before = fingerprint(&world.guest());
    let why = push(&world, "main", false).unwrap().unwrap_err();
    assert!(why.contains("'x.big' goes through a filter"), "{why}");
    assert_eq!(fingerprint(&world.guest()), before);
}
