//! What an export leaves out is never deleted by it, and always counts as work.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use banger_doc::{WorkKind, WorkspaceMode};
use banger_workspace::{Apply, Onto};
use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};
use world::{World, applied, counts, files_by, files_within, worked};

const ONE: &str = "git init -q; mkdir -p app/src; echo p >app/package.json; echo i >app/src/i.js; \
                   echo '*.o' >app/.gitignore; echo a >a; git add -A; git commit -qm one";

#[test]
fn a_look_at_the_guest_does_not_wait_for_the_host() {
    let world = worked(ONE, "echo w >>a");
    // Nobody reads all of that.
    world.shell(&world.host(), "truncate -s 4T app/package.json");
    let begun = Instant::now();
    let work = banger_workspace::guest_work(&world.vm(), &files_within(Duration::from_mins(1)));
    assert_eq!(work.unwrap().len(), 1);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let files = files_within(Duration::from_secs(10));
    let found = banger_workspace::status(&world.vm(), &files, true, &[]).unwrap();
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
    assert_eq!(found.unexported.len(), 1);
    assert!(found.notes.iter().any(|note| note.contains("no time to read")), "{:?}", found.notes);
}

#[test]
fn a_program_counts_on_kinds_paths_and_references() {
    let world = worked(
        ONE,
        "echo w >>a; echo w >b; git rm -q --cached app/src/i.js; \
         git init -q inner; echo w >inner/w; git worktree add -q -b side $TOP/elsewhere; \
         git tag mark; git checkout -q -b work; git commit -q --allow-empty -m two; \
         echo only >c; git add c; rm c",
    );
    let work = world.work();
    let find = |kind, path: Option<&str>, reference: Option<&str>| {
        let found = work.iter().find(|work| {
            work.kind == kind
                && work.path.as_deref() == path
                && work.reference.as_deref() == reference
        });
        found.unwrap_or_else(|| panic!("{kind:?} {path:?} {reference:?}: {work:#?}")).count
    };
    assert_eq!(find(WorkKind::Changes, Some("a"), None), Some(2));
    assert_eq!(find(WorkKind::Head, None, Some("refs/heads/work")), None);
    for reference in ["refs/heads/work", "refs/heads/side", "refs/tags/mark"] {
        find(WorkKind::Commits, None, Some(reference));
    }
    assert_eq!(find(WorkKind::Index, Some("c"), None), Some(1));
    assert_eq!(find(WorkKind::Untracked, None, None), Some(1));
    find(WorkKind::Repository, Some("inner"), None);
    let elsewhere = world.path().join("elsewhere").display().to_string();
    find(WorkKind::WorkTree, Some(&elsewhere), None);
    let said = serde_json::to_value(&work[0]).unwrap();
    assert_eq!(said["kind"], "changes");
    assert_eq!(said["words"], "2 changed files (a, b)");
}

#[test]
fn work_is_told_as_a_person_would() {
    let said = |world: &World| banger_doc::Work::list(&world.work());
    let lines = "git checkout -q -b lines; echo 1 >lines.c; git add lines.c; git commit -qm 1; \
                 echo 2 >tally.c; git add tally.c; git commit -qm 2; echo 3 >>lines.c; echo n >new";
    let world = worked(ONE, &format!("{lines}; git add lines.c"));
    let work = "3 changed files (lines.c, ...), 2 commits on branch 'lines', staged changes";
    assert_eq!(said(&world), work);
    world.shell(&world.host(), "echo h >>a; git commit -qam h");
    let error = world.prepare(&world.wish()).unwrap_err();
    assert!(error.to_string().ends_with(&format!("has work of its own: {work}")), "{error}");
    assert_eq!(error.hint_text(), Some("'banger workspace pull web' brings it out"));
    let refused = banger_workspace::Stake::Work(world.work()).refuse("web").unwrap_err();
    assert_eq!(refused.to_string(), format!("VM 'web' holds work that was not exported: {work}"));
    assert_eq!(refused.hint_text(), Some("'banger workspace pull web' brings it out"));
    // What is committed is not staged as well.
    world.shell(&world.guest(), "git add -A; git commit -qm 3");
    assert_eq!(said(&world), "3 changed files (lines.c, ...), 3 commits on branch 'lines'");
    // Commits that an export took are out.
    world.export();
    world.shell(&world.guest(), "git commit -q --allow-empty -m 4; git checkout -q -b side HEAD~2");
    let sides = "1 commit on branch 'lines', 2 commits on branch 'side'";
    assert!(said(&world).ends_with(sides), "{}", said(&world));
    // What is packed is not counted, and is no less.
    world.shell(&world.guest(), "git checkout -q lines; git repack -qad; git prune-packed");
    assert!(said(&world).contains("commits on branch 'lines'"), "{}", said(&world));
}

