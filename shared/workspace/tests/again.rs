//! A second prepare, work that must not be lost, directories without git, branches.

mod world;

use banger_channel::files::{Budget, Files};
use banger_doc::{Error, Kind};
use banger_workspace::{Export, Want, status};
use std::{fs, path::PathBuf, time::Duration};
use world::{World, differing, fingerprint};

const BASIC: &str = "git init -q; mkdir d; echo a >a; echo b >d/b; echo c >c; echo '*.o' >.gitignore; \
                     git add -A; git commit -qm one";

/// Compares the files of host and guest but `.git` and those untracked on the host.
fn same_files(world: &World) {
    let script = "cd $TOP; rm -rf want have; cp -a host want; (cd want; git clean -qfdX; rm -rf .git); \
                  cp -a guest/root/repo have; rm -rf have/.git have/*.o; diff -r want have";
    world.shell(world.path(), script);
}

#[test]
fn a_second_prepare_sends_what_changed() {
    let world = World::new(BASIC);
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.guest(), "echo built >x.o; touch a");
    let inode = |name: &str| world.shell(&world.guest(), &format!("stat -c %i {name}"));
    let before = (inode("a"), inode("c"));
    world.shell(
        &world.host(),
        "echo more >>a; git rm -q d/b; mkdir n; echo n >n/n; git add -A; git commit -qm two; git tag t; git branch side",
    );
    world.prepare(&world.wish()).unwrap();
    same_files(&world);
    assert_ne!(inode("a"), before.0);
    assert_eq!(inode("c"), before.1, "what did not change is not sent");
    assert_eq!(world.shell(&world.guest(), "cat x.o"), "built\n", "what is ignored stays");
    let head = "git rev-parse HEAD t side; git status --porcelain; git fsck --no-dangling";
    assert_eq!(world.shell(&world.guest(), head), world.shell(&world.host(), head));
    world.shell(&world.host(), "git checkout -q -b other HEAD~1; echo o >o; git add o; git commit -qm o; rm c; git commit -qam c");
    world.prepare(&world.wish()).unwrap();
    same_files(&world);
    let head = "git rev-parse --abbrev-ref HEAD; git log --format=%H; git status --porcelain";
    assert_eq!(world.shell(&world.guest(), head), world.shell(&world.host(), head));
}

#[test]
fn what_a_killed_prepare_left_of_a_store_is_made_anew() {
    let world = World::new(BASIC);
    world.prepare(&world.wish()).unwrap();
    // A kill while the record and the store of a repository are removed.
    world
        .shell(&world.vm(), "rm -f workspace.json record.json; find . -name 'pack-*.pack' -delete");
    assert!(banger_workspace::read(&world.vm()).unwrap().is_none());
    world.shell(world.path(), "rm -rf guest/root/repo");
    world.prepare(&world.wish()).unwrap();
    same_files(&world);
    world.shell(&world.guest(), "git fsck --no-dangling");
}

#[test]
fn an_unfinished_merge_ends_in_the_guest_when_it_ends_on_the_host() {
    let world = World::new(
        "git init -q; echo a >a; git add a; git commit -qm one; git checkout -qb o; echo o >a; git commit -qam o; \
         git checkout -q main; echo m >a; git commit -qam m; git merge o || true",
    );
    world.prepare(&world.wish()).unwrap();
    assert!(world.guest().join(".git/MERGE_HEAD").exists());
    world.shell(&world.host(), "git merge --abort");
    world.prepare(&world.wish()).unwrap();
    assert!(!world.guest().join(".git/MERGE_HEAD").exists());
    assert_eq!(world.shell(&world.guest(), "git status --porcelain"), "");
}

