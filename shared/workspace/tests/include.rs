//! Untracked and ignored files that are wanted: which go, what becomes of them in the guest, and what of the
//! others is said.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use banger_doc::{Kind, Work, WorkspaceMode};
use banger_workspace::{Apply, Export, Onto, Want, Wish};
use std::{fs, io::Read};
use world::{World, fingerprint};

const SETUP: &str = "git init -q; echo a >a; printf '.env*\\nbuild/\\nkeys/\\n' >.gitignore; git add -A; \
     git commit -qm one; echo S >.env.local; echo D >.env; mkdir -p build/conf keys/.git; echo o >build/o; \
     echo c >build/conf/c.json; echo k >keys/k; echo n >notes; echo p >key.pem";

fn including(world: &World, patterns: &[&str]) -> Wish {
    Wish { include: patterns.iter().map(ToString::to_string).collect(), ..world.wish() }
}

/// What would go beside what is tracked.
fn goes(world: &World, patterns: &[&str]) -> Vec<String> {
    let plan = banger_workspace::dry_run(&including(world, patterns), None).unwrap();
    plan.files.into_iter().filter(|file| file != "a" && file != ".gitignore").collect()
}

#[test]
fn what_is_named_goes_and_nothing_else() {
    let world = World::new(SETUP);
    let before = fingerprint(&world.host());
    assert_eq!(goes(&world, &[]), [""; 0]);
    assert_eq!(goes(&world, &[".env.local"]), [".env.local"]);
    assert_eq!(goes(&world, &[".env*", "!.env", "*.pem"]), [".env.local", "key.pem"]);
    // A directory as a whole; a way into one; never all of one for a name in it.
    assert_eq!(goes(&world, &["build/"]), ["build/conf/c.json", "build/o"]);
    assert_eq!(goes(&world, &["build/conf/*.json"]), ["build/conf/c.json"]);
    assert_eq!(goes(&world, &["c.json"]), [""; 0]);
    // What is git's never goes, and what is another repository's stays.
    assert_eq!(goes(&world, &[".git/", ".git", "config", "HEAD"]), [""; 0]);
    assert_eq!(goes(&world, &["keys/"]), ["keys/k"], "an empty '.git' makes no repository");
    assert_eq!(fingerprint(&world.host()), before, "a look changes nothing");
    world.shell(&world.host(), "git init -q keys");
    assert_eq!(goes(&world, &["keys/"]), [""; 0]);
    assert!(goes(&world, &["*"]).iter().all(|path| !path.contains(".git/")));
    // The repository's own rules take nothing along.
    world.shell(
        &world.host(),
        "rm -rf keys/.git; mkdir keys/.git; echo '!.env' >>.git/info/exclude",
    );
    assert_eq!(goes(&world, &[]), [""; 0]);
}

