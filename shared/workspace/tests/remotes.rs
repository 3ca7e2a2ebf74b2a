//! What goes with a repository beside its own commits: remotes, the branches that work is compared with,
//! and nothing that is secret or of another repository.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use std::fs;
use world::World;

/// Says the same things of a repository on either side.
#[track_caller]
fn same_on_both_sides(world: &World, script: &str) {
    let host = world.shell(&world.host(), script);
    assert_eq!(world.shell(&world.guest(), script), host, "{script}");
    let damaged = world.shell(&world.guest(), "git fsck --strict --no-dangling 2>&1");
    assert_eq!(damaged, "");
}

/// A fork: `upstream` is where it comes from, `origin` the own one.
const FORK: &str = "git init -q $TOP/up; (cd $TOP/up; echo a >a; git add a; git commit -qm one); \
     git clone -q -o upstream $TOP/up .; git clone -q --bare $TOP/up $TOP/own; git remote add origin $TOP/own; \
     git checkout -q -b feat; echo f >f; git add f; git commit -qm f; git push -q -u origin feat";

#[test]
fn remotes_that_branches_name_go_whole() {
    let world = World::new(FORK);
    let settings = "git config branch.feat.pushRemote upstream; git branch -q -t local main; \
         git branch -q gone; git config branch.gone.remote nowhere; git config branch.gone.merge refs/heads/x; \
         git remote add unused /srv/unused; git config remote.unused.url /srv/unused";
    world.shell(&world.host(), settings);
    world.prepare(&world.wish()).unwrap();
    let both = "git status -sb; git remote get-url origin; git remote get-url upstream; \
         git for-each-ref --format='%(refname) %(upstream)' refs/heads; git rev-parse upstream/main; \
         git rev-parse --abbrev-ref upstream/HEAD; git symbolic-ref refs/remotes/upstream/HEAD; \
         git config branch.feat.pushremote; git checkout -q main; git status -sb; git checkout -q feat";
    same_on_both_sides(&world, both);
    let config = fs::read_to_string(world.guest().join(".git/config")).unwrap();
    assert!(!config.contains("nowhere") && !config.contains("unused"), "{config}");
    world.shell(&world.guest(), "git fetch -q --multiple origin upstream");
}

#[test]
fn no_address_has_a_secret() {
    let world = World::new(FORK);
    let secrets = "git config remote.origin.url https://me:hunter2@example.org/own.git; \
         git config --add remote.origin.url https://hunter2@example.org/second.git; \
         git config remote.origin.pushurl https://hunter2@example.org/own.git; \
         git config remote.upstream.url 'https://example.org/up.git?private_token=hunter2'; \
         git config url.https://hunter2@example.org/.insteadOf https://example.org/; \
         git config url.https://hunter2@example.org/.pushInsteadOf https://example.org/; \
         git config branch.feat.pushRemote https://me:hunter2@example.org/push.git; \
         git branch -q other; git config branch.other.remote https://hunter2@example.org/main.git; \
         git config branch.other.merge refs/heads/main; \
         git config submodule.lib.url https://hunter2@example.org/lib.git; git config submodule.lib.active true; \
         git config http.https://example.org/.extraHeader 'Authorization: hunter2'; \
         git config http.proxy http://me:hunter2@proxy; git config remote.origin.proxy http://me:hunter2@proxy; \
         git config credential.https://example.org.username hunter2";
    world.shell(&world.host(), secrets);
    world.prepare(&world.wish()).unwrap();
    let found = world.shell(&world.guest(), "grep -rIl hunter2 . || true");
    assert_eq!(found, "");
    let asked = "git remote -v; git config branch.other.remote; git config branch.feat.pushremote";
    assert_eq!(
        world.shell(&world.guest(), asked),
        "origin\thttps://example.org/own.git (fetch)\norigin\thttps://example.org/own.git (push)\n\
         upstream\thttps://example.org/up.git (fetch)\nupstream\thttps://example.org/up.git (push)\n\
         https://example.org/main.git\nhttps://example.org/push.git\n"
    );
    // One that is whole has them too.
    let world = World::new(FORK);
    world.shell(&world.host(), secrets);
    let mode = banger_doc::WorkspaceMode::FullCopy;
    world.prepare(&banger_workspace::Wish { mode, ..world.wish() }).unwrap();
    assert_eq!(world.shell(&world.guest(), "grep -rIl hunter2 . || true"), "");
}