#[test]
fn work_of_the_guest_is_not_overwritten() {
    let works = [
        ("an edit", "echo w >>a"),
        ("a new file", "echo w >w"),
        ("a deletion", "rm c"),
        ("a mode", "chmod +x a"),
        ("a commit", "echo w >>a; git commit -qam w"),
        (
            "a commit on another branch",
            "git checkout -qb w; echo w >>a; git commit -qam w; git checkout -q main",
        ),
        ("a stash", "echo w >>a; git stash -q"),
        ("a staged version", "echo w >>a; git add a; echo a >a"),
        ("a new branch", "git branch w"),
    ];
    for (name, work) in works {
        let world = World::new(BASIC);
        world.prepare(&world.wish()).unwrap();
        world.shell(&world.guest(), &format!("sleep 0.02; {work}"));
        world.shell(&world.host(), "echo h >>a; git commit -qam h");
        let before = fingerprint(&world.guest());
        let error = world.prepare(&world.wish()).err().unwrap_or_else(|| panic!("{name}"));
        assert_eq!(error.kind(), Kind::Conflict, "{name}: {}", error.chain());
        let command = match name {
            "a commit"
            | "a commit on another branch"
            | "a stash"
            | "a staged version"
            | "a new branch" => "'banger workspace pull web' brings it out",
            _ => "'banger workspace apply web' brings it out",
        };
        assert_eq!(error.hint_text(), Some(command), "{name}: {}", error.chain());
        let touched: Vec<PathBuf> = differing(&fingerprint(&world.guest()), &before);
        assert!(touched.is_empty(), "{name}: {touched:?}");
        assert!(!world.unexported().is_empty(), "{name}");
        let mut wish = world.wish();
        wish.force = true;
        world.prepare(&wish).unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
        let head = "git rev-parse HEAD main; git status --porcelain -uno";
        assert_eq!(world.shell(&world.guest(), head), world.shell(&world.host(), head), "{name}");
    }
}

#[test]
fn what_is_in_no_patch_is_not_overwritten_either() {
    let module = "git init -q $TOP/s; (cd $TOP/s; echo 1 >l; git add l; git commit -qm 1; echo 2 >l; git commit -qam 2); \
                  git init -q; git submodule -q add $TOP/s lib; echo a >a; git add -A; git commit -qm one";
    let news = "echo h >>a; mkdir -p web; echo h >web/index; git add -A; git commit -qm h";
    for (setup, work, is_in_the_way) in [
        (BASIC, "git init -q web; echo w >web/index", true),
        (module, "git -C lib checkout -q -b w; git -C lib checkout -q -", true),
        (BASIC, "git worktree add -q --detach $TOP/elsewhere", false),
        (BASIC, "mkdir .GIT; echo w >.GIT/w", false),
    ] {
        let world = World::new(setup);
        let wish =
            banger_workspace::Wish { mode: banger_doc::WorkspaceMode::FullCopy, ..world.wish() };
        world.prepare(&wish).unwrap();
        world.shell(&world.guest(), work);
        world.export();
        assert!(!world.unexported().is_empty(), "{work}");
        world.shell(&world.host(), news);
        let before = fingerprint(&world.guest());
        let done = world.prepare(&wish);
        if is_in_the_way {
            let error = done.err().unwrap_or_else(|| panic!("{work}"));
            assert_eq!(error.kind(), Kind::Conflict, "{work}: {}", error.chain());
            assert!(error.hint_text().unwrap().contains("'banger vm cp'"), "{work}");
            assert!(differing(&fingerprint(&world.guest()), &before).is_empty(), "{work}");
            world.prepare(&banger_workspace::Wish { force: true, ..wish }).unwrap();
        } else {
            done.unwrap_or_else(|error| panic!("{work}: {}", error.chain()));
        }
    }
}