#[test]
fn commits_are_counted_where_they_are_loose() {
    let said = |work: &str| banger_doc::Work::list(&worked(ONE, work).work());
    let commit = "git commit -q --allow-empty -m x";
    assert_eq!(
        said(&format!("git checkout -q --detach; {commit}; {commit}")),
        "2 commits on a detached HEAD"
    );
    assert_eq!(said("git branch w"), "new branch 'w' without commits of its own");
    assert_eq!(said("git tag -a -m w w"), "new tag 'w' without commits of its own");
    assert_eq!(
        said(&format!("{commit}; git tag w; git reset -q --hard HEAD~1")),
        "1 commit on tag 'w'"
    );
    let merged = format!(
        "git checkout -q -b b; {commit}; git checkout -q main; {commit}y; git merge -q --no-edit b"
    );
    assert_eq!(said(&merged), "1 commit on branch 'b', 3 commits on branch 'main'");
    // No log says what to look for.
    let many =
        format!("git config core.logAllRefUpdates false; for i in 1 2 3 4 5; do {commit}; done");
    assert_eq!(said(&many), "5 commits on branch 'main'");
    assert_eq!(
        said("git update-ref refs/notes/x HEAD"),
        "new 'notes/x' without commits of its own"
    );
    assert_eq!(said("echo w >>a; git stash -q"), "stashed changes");
    // One that lies under another's name is none.
    let forged = format!(
        "{commit}; h=$(git rev-parse HEAD); {commit}; o=.git/objects; \
         n=$(git rev-parse HEAD); rm -f $o/${{n:0:2}}/${{n:2}}; cp $o/${{h:0:2}}/${{h:2}} $o/${{n:0:2}}/${{n:2}}"
    );
    assert_eq!(said(&forged), "commits on branch 'main'");
    let sha256 = worked(&ONE.replace("git init -q", "git init -q --object-format=sha256"), commit);
    assert_eq!(banger_doc::Work::list(&sha256.work()), "1 commit on branch 'main'");
}

#[test]
fn a_repository_begun_in_a_tracked_directory_deletes_nothing() {
    let world = worked(ONE, "cd app; git init -q; echo new >new.js");
    counts(&world, "the repository 'app'");
    assert_eq!(applied(&world), "A  app/new.js\n", "as the outer git has it");
    counts(&world, "the repository 'app'");
    world.shell(&world.guest(), "echo edit >>app/src/i.js");
    world.shell(&world.host(), "git reset -q --hard");
    assert_eq!(applied(&world), "A  app/new.js\nM  app/src/i.js\n");
}

