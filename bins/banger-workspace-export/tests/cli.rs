//! What `banger-workspace-export` prints and what counts as exported by it; patches are tested in
//! `shared/workspace` and in the flows.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_channel::bridge;
use banger_tests::{Answer, Running, Sandbox, program};
use serde_json::json;
use std::{fs, os::unix::fs::FileTypeExt, path::Path};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-workspace-export");

#[test]
fn its_stdout_is_the_patch_alone() {
    let sandbox = Sandbox::new();
    let answer = sandbox.raw(PROGRAM, &["web"]);
    assert_eq!((answer.status, answer.stdout.len()), (125, 0));
    assert!(answer.stderr.contains("no VM 'web'"), "{}", answer.stderr);
    let answer = sandbox.raw(PROGRAM, &["web", "--stat", "--output", "x"]);
    assert_eq!((answer.status, answer.stdout.len()), (2, 0));
}

#[test]
fn a_mark_is_of_what_is_printed() {
    let sandbox = Sandbox::new();
    for other in [&["--stat"][..], &["--output", "x"]] {
        let words = [&["web", "--mark"][..], other].concat();
        let answer = sandbox.raw(PROGRAM, &words);
        assert_eq!(answer.status, 2, "{}", answer.stderr);
    }
}

/// A VM with a guest that is a folder of the sandbox, and a repository that went in with a local edit.
struct World {
    sandbox: Sandbox,
    _running: Running,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let mut running = sandbox.plant_running("web", &json!({}));
        let bridge = |listener, device| drop(bridge::run(listener, bridge::Device::Port(device)));
        running.start_agent(&sandbox, &json!({}), bridge);
        let world = Self { sandbox, _running: running };
        let make = "git init -q repo; cd repo; seq 9 >a; echo README >b; git add -A; \
                    git -c user.name=A -c user.email=a@b commit -qm one; echo mine >>b";
        world.shell(make).ok();
        let prepare = program("banger-workspace-prepare");
        let (repository, guest) = (world.at("repo"), world.at("guest/repo"));
        let words = ["web", &repository, "--guest-path", &guest];
        world.sandbox.run(prepare, &words).ok();
        world
    }

    fn at(&self, path: &str) -> String {
        self.sandbox.dir().join(path).to_str().unwrap().to_owned()
    }

    /// Runs a script where the host's files lie; programs are in `PATH`.
    fn shell(&self, script: &str) -> Answer {
        let programs = Path::new(PROGRAM).parent().unwrap().display();
        let script = format!("cd '{}'; PATH='{programs}':$PATH; {script}", self.at("."));
        self.sandbox.raw("/bin/bash", &["-ec", &script])
    }

    fn edit(&self, content: &str) {
        fs::write(self.at("guest/repo/a"), content).unwrap();
    }

    fn unexported(&self) -> usize {
        let answer = self.sandbox.run(program("banger-workspace-status"), &["web"]);
        answer.ok().document()["unexported"].as_array().unwrap().len()
    }

    /// The names of the copies, newest first.
    fn copies(&self) -> Vec<String> {
        let answer = self.sandbox.run(program("banger-workspace-exports"), &[]);
        let names = answer.ok().documents.iter().map(|copy| copy["name"].as_str().unwrap());
        names.map(ToOwned::to_owned).collect()
    }
}