#[test]
fn what_was_exported_is_safe_until_there_is_more() {
    let world = World::new(BASIC);
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.guest(), "echo w >>a; echo n >n; git add n; git commit -qam w");
    assert!(!world.unexported().is_empty());
    let want = Want { stat: true, ..Want::default() };
    Export::make(&world.vm(), &world.files(), &want).unwrap().done().unwrap();
    assert!(!world.unexported().is_empty(), "a summary is no export");
    drop(Export::make(&world.vm(), &world.files(), &Want::default()).unwrap());
    assert!(!world.unexported().is_empty(), "one that was not handed over is none");
    world.export();
    assert_eq!(world.unexported(), [""; 0]);
    let error = world.prepare(&world.wish()).unwrap_err();
    assert_eq!(
        error.hint_text(),
        Some("it was exported or pulled; 'banger workspace prepare web --force' overwrites it")
    );
    world.shell(&world.guest(), "echo more >>a");
    assert!(world.unexported()[0].contains("2 changed files ("), "{:?}", world.unexported());
    world.shell(&world.guest(), "git checkout -q a");
    assert_eq!(world.unexported(), [""; 0]);
    world.shell(&world.guest(), "git commit -q --allow-empty -m empty");
    assert!(world.unexported()[0].contains("main"), "{:?}", world.unexported());
}

#[test]
fn what_is_in_the_way_is_refused_or_moved_aside() {
    let world = World::new(BASIC);
    fs::create_dir_all(world.guest()).unwrap();
    fs::write(world.guest().join("mine"), "precious").unwrap();
    let error = world.prepare(&world.wish()).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{}", error.chain());
    assert!(banger_workspace::read(&world.vm()).unwrap().is_none());
    let mut wish = world.wish();
    wish.force = true;
    world.prepare(&wish).unwrap();
    same_files(&world);
    let aside = world.guest().with_file_name("repo.before-1");
    assert_eq!(fs::read_to_string(aside.join("mine")).unwrap(), "precious");
}

#[test]
fn a_workspace_that_was_removed_in_the_guest_is_put_there_again() {
    let world = World::new(BASIC);
    world.prepare(&world.wish()).unwrap();
    fs::remove_dir_all(world.guest()).unwrap();
    assert_eq!(world.unexported(), [""; 0]);
    world.prepare(&world.wish()).unwrap();
    same_files(&world);
}

#[test]
fn a_directory_without_git_goes_whole() {
    let world = World::new(
        "mkdir -p a/b empty/er sub/.git; echo 1 >a/b/c; echo o >x.o; echo k >a/keep.o; ln -s a/b/c l; printf '*.o\\n!keep.o\\n' >.bangerignore; \
         echo x >sub/.git/config; echo y >sub/y; chmod +x sub/y; mkdir ignored; echo z >ignored/z; echo ignored/ >>.bangerignore",
    );
    let before = fingerprint(&world.host());
    let record = world.prepare(&world.wish()).unwrap();
    assert!(!record.is_repository);
    let script = "cd $TOP; cp -a host want; find want -name .git -prune -exec rm -r {} +; rm -r want/x.o want/ignored; diff -r --no-dereference want guest/root/repo; test -d guest/root/repo/empty/er; \
                  test -x guest/root/repo/sub/y";
    world.shell(world.path(), script);
    assert_eq!(world.unexported(), [""; 0]);
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.guest(), "echo 2 >>a/b/c; echo n >n; rm l; echo o >y.o");
    assert!(!world.unexported().is_empty());
    fs::write(world.path().join("patch"), world.export()).unwrap();
    assert!(differing(&fingerprint(&world.host()), &before).is_empty());
    let script = "cp -a $TOP/want $TOP/clean; cd $TOP/clean; git apply $TOP/patch; rm -f $TOP/guest/root/repo/y.o; \
                  diff -r --no-dereference . $TOP/guest/root/repo";
    world.shell(world.path(), script);
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn a_yes_to_tools_is_to_what_went() {
    let world = World::new(
        "git init -q; echo node 22 >.tool-versions; git add -A; git commit -qm one; ln -s .tool-versions mise.toml",
    );
    let sha256 =
        world.shell(&world.host(), "sha256sum .tool-versions | cut -d' ' -f1 | tr -d '\n'");
    let allowed = vec![banger_doc::AllowedFile { path: ".tool-versions".into(), sha256 }];
    let wish = banger_workspace::Wish { allowed, ..world.wish() };
    let judged = |wish: &banger_workspace::Wish| {
        let record = world.prepare(wish).unwrap();
        (record.tools_allowed, record.tools_refused.map(|refused| refused.why))
    };
    assert_eq!(judged(&wish), (true, None));
    assert_eq!(judged(&wish), (true, None), "nothing was to be sent");
    assert_eq!(judged(&world.wish()), (false, Some("new".into())));
    world.shell(&world.host(), "echo node 23 >.tool-versions");
    assert_eq!(judged(&wish), (false, Some("changed".into())));
    world.shell(&world.host(), "git checkout -q .tool-versions; git add mise.toml");
    assert_eq!(judged(&wish), (false, Some("link".into())));
    world.shell(&world.host(), "git rm -qf mise.toml .tool-versions");
    assert_eq!(judged(&wish), (false, None));
}