#[test]
fn a_new_repository_inside_is_work() {
    let world = worked(
        ONE,
        "mkdir web; cd web; git init -q; echo hours >index.js; git add -A; git commit -qm web",
    );
    counts(&world, "the repository 'web'");
    assert_eq!(applied(&world), "");
    counts(&world, "the repository 'web'");
    world.shell(&world.guest(), "rm -rf web");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn a_repository_that_a_rule_ignores_is_as_other_ignored_files() {
    let world = worked(
        &format!("{ONE}; printf 'dep/\\n' >.gitignore; git add -A; git commit -qm two"),
        "mkdir dep; cd dep; git init -q; echo x >x",
    );
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn linked_work_trees_are_work_wherever_they_lie() {
    for work in [
        "git worktree add -q --detach .claude/worktrees/y; echo x >.claude/worktrees/y/new",
        "git worktree add -q -b x ../elsewhere; cd ../elsewhere; echo x >new; git add new",
        "echo .claude/ >>.git/info/exclude; git worktree add -q --detach .claude/worktrees/y",
        "git worktree add -q --detach w; cd w; echo x >x; git add x; git commit -qm x; cd ..; rm -rf w",
    ] {
        let world = worked(ONE, work);
        world.export();
        let found = world.unexported();
        let said = |words: &str| found.iter().any(|found| found.contains(words));
        assert!(
            said("the work tree '") || said("worktrees/y' inside the workspace"),
            "{work}: {found:?}"
        );
    }
    let world = worked(ONE, "git worktree add -q --detach w; git worktree remove w");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn many_linked_work_trees_are_asked_of_at_once() {
    let stale = "cd .git/worktrees; head=$(git rev-parse HEAD); \
                 mkdir $(seq -f s%.0f $MANY); for i in $(seq $MANY); do echo /gone/s$i/.git >s$i/gitdir; echo $head >s$i/HEAD; done";
    let real = "git worktree add -q --detach $TOP/elsewhere";
    let world = worked(ONE, &format!("{real}; MANY=300; {stale}"));
    let streams = AtomicUsize::new(0);
    let files = files_by(|| {
        streams.fetch_add(1, Ordering::Relaxed);
        world::connect()
    });
    let found = banger_workspace::status(&world.vm(), &files, true, &[]).unwrap().unexported;
    assert_eq!(found.len(), 1, "{found:?}");
    let found: Vec<String> = found.into_iter().map(|work| work.words).collect();
    assert!(found[0].contains("the work tree '") && found[0].contains("elsewhere"), "{found:?}");
    let count = streams.load(Ordering::Relaxed);
    assert!(count < 20, "{count} streams");
    // Those that are not looked at count as well.
    world.shell(&world.guest(), "rm -r .git/worktrees $TOP/elsewhere");
    assert_eq!(world.unexported(), [""; 0]);
    world.shell(&world.guest(), &format!("mkdir .git/worktrees; MANY=4097; {stale}"));
    assert_eq!(world.unexported(), ["more linked work trees"]);
}

#[test]
fn files_that_were_untracked_and_are_ignored_leave_the_host_too() {
    let world = worked(
        "git init -q; echo S >.env; mkdir node_modules; echo m >node_modules/m.js; echo a >a; git add -A; \
         git commit -qm one",
        "git rm -rq --cached node_modules .env; printf '.env\\nnode_modules/\\n' >.gitignore; \
         git add .gitignore; git commit -qm untrack",
    );
    assert_eq!(applied(&world), "D  .env\nA  .gitignore\nD  node_modules/m.js\n");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn a_branch_that_was_merged_is_out_with_the_sum_and_another_is_not() {
    let commit = |file: &str| format!("echo {file} >{file}; git add {file}; git commit -qm {file}");
    let (b, m, side) = (commit("b"), commit("m"), commit("s"));
    let work = format!(
        "git checkout -qb b; {b}; git checkout -qb side main; {side}; git checkout -q main; {m}; \
         git merge -q --no-edit b; git branch same; git tag light; git tag -a -m words annotated b"
    );
    let world = worked(ONE, &work);
    let left = || world.unexported();
    world.export();
    let tag = "new tag 'annotated' without commits of its own";
    assert_eq!(left(), ["1 commit on branch 'side'", tag]);
    // It goes on.
    world.shell(
        &world.guest(),
        &format!("git tag -d annotated; git checkout -q b; {}", commit("b2")),
    );
    assert!(left().iter().any(|work| work == "1 commit on branch 'b'"), "{:?}", left());
    // An apply brings the same sum.
    world.shell(
        &world.guest(),
        "git checkout -q main; git merge -q --no-edit b; git branch -D side",
    );
    let apply = Apply::make(&world.vm(), &world.files(), &Onto::default()).unwrap();
    assert!(apply.run(&|| false).unwrap().is_exported);
    assert_eq!(left(), [""; 0]);
}

#[test]
fn files_that_left_the_index_alone_stay_and_count() {
    let world = worked(ONE, "git rm -q --cached a; git commit -qm untrack");
    assert_eq!(applied(&world), "", "no rule ignores it");
    counts(&world, "the removal of 1 file from the index");
}

#[test]
fn a_path_that_a_sparse_checkout_leaves_out_can_be_deleted() {
    let world = worked(
        &format!("{ONE}; git sparse-checkout set --no-cone /a"),
        "git rm -q --cached --sparse app/package.json; git commit -qm less",
    );
    assert!(world.export().is_empty(), "it lies on no host");
    counts(&world, "1 changed file (app/package.json)");
    let patch = String::from_utf8(world.export_of(Some("prepared"))).unwrap();
    assert!(patch.contains("deleted file") && patch.contains("app/package.json"), "{patch}");
    assert!(!patch.contains("i.js"), "{patch}");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn a_file_that_is_in_the_index_alone_is_work() {
    let world = worked(ONE, "echo staged >new; git add new; rm new");
    applied(&world);
    counts(&world, "staged changes that are in the index alone (new)");
    world.shell(&world.guest(), "git checkout -q new");
    world.export();
    assert_eq!(world.unexported(), [""; 0]);
    // What was committed, and then deleted, is in the sum.
    let world = worked(ONE, "echo x >new; git add new; git commit -qm new; rm new");
    world.export();
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn a_version_that_was_staged_and_edited_again_is_work_until_an_export() {
    let world = worked(ONE, "echo staged >>a; git add a; echo edited >>a");
    counts(&world, "staged changes that are in the index alone (a)");
    world.export();
    assert_eq!(world.unexported(), [""; 0], "it is part of the sum");
    world.shell(&world.guest(), "cp a $TOP/keep; echo staged >>a; git add a; cp $TOP/keep a");
    counts(&world, "staged changes that are in the index alone (a)");
    world.export();
    assert_eq!(world.unexported(), [""; 0]);
    // What is staged as it lies there is in the patch itself.
    world.shell(&world.guest(), "git add a");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn a_stash_is_work() {
    let world = worked(ONE, "echo more >>a; git stash -q");
    world.export();
    counts(&world, "stash");
}

const MODULE: &str = "git init -q $TOP/s; (cd $TOP/s; echo 1 >l; git add l; git commit -qm 1; echo 2 >l; git commit -qam 2); \
                      git init -q; echo a >a; git add a; git submodule -q add $TOP/s lib; git commit -qm one";

#[test]
fn a_submodule_that_points_elsewhere_is_in_the_patch() {
    for work in [
        "git -C lib checkout -q HEAD~1; git add lib; git commit -qm back",
        "git update-index --cacheinfo 160000,$(git -C lib rev-parse HEAD~1),lib; git commit -qm back",
    ] {
        let world = worked(MODULE, work);
        let patch = String::from_utf8(world.export()).unwrap();
        let old = world.shell(&world.path().join("s"), "git rev-parse HEAD~1");
        assert!(patch.contains(&format!("+Subproject commit {}", old.trim())), "{patch}");
    }
}

#[test]
fn a_new_submodule_and_one_that_went_are_in_the_patch() {
    let world = worked(
        &format!("git init -q $TOP/s; (cd $TOP/s; echo 1 >l; git add l; git commit -qm 1); {ONE}"),
        "git submodule -q add $TOP/s vendor/lib; git commit -qm add",
    );
    let patch = String::from_utf8(world.export()).unwrap();
    assert!(patch.contains("new file mode 160000") && patch.contains(".gitmodules"), "{patch}");
    counts(&world, "'vendor/lib'");
    let world = worked(
        MODULE,
        "git rm -qf lib; mkdir lib; echo plain >lib/l; git add -A; git commit -qm plain",
    );
    let patch = String::from_utf8(world.export()).unwrap();
    assert!(patch.contains("deleted file mode 160000"), "{patch}");
    assert!(patch.contains("+plain"), "{patch}");
}

#[test]
fn commits_of_a_submodule_are_work() {
    let world = worked(MODULE, "cd lib; echo 3 >l; git commit -qam 3; git checkout -q HEAD~1");
    world.shell(&world.guest(), "git -C lib branch keep HEAD@{1}");
    counts(&world, "submodule 'lib'");
    world.export();
    counts(&world, "submodule 'lib'");
}

#[test]
fn a_submodule_may_have_any_name() {
    for name in ["src/logstash", "lib/refs/x", "my/worktrees/y", "logs"] {
        let setup = format!(
            "git init -q $TOP/s; (cd $TOP/s; echo 1 >l; git add l; git commit -qm 1); {ONE}; \
             git submodule -q add $TOP/s {name}; git commit -qm module"
        );
        let work =
            format!("cd {name}; git checkout -q --detach; echo 2 >l; git commit -qam 2; echo 1 >l");
        let world = worked(&setup, &work);
        counts(&world, &format!("commits or branches of the submodule '{name}'"));
    }
}

#[test]
fn the_text_of_a_link_is_content() {
    let long = format!("{}//x", "a/".repeat(60));
    let world = World::new(&format!(
        "git init -q; ln -s d//f l1; ln -s ./d/./f l2; ln -s /usr//bin/ l3; ln -s {long} l4; git add -A; git commit -qm one"
    ));
    world.prepare(&world.wish()).unwrap();
    assert_eq!(world.shell(&world.guest(), "git status --short"), "");
    let text = world.shell(&world.guest(), "for l in l1 l2 l3 l4; do readlink $l; done");
    assert_eq!(text, format!("d//f\n./d/./f\n/usr//bin/\n{long}\n"));
    assert_eq!(world.unexported(), [""; 0]);
    assert!(world.export().is_empty());
}

#[test]
fn a_deep_place_spoils_itself_alone() {
    let deep =
        "p=out; for i in $(seq 260); do p=$p/d; done; mkdir -p $p; echo x >$p/x; echo new >new";
    let ignoring = format!("{ONE}; echo out/ >.gitignore; git add -A; git commit -qm two");
    let world = worked(&ignoring, deep);
    assert_eq!(applied(&world), "A  new\n");
    assert_eq!(world.unexported(), [""; 0], "what is ignored is no work");
    let world = worked(ONE, deep);
    assert_eq!(applied(&world), "A  new\n");
    counts(&world, "could not be looked into");
}

#[test]
fn a_path_as_long_as_paths_can_be_spoils_itself_alone() {
    // 3838 bytes: the last place whose names still make paths.
    let work = "echo new >new; n() { printf \"%0$1d\" 0; }; \
                for i in $(seq 15) last; do d=$(n 250); if [ $i = last ]; then d=$(n 73); fi; mkdir $d; cd $d; done; \
                mkdir $(n 250); echo x >$(n 250)/x; echo y >$(n 249); echo '*.o' >.gitignore; echo o >o.o";
    let world = worked(ONE, work);
    let found = world.unexported();
    assert!(found.iter().any(|found| found.contains("could not be looked into")), "{found:?}");
    let status = applied(&world);
    let lines: Vec<&str> = status.lines().collect();
    assert_eq!(lines.len(), 3, "{status}");
    assert!(lines[0].ends_with("/.gitignore") && lines[1].ends_with('0') && lines[2] == "A  new");
}

#[test]
fn a_name_that_git_refuses_spoils_itself_alone() {
    let world = worked(ONE, "mkdir .GIT; echo x >.GIT/x; echo new >new");
    assert_eq!(applied(&world), "A  new\n");
    counts(&world, "which git refuses as a path");
}

#[test]
fn what_the_guest_itself_excludes_stays_there() {
    let world = worked(
        &format!("{ONE}; echo '*.host' >>.git/info/exclude"),
        "echo '*.local' >.git/info/exclude; echo private >s.local; echo seen >s.host",
    );
    assert_eq!(world.shell(&world.guest(), "git status --short"), "?? s.host\n");
    let patch = String::from_utf8(world.export()).unwrap();
    assert!(patch.contains("s.host") && !patch.contains("s.local"), "{patch}");
}

#[test]
fn commits_in_a_directory_that_had_no_git_are_work() {
    let world = World::new("echo a >a");
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.guest(), "git init -q; git add -A; git commit -qm one");
    world.export();
    counts(&world, "a repository that the guest made");
}

#[test]
fn printing_a_patch_is_not_exporting_it() {
    let world = worked(ONE, "echo more >>a");
    let export = banger_workspace::Export::make(
        &world.vm(),
        &world.files(),
        &banger_workspace::Want::default(),
    );
    drop(export.unwrap());
    counts(&world, "1 changed file (a)");
}

#[test]
fn an_export_says_what_its_patch_changes() {
    let world = World::new(&format!("{ONE}; echo dirty >>a"));
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.guest(), "echo n >n");
    let changes = |base: Option<&str>| {
        let base_commit = base.map(ToOwned::to_owned);
        let want = banger_workspace::Want { base_commit, ..Default::default() };
        let export = banger_workspace::Export::make(&world.vm(), &world.files(), &want).unwrap();
        assert_eq!(export.base_commit.is_some(), base.is_some());
        let changes = export.changes.iter().map(|change| format!("{} {}", change.how, change.path));
        changes.collect::<Vec<_>>()
    };
    assert_eq!(changes(None), ["added n"]);
    for base in ["prepared", "HEAD", "main"] {
        assert_eq!(changes(Some(base)), ["modified a", "added n"], "{base}");
    }
    let status = banger_workspace::status(&world.vm(), &world.files(), true, &[]).unwrap();
    assert!(status.notes.iter().any(|note| note.contains("'a' went in")), "{:?}", status.notes);
}

#[test]
fn any_path_of_the_guest_is_taken_and_a_refused_one_leaves_nothing() {
    let world = World::new(ONE);
    let mut wish = world.wish();
    wish.guest_path = format!("{}/a\"b\\c", world.path().display());
    world.prepare(&wish).unwrap();
    assert_eq!(world.unexported(), [""; 0]);

    let world = World::new(ONE);
    world.shell(world.path(), "echo x >file; ln -s loop loop");
    for refused in ["file/repo", "loop/repo", &format!("{}/repo", "long".repeat(64))] {
        let mut wish = world.wish();
        wish.guest_path = format!("{}/{refused}", world.path().display());
        world.prepare(&wish).unwrap_err();
        assert!(banger_workspace::read(&world.vm()).unwrap().is_none(), "{refused}: a record");
    }
    // An empty directory is nothing that was begun.
    fs::create_dir_all(world.guest()).unwrap();
    let is_first = AtomicBool::new(true);
    let files = files_by(|| {
        if is_first.swap(false, Ordering::Relaxed) {
            return Err(banger_doc::Error::failed("the guest hung up"));
        }
        world::connect()
    });
    banger_workspace::prepare(&world.vm(), &files, &world.wish()).unwrap_err();
    assert!(!is_first.load(Ordering::Relaxed), "the first connection was asked for");
    assert!(banger_workspace::read(&world.vm()).unwrap().is_none(), "no record is left");
    world.prepare(&world.wish()).unwrap();
}

#[test]
fn a_second_prepare_keeps_the_branch_of_the_guest() {
    let world = World::new(ONE);
    let wish = banger_workspace::Wish { branch: Some("try".into()), ..world.wish() };
    world.prepare(&wish).unwrap();
    world.shell(&world.host(), "echo edit >>a; git commit -qam two");
    world.prepare(&world.wish()).unwrap();
    let head = world.shell(&world.guest(), "git symbolic-ref HEAD; cat a; git status --short");
    assert_eq!(head, "refs/heads/try\na\nedit\n");
    assert_eq!(world.unexported(), [""; 0]);
    // Another branch of the host's leaves the first one in the guest, which is no work.
    let world = World::new(ONE);
    world.prepare(&world.wish()).unwrap();
    world.shell(
        &world.host(),
        "git checkout -q -b other; git branch -D -q main; git commit -q --amend -m new",
    );
    world.prepare(&world.wish()).unwrap();
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn a_repository_that_git_refuses_is_no_directory_without_git() {
    for (setup, at) in [
        (format!("{ONE}; rm .git/HEAD"), ""),
        (format!("{ONE}; rm .git/HEAD"), "app"),
        ("mkdir w; echo 'gitdir: /gone' >w/.git; echo S >w/.env".into(), "w"),
        ("mkdir -p 'not a git repository'; cd 'not a git repository'; git init -q; echo x >.git/HEAD".into(), "not a git repository"),
    ] {
        let world = World::new(&setup);
        let wish = banger_workspace::Wish { path: world.host().join(at), ..world.wish() };
        banger_workspace::dry_run(&wish, None).unwrap_err();
        world.prepare(&wish).unwrap_err();
        assert!(!world.guest().exists());
    }
    let world = World::new("mkdir sub; cd sub; git init -q; echo x >x");
    let plan = banger_workspace::dry_run(&world.wish(), None).unwrap();
    assert_eq!(plan.files, ["sub/x"]);
}

#[test]
fn what_is_sent_is_whole_and_no_more() {
    // A submodule that is not checked out has its directory.
    let world = World::new(&format!("mkdir $TOP/S; (cd $TOP/S; {MODULE}); git clone -q $TOP/S ."));
    let wish = banger_workspace::Wish { mode: WorkspaceMode::FullCopy, ..world.wish() };
    world.prepare(&wish).unwrap();
    assert_eq!(world.shell(&world.guest(), "git status --short"), "");
    assert_eq!(world.unexported(), [""; 0]);
    // Trees that only the index knows.
    let world = World::new(
        "git init -q; mkdir d; echo a >d/a; git add -A; git commit -qm1; echo b >d/b; git add -A; git write-tree >/dev/null",
    );
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.guest(), "git fsck");
    // Objects of another repository, whose guest is gone.
    world.shell(
        world.path(),
        "rm -rf guest/root/repo; git init -q b; cd b; echo b >b; git add b; git commit -qm b",
    );
    let old = world.shell(&world.host(), "git rev-parse HEAD");
    let wish = banger_workspace::Wish { path: world.path().join("b"), ..world.wish() };
    world.prepare(&wish).unwrap();
    world.shell(&world.guest(), &format!("! git cat-file -t {old}"));
    world.shell(&world.guest(), "git fsck");
}

#[test]
fn names_and_places_may_be_odd() {
    let world = World::new(
        "mkdir $'a\\nb'; cd $'a\\nb'; git init -q; echo x >'a\\xff'; echo y >$'a\\xff'; git add -A; git commit -qm 1",
    );
    let wish = banger_workspace::Wish { path: world.host().join("a\nb"), ..world.wish() };
    let plan = banger_workspace::dry_run(&wish, None).unwrap();
    assert_eq!(plan.files, ["a\\\\xff", "a\\xff"]);
    world.prepare(&wish).unwrap();
    assert_eq!(world.unexported(), [""; 0]);
}