#[test]
fn printing_counts_as_exporting_only_when_it_is_marked() {
    let world = World::new();
    let sandbox = &world.sandbox;
    world.edit("b\n");
    assert_eq!(world.unexported(), 1);
    let printed = sandbox.raw(PROGRAM, &["web"]);
    assert!(String::from_utf8_lossy(&printed.ok().stdout).contains("\n+b\n"));
    // The last line says what does, and where it can be had again.
    let last = printed.stderr.lines().last().unwrap();
    assert!(last.contains("printing does not count"), "{last}");
    for way in ["'banger workspace apply web'", "'--output FILE'", "'--mark'", "--print web-1'"] {
        assert!(last.contains(way), "{last}");
    }
    assert_eq!(sandbox.raw(PROGRAM, &["-q", "web"]).ok().stderr, "");
    sandbox.raw(PROGRAM, &["web", "--stat"]).ok();
    let full = sandbox.raw("/bin/sh", &["-c", "exec \"$0\" web --mark >/dev/full", PROGRAM]);
    assert_eq!(full.status, 125, "{}", full.stderr);
    assert!(full.stderr.contains("hint: ") && full.stderr.contains("--print web-3'"), "{full:?}");
    assert_eq!(world.unexported(), 1, "nobody has the patch yet");
    // A reader that goes away is no error, and makes nothing count.
    world.edit(&format!("{}\n", "long ".repeat(100_000)));
    let pipe = "banger-workspace-export web | head -c 1 >/dev/null; exit ${PIPESTATUS[0]}";
    world.shell(pipe).ok();
    let marked = pipe.replace("web", "web --mark");
    assert_eq!(world.shell(&marked).status, 125);
    assert_eq!(world.unexported(), 1);
    let marked = sandbox.raw(PROGRAM, &["web", "--mark"]);
    assert!(!marked.ok().stderr.contains("does not count"), "{}", marked.stderr);
    assert_eq!(world.unexported(), 0);
    world.edit("c\n");
    assert_eq!(world.unexported(), 1);
    sandbox.raw(PROGRAM, &["web", "--output", &world.at("patch")]).ok();
    assert_eq!(world.unexported(), 0);
}

/// The documented round trip, on a checkout that still has the edits that went in.
#[test]
fn a_patch_applies_to_the_checkout_as_it_lies() {
    let world = World::new();
    world.edit("guest\n");
    fs::write(world.at("guest/repo/new"), "new\n").unwrap();
    let applied =
        world.shell("banger-workspace-export web | git -C repo apply; cat repo/a repo/b repo/new");
    assert_eq!(applied.ok().text(), "guest\nREADME\nmine\nnew\n");
    assert_eq!(world.unexported(), 1, "a pipe does not count");
    let sum = world.shell(
        "banger-workspace-export web --base-commit prepared | git -C repo apply --numstat -",
    );
    assert_eq!(sum.ok().text().lines().count(), 3, "{}", sum.text());
    let onto_edits = world.shell("git -C repo stash -qu; git -C repo stash pop -q; banger-workspace-export web --base-commit prepared | git -C repo apply");
    assert_ne!(onto_edits.status, 0, "that one is for a clean checkout");
}

#[test]
fn every_export_leaves_a_copy_that_outlives_the_vm() {
    let world = World::new();
    let sandbox = &world.sandbox;
    sandbox.raw(PROGRAM, &["web"]).ok();
    assert!(world.copies().is_empty(), "nothing changed");
    world.edit("one\n");
    let printed = sandbox.raw(PROGRAM, &["web"]).ok().stdout.clone();
    sandbox.raw(PROGRAM, &["web", "--stat"]).ok();
    assert_eq!(world.copies(), ["web-1"]);
    let document = sandbox.run(PROGRAM, &["web", "-o", &world.at("patch")]);
    assert_eq!(document.ok().document()["copy"], "web-2");
    sandbox.raw(PROGRAM, &["web", "--mark", "--base-commit", "prepared"]).ok();
    let of = |name: &str| {
        let answer = sandbox.run(program("banger-workspace-exports"), &["web"]);
        let copies = &answer.ok().documents;
        copies.iter().find(|copy| copy["name"] == name).cloned().unwrap()
    };
    assert_eq!(of("web-1")["files"], 1);
    assert_eq!(of("web-1")["base_commit"], json!(null));
    assert_eq!(of("web-1")["size_bytes"], printed.len());
    assert_eq!(of("web-1")["guest_path"], world.at("guest/repo").as_str());
    assert_eq!(of("web-3")["files"], 2);
    assert_eq!(of("web-3")["base_commit"].as_str().unwrap().len(), 40);
    // The VM goes, with its folder, and the copies stay.
    fs::remove_dir_all(sandbox.vm("web").join("workspaces")).unwrap();
    let exports = program("banger-workspace-exports");
    assert_eq!(sandbox.raw(&exports, &["--print", "web-1"]).ok().stdout, printed);
    assert_eq!(fs::read(world.at("patch")).unwrap(), printed);
}