#[test]
fn branches_are_made_in_the_guest_alone() {
    let world = World::new(
        "git init -q; for i in $(seq 30); do echo $i >f; echo $i >f$i; git add -A; git commit -qm $i; done; echo edit >>f; echo u >u",
    );
    let mut wish = world.wish();
    wish.branch = Some("task".into());
    world.prepare(&wish).unwrap();
    let here = "git rev-parse --abbrev-ref HEAD; git rev-parse HEAD; git status --porcelain -uno";
    let expected = world.shell(&world.host(), here).replacen("main", "task", 1);
    assert_eq!(world.shell(&world.guest(), here), expected);

    let world = World::new(
        "git init -q; for i in $(seq 30); do echo $i >f; echo $i >f$i; git add -A; git commit -qm $i; done; echo edit >>f; echo u >u",
    );
    let mut wish = world.wish();
    wish.branch = Some("task".into());
    wish.from = Some("main~20".into());
    let record = world.prepare(&wish).unwrap();
    assert_eq!(
        world.shell(&world.guest(), "git rev-parse HEAD"),
        world.shell(&world.host(), "git rev-parse main~20")
    );
    assert_eq!(
        world.shell(&world.guest(), "git status --porcelain; cat f; ls f*"),
        world.shell(&world.host(), "git show main~20:f; git ls-tree --name-only main~20 | sort")
    );
    assert!(
        record.notes.iter().any(|note| note.contains("local edits stay")),
        "{:?}",
        record.notes
    );
    world.shell(&world.guest(), "echo w >>f; git commit -qam w; echo x >>f");
    fs::write(world.path().join("patch"), world.export()).unwrap();
    world.shell(&world.host(), "git stash -q; git checkout -q main~20; git apply --index $TOP/patch; diff f $TOP/guest/root/repo/f");
    world
        .prepare(&{
            wish.force = true;
            wish
        })
        .unwrap();
}

#[test]
fn settings_travel_without_secrets() {
    let world = World::new(
        "git init -q; echo a >a; git add a; git commit -qm one; git remote add origin https://me:hunter2@example.org/x.git; \
         git config user.email repo@example.org; git config core.hooksPath /tmp/hooks; git config core.fsmonitor evil; \
         git config alias.x '!evil'; git config credential.helper 'store --file=hunter2'; git config branch.main.remote origin; \
         git config branch.main.merge refs/heads/main; git update-ref refs/remotes/origin/main HEAD; echo '*.tmp' >>.git/info/exclude; mkdir -p .git/hooks; echo 'echo evil' >.git/hooks/pre-commit; chmod +x .git/hooks/pre-commit",
    );
    world.prepare(&world.wish()).unwrap();
    let config = fs::read_to_string(world.guest().join(".git/config")).unwrap();
    for secret in ["hunter2", "evil", "hooks"] {
        assert!(!config.contains(secret), "{config}");
    }
    assert!(!world.guest().join(".git/hooks").exists());
    let asked =
        "git config user.email; git remote get-url origin; touch x.tmp; git status --porcelain -b";
    assert_eq!(
        world.shell(&world.guest(), asked),
        "repo@example.org\nhttps://example.org/x.git\n## main...origin/main\n"
    );
}