#[test]
fn links_go_as_links_and_what_is_no_file_stays() {
    let world = World::new(&format!(
        "{SETUP}; ln -s /etc/passwd .env.link; mkfifo .env.pipe; ln -s .. build/up; mkdir -p build/deep; ln -s /etc build/deep/etc"
    ));
    let record = world.prepare(&including(&world, &[".env.*", "build/"])).unwrap();
    let said = world.shell(
        &world.guest(),
        "readlink .env.link build/up build/deep/etc; ls -A build/deep; git status --short",
    );
    assert_eq!(said, "/etc/passwd\n..\n/etc\netc\n");
    assert!(!world.guest().join(".env.pipe").exists(), "{:?}", record.notes);
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn an_included_file_is_as_a_tracked_one() {
    let world = World::new(SETUP);
    let wish = including(&world, &[".env.local"]);
    let record = world.prepare(&wish).unwrap();
    assert_eq!(record.include, [".env.local"]);
    assert_eq!(world.shell(&world.guest(), "cat .env.local; git status --short"), "S\n");
    assert_eq!(world.unexported(), [""; 0]);
    let status = || banger_workspace::status(&world.vm(), &world.files(), true, &[]).unwrap();
    let untracked: Vec<String> = status().host_changes.into_iter().map(|c| c.path).collect();
    assert_eq!(untracked, ["key.pem", "notes"], "the host lacks nothing that went");
    // Its change is work, which a prepare does not overwrite and an export brings out.
    world.shell(&world.guest(), "sleep 0.02; echo W >>.env.local; echo mine >.env.mine");
    assert_eq!(Work::list(&world.work()), "1 changed file (.env.local)");
    assert_eq!(world.prepare(&world.wish()).unwrap_err().kind(), Kind::Conflict);
    let patch = String::from_utf8(world.export()).unwrap();
    assert!(patch.contains("+W") && !patch.contains("mine"), "{patch}");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn what_went_once_goes_again() {
    let world = World::new(SETUP);
    let record = world.prepare(&including(&world, &[".env.local"])).unwrap();
    assert!(record.notes.iter().any(|note| note.contains("(.env)")), "{:?}", record.notes);
    world.shell(
        &world.host(),
        "echo S2 >.env.local; echo later >sub.env.local; mkdir sub; echo x >sub/.env.local",
    );
    // The pattern holds from then on, and nothing that went is deleted.
    let again = world.prepare(&world.wish()).unwrap();
    assert_eq!(again.include, [".env.local"]);
    assert_eq!(
        world.shell(&world.guest(), "cat .env.local sub/.env.local; ls -A"),
        "S2\nx\n.env.local\n.git\n.gitignore\na\nsub\n"
    );
    // A file of the host's that is gone is gone.
    world.shell(&world.host(), "rm sub/.env.local");
    world.prepare(&world.wish()).unwrap();
    assert!(!world.guest().join("sub/.env.local").exists());
    // It becomes a tracked one.
    world.shell(&world.host(), "git add -f .env.local; git commit -qm env");
    world.prepare(&world.wish()).unwrap();
    assert_eq!(
        world.shell(&world.guest(), "cat .env.local; git status --short; git ls-files"),
        "S2\n.env.local\n.gitignore\na\n"
    );
    world.shell(&world.host(), "git rm -q --cached .env.local; git commit -qm no");
    world.prepare(&Wish { no_include: true, ..world.wish() }).unwrap();
    assert!(!world.guest().join(".env.local").exists(), "nothing took it along");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn untracked_files_that_went_once_go_again_and_new_ones_do_not() {
    let world = World::new(SETUP);
    let record = world.prepare(&Wish { include_untracked: true, ..world.wish() }).unwrap();
    assert!(record.include_untracked);
    assert_eq!((record.untracked_left, record.untracked_left_paths.len()), (0, 0));
    world.shell(&world.host(), "echo n2 >notes; echo secret >new.pem");
    let again = world.prepare(&world.wish()).unwrap();
    assert!(!again.include_untracked);
    assert_eq!(again.untracked_left_paths, ["new.pem"]);
    assert_eq!(world.shell(&world.guest(), "cat notes key.pem; ls"), "n2\np\na\nkey.pem\nnotes\n");
    let none = Wish { no_include: true, ..world.wish() };
    let plan = banger_workspace::dry_run(&none, Some(&world.vm())).unwrap();
    assert_eq!(plan.files, [".gitignore", "a"]);
    let plan = banger_workspace::dry_run(&world.wish(), Some(&world.vm())).unwrap();
    assert_eq!(plan.files, [".gitignore", "a", "key.pem", "notes"]);
    assert_eq!(world.prepare(&none).unwrap().untracked_left, 3);
    assert_eq!(world.shell(&world.guest(), "ls"), "a\n");
    // Another repository has nothing of that.
    world.prepare(&Wish { include_untracked: true, ..world.wish() }).unwrap();
    world.shell(world.path(), "cp -a host other; rm -rf other/.git; cd other; git init -q; git add a; git commit -qm other");
    let other = Wish { path: world.path().join("other"), ..world.wish() };
    let record = world.prepare(&other).unwrap();
    assert_eq!(record.untracked_left, 4, "{:?}", record.untracked_left_paths);
}

#[test]
fn what_the_guest_ignores_is_not_overwritten_by_what_comes_later() {
    let world = World::new(SETUP);
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.guest(), "echo guests >.env.local; echo D >.env");
    assert_eq!(world.unexported(), [""; 0], "it is ignored");
    let before = fingerprint(&world.guest());
    let wish = including(&world, &[".env*"]);
    let error = world.prepare(&wish).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.to_string().ends_with("has ignored files of its own (.env.local)"), "{error}");
    assert_eq!(fingerprint(&world.guest()), before);
    world.prepare(&Wish { force: true, ..wish }).unwrap();
    assert_eq!(world.shell(&world.guest(), "cat .env.local"), "S\n");
}

#[test]
fn what_stayed_behind_is_named() {
    let world = World::new(SETUP);
    let plan = banger_workspace::dry_run(&including(&world, &["gone"]), None).unwrap();
    assert_eq!(plan.untracked_left, 2);
    assert_eq!(plan.untracked_left_paths, ["key.pem", "notes"]);
    assert_eq!(
        plan.notes,
        [
            "2 untracked files would stay behind (key.pem, notes); '--include-untracked' or '--include PATTERN' \
             takes them along",
            "ignored files would stay behind (.env, .env.local); '--include .env\\*' takes them along",
            "no untracked or ignored file matches 'gone'",
        ]
    );
    world.shell(&world.host(), "rm .env; for i in $(seq 30); do echo >$i; done");
    let record = world.prepare(&world.wish()).unwrap();
    assert_eq!((record.untracked_left, record.untracked_left_paths.len()), (32, 20));
    assert!(
        record.notes[0].starts_with("32 untracked files stayed behind (1, 10, 11, ...); "),
        "{:?}",
        record.notes
    );
    assert_eq!(
        record.notes[1],
        "1 ignored file stayed behind (.env.local); '--include .env.local' takes it along"
    );
}

#[test]
fn a_directory_without_git_has_patterns_too() {
    let world = World::new(
        "echo a >a; printf '.env*\\nout/\\n' >.bangerignore; echo S >.env.local; mkdir out; echo o >out/o",
    );
    assert_eq!(goes(&world, &[]), [".bangerignore"]);
    assert_eq!(goes(&world, &[".env.local", "out/o"]), [".bangerignore", ".env.local", "out/o"]);
    let record = world.prepare(&including(&world, &["out/"])).unwrap();
    assert_eq!(
        record.notes,
        ["1 ignored file stayed behind (.env.local); '--include .env.local' takes it along"]
    );
    world.shell(&world.host(), "echo o2 >out/o");
    world.prepare(&world.wish()).unwrap();
    assert_eq!(world.shell(&world.guest(), "cat out/o"), "o2\n");
    world.shell(&world.guest(), "sleep 0.02; echo w >>out/o");
    assert_eq!(Work::list(&world.work()), "1 changed file (out/o)");
}

#[test]
fn a_submodule_has_its_own_files() {
    let world = World::new(&format!(
        "git init -q $TOP/s; (cd $TOP/s; echo .env >.gitignore; git add -A; git commit -qm 1); {SETUP}; \
         git submodule -q add $TOP/s lib; git commit -qm lib; echo I >lib/.env; echo u >lib/u"
    ));
    let full = Wish { mode: WorkspaceMode::FullCopy, ..including(&world, &[".env"]) };
    let record = world.prepare(&full).unwrap();
    assert_eq!(record.untracked_left_paths, ["key.pem", "notes", "lib/u"]);
    assert_eq!(world.shell(&world.guest(), "cat .env lib/.env"), "D\nI\n");
    world.prepare(&Wish { include: Vec::new(), ..full }).unwrap();
    assert_eq!(world.shell(&world.guest(), "cat .env lib/.env"), "D\nI\n");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn the_configuration_is_asked_each_time() {
    let world = World::new(SETUP);
    let configured = Wish { configured_include: vec![".env.local".into()], ..world.wish() };
    let record = world.prepare(&configured).unwrap();
    assert_eq!(record.include, [""; 0]);
    assert!(world.guest().join(".env.local").exists());
    // What it named once goes again; what it would name now does not.
    world.shell(&world.host(), "mkdir sub; echo x >sub/.env.local; echo S2 >.env.local");
    world.prepare(&world.wish()).unwrap();
    assert_eq!(fs::read_to_string(world.guest().join(".env.local")).unwrap(), "S2\n");
    assert!(!world.guest().join("sub").exists());
}

#[test]
fn an_included_file_comes_back_to_the_checkout() {
    let world = World::new(&format!("{SETUP}; echo edit >>a"));
    world.prepare(&including(&world, &[".env*", "build/", "notes"])).unwrap();
    let status = banger_workspace::status(&world.vm(), &world.files(), true, &[]).unwrap();
    assert!(status.notes[0].starts_with("'a' went in with a local edit"), "{:?}", status.notes);
    world.shell(
        &world.guest(),
        "sleep 0.02; echo W >>.env.local; rm .env; mv build/o build/p; echo w >>notes; git add -f build/p",
    );
    // Since the commit: what was ignored is not given away.
    let want = Want { base_commit: Some("prepared".into()), ..Want::default() };
    let mut export = Export::make(&world.vm(), &world.files(), &want).unwrap();
    let mut sum = String::new();
    export.patch.read_to_string(&mut sum).unwrap();
    drop(export);
    assert!(sum.contains("+W") && sum.contains("+edit") && sum.contains("+n\n"), "{sum}");
    assert!(!sum.contains("+S") && !sum.contains("c.json"), "{sum}");
    // Against what went in: the checkout as it lies has all of it.
    fs::write(world.path().join("patch"), world.export()).unwrap();
    let applied = "git apply $TOP/patch; cat .env.local notes build/p build/conf/c.json; ls .env build/o 2>/dev/null || true";
    assert_eq!(world.shell(&world.host(), applied), "S\nW\nn\nw\no\nc\n");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn a_pull_brings_no_file_that_only_went_in() {
    let world = World::new(SETUP);
    let wish = Wish { include_untracked: true, ..including(&world, &[".env*"]) };
    world.prepare(&wish).unwrap();
    assert_eq!(world.pull().unwrap().wip, None, "nothing is uncommitted but what the host has");
    world.shell(&world.guest(), "sleep 0.02; echo W >>.env.local; echo w >>a; echo new >new");
    let pulled = world.pull().unwrap();
    assert!(pulled.wip.is_some());
    assert_eq!(pulled.notes.len(), 1, "{:?}", pulled.notes);
    assert!(
        pulled.notes[0]
            .contains("lie on the host already (.env.local): 'banger workspace apply web' takes")
    );
    let files = world.shell(
        &world.host(),
        "git ls-tree -r --name-only web/wip; git ls-tree -r --name-only web/wip^3",
    );
    assert_eq!(files, ".gitignore\na\n.env.local\nnew\n");
    assert_eq!(world.unexported(), [""; 0]);
    // As that note says.
    let done = Apply::make(&world.vm(), &world.files(), &Onto::default()).unwrap().run(&|| false);
    assert!(done.unwrap().is_applied);
    let said = world.shell(&world.host(), "tail -n 1 .env.local a; cat new");
    assert_eq!(said, "==> .env.local <==\nW\n\n==> a <==\nw\nnew\n");
}