#[test]
fn copies_that_are_too_much_go_with_the_next_export() {
    let world = World::new();
    world.sandbox.config("[exports]\nbytes = \"1K\"\n");
    for content in ["one\n", "two\n", "three\n"] {
        world.edit(content);
        world.sandbox.raw(PROGRAM, &["web"]).ok();
    }
    assert_eq!(world.copies(), ["web-3"]);
}

#[test]
fn an_output_that_is_no_file_is_refused_before_the_guest_is_asked() {
    let world = World::new();
    world.edit("one\n");
    let refused = |path: &str, status: i32, words: &str| {
        let answer = world.sandbox.raw(PROGRAM, &["web", "--output", path]);
        assert_eq!((answer.status, answer.stdout.len()), (status, 0), "{}", answer.all());
        assert!(answer.stderr.contains(words), "{}", answer.stderr);
    };
    refused("/dev/null", 2, "'/dev/null' is no file");
    refused(&world.at("repo"), 2, "is no file");
    refused(&world.at("none/patch"), 125, "no directory");
    refused("", 2, "");
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(world.copies().is_empty());
    // A link goes on to lead to its file.
    world.shell("echo old >real; ln -s real link; cd repo; banger-workspace-export web -o ../link; test -L ../link; grep -q one ../real").ok();
    let left = fs::read_dir(world.sandbox.dir())
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"));
    assert_eq!(left.count(), 0);
    assert_eq!(world.unexported(), 0);
}

#[test]
fn ctrl_c_leaves_nothing_beside_the_file() {
    let world = World::new();
    world.shell("head -c 40000000 /dev/urandom >guest/repo/large").ok();
    // A process of the shell's in the background would not hear of it.
    let script = "set -m; banger-workspace-export web -o out/p & pid=$!; \
                  until ls out/p.*.tmp || ! kill -0 $pid; do :; done >/dev/null 2>&1; kill -INT $pid; \
                  wait $pid || true; ls -A out";
    let answer = world.shell(&format!("mkdir out; {script}"));
    assert_eq!(answer.text(), "p\n", "{}", answer.all());
}

/// Commits are no nameless diff.
#[test]
fn commits_come_as_mails() {
    let world = World::new();
    let commit = "cd guest/repo; git config user.name Grace; git config user.email grace@example.org; sed -i s/5/five/ a; \
                  git commit -qm 'Say five' a; git checkout -qb lines; echo 10 >>a; git commit -qm 'Go on' a; echo n >n";
    world.shell(commit).ok();
    for words in [&["--stat", "--commits"][..], &["--commits", "--base-commit", "HEAD"]] {
        let answer = world.sandbox.raw(PROGRAM, &[&["web"][..], words].concat());
        assert_eq!((answer.status, answer.stdout.len()), (2, 0), "{}", answer.all());
    }
    let answer = world.shell("banger-workspace-export web --commits | git -C repo -c user.name=H -c user.email=h@h am -q; git -C repo log --format='%an %s' -n 4; git -C repo status --short");
    let text = answer.ok().text();
    assert_eq!(
        text,
        "banger uncommitted work\nGrace Go on\nGrace Say five\nA one\n M b\n",
        "{}",
        answer.all()
    );
    assert!(world.unexported() > 0, "a pipe does not count");
    let answer = world.sandbox.run(PROGRAM, &["web", "--commits", "--output", &world.at("mbox")]);
    let document = answer.ok().document();
    assert_eq!((&document["form"], &document["copy"]), (&json!("mbox"), &json!("web-2")));
    assert_eq!(document["changes"].as_array().unwrap().len(), 2, "{document}");
    let copy = world.sandbox.raw(program("banger-workspace-exports"), &["--print", "web-2"]);
    assert_eq!(copy.ok().stdout, fs::read(world.at("mbox")).unwrap());
    // The branch that the guest left is among them too.
    let status = world.sandbox.run(program("banger-workspace-status"), &["web"]);
    assert_eq!(status.ok().document()["unexported"], json!([]));
}