#[test]
fn a_repository_cannot_run_anything_on_the_host() {
    let world = World::new(
        "git init -q; echo '* filter=evil diff=evil' >.gitattributes; echo a >a; git add -A; git commit -qm one; \
         for k in filter.evil.clean filter.evil.smudge filter.evil.process diff.evil.command diff.evil.textconv core.fsmonitor core.sshCommand \
         uploadpack.packObjectsHook core.pager core.editor gpg.program credential.helper core.askPass; do \
         git config $k \"touch $TOP/ran-$k\"; done; git config filter.evil.required true; \
         mkdir -p .git/hooks; for h in post-checkout post-index-change pre-auto-gc reference-transaction fsmonitor-watchman; do \
         printf '#!/bin/sh\\ntouch '$TOP'/ran-hook\\n' >.git/hooks/$h; chmod +x .git/hooks/$h; done; echo b >>a; echo n >n",
    );
    let mut wish = world.wish();
    wish.include_untracked = true;
    world.prepare(&wish).unwrap();
    fs::write(world.guest().join("a"), "changed\n").unwrap();
    world.export();
    status(&world.vm(), &world.files(), true, &[]).unwrap();
    let ran: Vec<_> = fs::read_dir(world.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with("ran"))
        .collect();
    assert!(ran.is_empty(), "{ran:?}");
}

#[test]
fn what_cannot_be_right_is_refused_once_and_clearly() {
    let refused = [
        ("bare repository", "git init -q --bare"),
        (
            "partial clone",
            "mkdir $TOP/o; (cd $TOP/o; git init -q; echo a >a; git add a; git commit -qm a; git config uploadpack.allowFilter true); \
          git clone -q --filter=blob:none file://$TOP/o .",
        ),
        (
            "has submodules",
            "git init -q $TOP/m; (cd $TOP/m; echo m >m; git add m; git commit -qm m); git init -q; git submodule --quiet add $TOP/m s; git commit -qm s",
        ),
        (
            "HEAD names no commit",
            "git init -q; echo a >a; git add a; git commit -qm a; git checkout -q --detach; rm -r .git/objects/*",
        ),
        ("no commit: fatal: bad revision 'HEAD'", "git init -q; ln -sf refs/../../x .git/HEAD"),
    ];
    for (words, setup) in refused {
        let world = World::new(setup);
        let error = world.prepare(&world.wish()).unwrap_err();
        assert!(error.chain().contains(words), "{words}: {}", error.chain());
        assert!(!world.guest().exists());
        assert!(error.hint_text().is_some(), "{words}");
    }
}

#[test]
fn both_sides_are_compared() {
    let world = World::new(BASIC);
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.guest(), "echo w >>a; rm c; echo n >'n w'");
    world.shell(&world.host(), "echo h >>d/b; git commit -qam h; echo u >u");
    let found = status(&world.vm(), &world.files(), true, &[]).unwrap();
    let list = |changes: &[banger_doc::Change]| {
        changes.iter().map(|c| format!("{} {}", c.how, c.path)).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(list(&found.guest_changes), "modified a, deleted c, added n w");
    assert_eq!(list(&found.host_changes), "modified d/b, added u");
    assert_ne!(found.host_commit, found.guest_commit);
    assert!(found.is_live && found.is_known);
    // Of one that does not run, and cannot be read, the host's part is known.
    let broken = Files::new(Budget::new(Duration::from_mins(1)), || Err(Error::failed("broken")));
    assert!(status(&world.vm(), &broken, true, &[]).is_err());
    let found = status(&world.vm(), &broken, false, &[]).unwrap();
    assert!(!found.is_known && !found.is_live && found.notes.contains(&"broken".to_owned()));
    assert_eq!(list(&found.host_changes), "modified d/b, added u");
}