/// A branch of one commit from `main`, which has moved on by `$1` commits since.
const MOVED: &str = "git init -q $TOP/up; \
     commits() { for i in $(seq $2); do echo $1$i >>$1; git add $1; git commit -qm $1$i; done; }; \
     (cd $TOP/up; commits m 15); git clone -q $TOP/up .; git checkout -q -b feat; commits f 1; \
     (cd $TOP/up; commits m $MORE); git fetch -q";

const COMPARED: &str = "for base in origin/main origin/HEAD; do git merge-base HEAD $base; git diff --stat $base...HEAD; \
     git rev-list --left-right --count $base...HEAD; git log --format=%s $base..HEAD; done; \
     git rev-parse origin/main; git rev-parse --abbrev-ref origin/HEAD; git symbolic-ref refs/remotes/origin/HEAD; git status -sb";

#[test]
fn work_can_be_compared_with_the_branch_it_began_at() {
    let world = World::new(&format!("MORE=25; {MOVED}"));
    world.prepare(&world.wish()).unwrap();
    same_on_both_sides(&world, COMPARED);
    let count = world.shell(&world.guest(), "git rev-list --all --count");
    assert!(count.trim().parse::<u32>().unwrap() < 40, "not all of it goes: {count}");
    // The base moves, and nothing else does.
    let again = |script: &str| {
        world.shell(&world.host(), script);
        world.prepare(&world.wish()).unwrap();
        same_on_both_sides(&world, COMPARED);
    };
    again("(cd $TOP/up; echo x >x; git add x; git commit -qm x); git fetch -q");
    again("git merge -q origin/main -m merged");
    again(
        "(cd $TOP/up; for i in $(seq 12); do echo $i >x; git commit -qam x$i; done); git fetch -q",
    );
    again("git rebase -q origin/main");
    again("git checkout -q -b older HEAD~20; echo o >o; git add o; git commit -qm o");
    again("git update-ref refs/remotes/origin/main HEAD~12");
}

#[test]
fn a_base_is_found_without_a_word_from_its_remote() {
    let world = World::new(&format!(
        "MORE=12; {MOVED}; git remote set-head origin -d; git branch -q -f main origin/main; git branch -q -u origin/main main"
    ));
    world.prepare(&world.wish()).unwrap();
    same_on_both_sides(
        &world,
        "git merge-base HEAD main; git diff --stat main...HEAD; git diff --stat origin/main...HEAD",
    );
    // No remote at all: the local one.
    let world = World::new(&format!(
        "MORE=12; {MOVED}; git branch -q -f main origin/main; git remote rm origin"
    ));
    world.prepare(&world.wish()).unwrap();
    same_on_both_sides(&world, "git merge-base HEAD main; git diff --stat main...HEAD");
}

#[test]
fn merges_on_the_way_are_whole() {
    let merges = "git merge -q origin/main~8 -m first; commits f 3; git checkout -q -b side origin/main~20; commits s 2; \
         git checkout -q feat; git merge -q side -m second; commits f 14; git merge -q -s ours origin/main~6 -m third; \
         old=$(git rev-parse origin/main~22); \
         odd=$(git commit-tree -p HEAD -p $old -m odd 'HEAD^{tree}'); git reset -q --hard $odd; commits f 2";
    let world = World::new(&format!("MORE=25; {MOVED}; {merges}"));
    world.prepare(&world.wish()).unwrap();
    same_on_both_sides(&world, COMPARED);
}

#[test]
fn a_base_that_is_too_far_away_stays_behind_and_is_named() {
    let far = "git init -q; echo a >a; git add a; git commit -qm one; git checkout -q -b feat; \
         { for i in $(seq 1001); do printf 'commit refs/heads/main\\ncommitter A <a@b> %d +0000\\ndata 1\\nx\\n' $((1000000000 + i)); \
         if [ $i = 1 ]; then echo 'from refs/heads/feat^0'; fi; done; } | git fast-import --quiet --force";
    let world = World::new(far);
    let record = world.prepare(&world.wish()).unwrap();
    let said = |record: &banger_doc::Workspace| {
        record.notes.iter().filter(|note| note.contains("'main' is more than 1000 commits")).count()
    };
    assert_eq!(said(&record), 1, "{:?}", record.notes);
    assert_eq!(
        world.shell(&world.guest(), "git branch --format='%(refname)'"),
        "refs/heads/feat\n"
    );
    world.shell(&world.host(), "echo b >>a");
    assert_eq!(said(&world.prepare(&world.wish()).unwrap()), 1, "it is said again");
    world.shell(&world.host(), "git branch -q -f main main~1");
    let record = world.prepare(&world.wish()).unwrap();
    assert_eq!(said(&record), 0, "{:?}", record.notes);
    world.shell(&world.host(), "git commit -qam b");
    world.prepare(&world.wish()).unwrap();
    same_on_both_sides(&world, "git rev-list --count main; git merge-base main HEAD");
}

#[test]
fn nothing_of_another_repository_goes_along() {
    let private = "git init -q $TOP/a; cd $TOP/a; echo private >p; git add p; git commit -qm private; \
         git tag secret; echo '*.o' >.git/info/exclude";
    let public = "git init -q; echo b >b; git add b; git commit -qm b; git branch other";
    for (between, force) in
        [("rm -rf repo", true), ("true", false), ("echo w >>repo/p; echo o >repo/o.o", true)]
    {
        let world = World::new(&format!("{public}; {private}"));
        let first = world.path().join("a");
        let wish = banger_workspace::Wish { path: first.clone(), ..world.wish() };
        world.prepare(&wish).unwrap();
        let private = world.shell(&first, "git rev-parse HEAD HEAD:p");
        let beside = world.guest().parent().unwrap().to_owned();
        world.shell(&beside, between);
        // One that is refused leaves all as it was.
        let before = world.unexported();
        let refused =
            banger_workspace::Wish { branch: Some("other".into()), force, ..world.wish() };
        world.prepare(&refused).unwrap_err();
        assert_eq!(world.unexported(), before);
        let record = world.prepare(&banger_workspace::Wish { force, ..world.wish() }).unwrap();
        let is_said = record.notes.iter().any(|note| note.contains("another repository, which is"));
        assert_eq!(is_said, between != "rm -rf repo", "{:?}", record.notes);
        same_on_both_sides(&world, "git log --all --format=%H; git status -sb; ls; git tag");
        for oid in private.lines() {
            let asked = format!("git cat-file -t {oid} 2>&1 || true");
            assert!(world.shell(&world.guest(), &asked).starts_with("fatal"), "{oid} went along");
        }
        if between != "rm -rf repo" {
            let aside = beside.join("repo.before-1");
            assert_eq!(world.shell(&aside, "git status -sb | head -n 1"), "## main\n");
        }
        // The same again, from a copy that lies elsewhere: an update in its place.
        world
            .shell(&world.host(), "cp -r . $TOP/copy; cd $TOP/copy; echo c >>b; git commit -qam c");
        let copy = banger_workspace::Wish { path: world.path().join("copy"), ..world.wish() };
        world.prepare(&copy).unwrap();
        assert!(!beside.join("repo.before-2").exists());
        assert_eq!(world.unexported(), [""; 0]);
    }
}
