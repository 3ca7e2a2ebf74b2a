//! What `banger-workspace-apply` prints, with what it ends, and what is left of it when it is killed; what
//! comes of both sides' changes is tested in `shared/workspace`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use banger_channel::bridge;
use banger_tests::{Answer, Sandbox, program};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-workspace-apply");
const IDENTITY: &str = "git config user.name A; git config user.email a@b";

/// A VM that runs, with the repository that a script makes in it.
struct World {
    sandbox: Sandbox,
    _running: banger_tests::Running,
}

impl World {
    fn new(make: &str) -> Self {
        let sandbox = Sandbox::new();
        let mut running = sandbox.plant_running("web", &json!({}));
        let bridge = |listener, device| drop(bridge::run(listener, bridge::Device::Port(device)));
        running.start_agent(&sandbox, &json!({}), bridge);
        fs::create_dir(sandbox.dir().join("repo")).unwrap();
        let world = Self { sandbox, _running: running };
        world.shell(
            "repo",
            &format!("git init -q -b main; {IDENTITY}; {make}; git add -A; git commit -qm one"),
        );
        let (host, guest) = (world.at("repo"), world.at("guest/repo"));
        let prepare = program("banger-workspace-prepare");
        let words = ["web", &host, "--guest-path", &guest];
        world.sandbox.run(prepare.to_str().unwrap(), &words).ok();
        world
    }

    fn at(&self, path: &str) -> String {
        self.sandbox.dir().join(path).to_str().unwrap().to_owned()
    }

    fn shell(&self, dir: &str, script: &str) -> String {
        let script = format!("cd '{}'; {script}", self.at(dir));
        self.sandbox.raw("/bin/bash", &["-euc", &script]).ok().text()
    }

    fn apply(&self, words: &[&str]) -> Answer {
        self.sandbox.run(PROGRAM, &[&["web"], words].concat())
    }

    /// Applies as for people.
    fn told(&self, words: &[&str]) -> Answer {
        self.sandbox.raw(PROGRAM, &[&["web", "--format", "table"], words].concat())
    }

    fn unexported(&self) -> usize {
        let status = program("banger-workspace-status");
        let answer = self.sandbox.run(status.to_str().unwrap(), &["web"]);
        answer.ok().document()["unexported"].as_array().unwrap().len()
    }
}

fn paths(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["path"].as_str().unwrap()).collect()
}

#[test]
fn what_is_not_there_is_not_found() {
    let sandbox = Sandbox::new();
    sandbox.run(PROGRAM, &["web"]).fails(3, "no VM 'web'");
    sandbox.run(PROGRAM, &[]).fails(2, "VM is missing");
    sandbox.run(PROGRAM, &["web", "--timeout", "0"]).fails(2, "--timeout");
    sandbox.run(PROGRAM, &["WEB"]).fails(2, "'WEB'");
    let _running = sandbox.plant_running("web", &json!({}));
    sandbox.run(PROGRAM, &["web"]).fails(3, "VM 'web' has no workspace");
}

#[test]
fn work_is_put_there_and_counts_as_out() {
    let world = World::new("echo a >a; echo b >b; echo c >c");
    world.shell("guest/repo", "echo more >>a; rm b; echo n >n");
    let checked = world.apply(&["--check"]);
    let document = checked.ok().document();
    assert_eq!(paths(&document["changes"]), ["a", "b", "n"]);
    assert_eq!((&document["is_applied"], &document["is_exported"]), (&json!(false), &json!(false)));
    assert_eq!((world.shell("repo", "git status -s").as_str(), world.unexported()), ("", 1));
    let done = world.apply(&[]);
    let document = done.ok().document();
    assert_eq!(document["schema"], "banger.workspace-apply/1");
    assert_eq!((&document["is_applied"], &document["is_exported"]), (&json!(true), &json!(true)));
    assert_eq!(world.shell("repo", "git status -s"), " M a\n D b\n?? n\n");
    assert_eq!(world.unexported(), 0);
    let state = world.sandbox.state().display().to_string();
    assert_eq!(world.shell(".", &format!("find '{state}' -name applying.json")), "");
    // For people it is one line.
    world.shell("guest/repo", "echo yet >>a");
    world.shell("repo", "sed -i '1i top' a");
    let told = world.told(&[]);
    let repo = world.at("repo");
    assert_eq!(
        told.ok().text(),
        format!("1 file changed in '{repo}': 1 modified; 1 merged with what the host changed\n")
    );
    let told = world.told(&["-q"]);
    let nothing = format!("nothing to change in '{repo}': what the guest did is there\n");
    assert_eq!((told.ok().text(), told.stderr.as_str()), (nothing, ""));
}

#[test]
fn conflicts_are_named_and_nothing_is_touched() {
    let world = World::new("seq 9 >a; echo b >b");
    world.shell("guest/repo", "sed -i s/5/five/ a; echo n >n; echo more >>b");
    world.shell("repo", "sed -i s/5/cinq/ a; echo other >n; git add b");
    for words in [&["--check"][..], &[]] {
        let answer = world.apply(words);
        assert_eq!(answer.status, 4, "{}", answer.all());
        let documents: Vec<Value> =
            answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(paths(&documents[0]["conflicts"]), ["a", "n"]);
        assert_eq!(documents[0]["conflicts"][0]["kind"], "content");
        assert_eq!(documents[1]["schema"], "banger.error/1");
        assert_eq!(documents.len(), 2);
        assert!(answer.stderr.contains("2 paths are in conflict; nothing was changed"));
        assert!(answer.stderr.contains("hint: "), "{}", answer.stderr);
    }
    let told = world.told(&[]);
    assert_eq!(
        told.text(),
        "CONFLICT (content): Merge conflict in a\n@@ line 5 @@\n<<<<<<< host\ncinq\n=======\nfive\n>>>>>>> guest\n\
         CONFLICT (untracked): n is not tracked on the host and would be overwritten\n"
    );
    assert_eq!(world.shell("repo", "git status -s; cat n"), " M a\n?? n\nother\n");
    assert_eq!(world.unexported(), 1);
    let full = format!("exec {PROGRAM} web --check --json >/dev/full");
    assert_eq!(world.sandbox.raw("/bin/sh", &["-c", &full]).status, 1);
}

/// Runs a script in which what it mounts is its own.
fn apart(world: &World, script: &str) -> Answer {
    let script = format!("cd '{}'; apply() {{ {PROGRAM} web; }}; {script}", world.at("repo"));
    world.sandbox.raw("unshare", &["--map-root-user", "--mount", "/bin/bash", "-euc", &script])
}

#[test]
fn a_directory_that_cannot_be_written_to_changes_nothing() {
    let world = World::new("mkdir d; echo a >a; echo b >d/b");
    world.shell("guest/repo", "echo more >>a; echo more >>d/b");
    let read_only = "mount --bind d d; mount -o remount,bind,ro d; apply";
    let answer = apart(&world, read_only);
    assert_eq!(answer.status, 1, "{}", answer.all());
    for words in ["nothing was changed in", "d/b'", "read-only file system"] {
        assert!(answer.stderr.to_lowercase().contains(words), "{}", answer.all());
    }
    assert_eq!(world.shell("repo", "git status -s; ls -A . d | grep banger || true"), "");
    world.apply(&[]).ok();
    assert_eq!(world.shell("repo", "git status -s"), " M a\n M d/b\n");
}

#[test]
fn a_full_disk_changes_nothing() {
    let world = World::new("mkdir d; echo a >d/a; echo b >d/b");
    world.shell("guest/repo", "echo more >>d/a; seq 200000 >d/b; echo n >d/n");
    // Half of it has room.
    let full = "cp -a d ../d; mount -t tmpfs -o size=256k none d; cp -a ../d/. d; (apply) || echo status $?; \
                ls -A d; cat d/a d/b; umount d; rm -r ../d";
    let answer = apart(&world, full);
    let told = answer.ok().text();
    assert!(told.ends_with("status 1\na\nb\na\nb\n"), "{}", answer.all());
    for words in ["nothing was changed in", "no space left on device"] {
        assert!(answer.stderr.to_lowercase().contains(words), "{}", answer.all());
    }
    assert_eq!(world.unexported(), 1);
    world.apply(&[]).ok();
    world.shell(".", "diff -r -x .git repo guest/repo");
}

#[test]
fn what_acts_on_a_terminal_is_shown_as_text() {
    let world = World::new("seq 9 >a");
    world.shell("guest/repo", "sed -i $'s/5/\\e]0;evil\\a/' a; echo n >$'\\e[31mn'");
    world.shell("repo", "sed -i s/5/cinq/ a; echo other >$'\\e[31mn'");
    let told = world.sandbox.terminal(&format!("{PROGRAM} web --check"), 100, |_| {});
    let all = told.all();
    assert!(told.text().contains("evil") && !all.contains(['\u{1b}', '\u{7}']), "{all}");
}

#[test]
fn killed_at_any_moment_each_file_is_old_or_new_and_the_next_one_ends_it() {
    let many =
        "for i in $(seq 40); do mkdir -p d$((i % 5)); seq $i $((i * 30)) >d$((i % 5))/f$i; done";
    let world = World::new(many);
    world.shell(
        "guest/repo",
        "for i in $(seq 30); do echo more >>d$((i % 5))/f$i; done; git mv d0/f35 moved; rm d1/f36; mkdir -p n/n; \
         for i in $(seq 10); do seq 5000 >n/n/$i; done; rm -r d2; echo d2 >d2",
    );
    let clean = || {
        world.shell(
            "repo",
            "git stash -qu 2>/dev/null; git stash drop -q 2>/dev/null || true; git status -s",
        )
    };
    world.apply(&[]).ok();
    let expected = world.shell("repo", "git add -A; git write-tree; git reset -q");
    let all = world.sandbox.vm("web").join("workspaces");
    let about = fs::read_dir(all).unwrap().flatten().next().unwrap().path().join("applying.json");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut half = 0;
    for round in 0..8 {
        assert_eq!(clean(), "");
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut command = world.sandbox.command(PROGRAM);
        command.arg("web").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // From here on it changes the host.
        await_file(&about, &mut child);
        thread::sleep(Duration::from_micros((random >> 33) % 60_000));
        let _ = child.kill();
        child.wait().unwrap();
        // Old is what HEAD has, new what the guest has.
        let script = "git status -sz -uall --no-renames | tr '\\0' '\\n' | grep -v '/\\?[.]banger-' | \
                      while read -r how f; do case $how in D) test ! -e \"../guest/repo/$f\" -o -d \"../guest/repo/$f\";; \
                      *) cmp \"$f\" \"../guest/repo/$f\";; esac || { echo \"$how $f\"; exit 1; }; done";
        world.shell("repo", script);
        half += u32::from(!world.shell("repo", "git status -s").is_empty());
        // Whoever asks next tidies up what lay ready.
        world.unexported();
        assert_eq!(world.shell("repo", "find . -name '.banger-*'"), "");
        world.apply(&[]).ok();
        let tree = world.shell("repo", "git add -A; git write-tree; git reset -q");
        assert_eq!(tree, expected, "round {round}");
        assert_eq!(world.unexported(), 0);
    }
    assert!(half > 0, "none was killed while it changed files");
    assert_eq!(world.shell("repo", "find . -name '.banger-*'"), "");
}

/// Waits until a program has made a file, or has ended.
fn await_file(path: &Path, child: &mut Child) {
    let end = Instant::now() + Duration::from_mins(1);
    while !path.exists() && child.try_wait().unwrap().is_none() && Instant::now() < end {
        thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn ctrl_c_leaves_nothing_lying_there() {
    let world = World::new("for i in $(seq 400); do echo $i >f$i; done");
    world.shell("guest/repo", "for i in $(seq 400); do echo more >>f$i; done");
    let all = world.sandbox.vm("web").join("workspaces");
    let about = fs::read_dir(all).unwrap().flatten().next().unwrap().path().join("applying.json");
    let mut command = world.sandbox.command(PROGRAM);
    command.arg("web").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    await_file(&about, &mut child);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let end = Instant::now() + Duration::from_mins(1);
    while child.try_wait().unwrap().is_none() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let status = child.wait().unwrap();
    let changed = world.shell("repo", "git status -s").lines().count();
    // Where the machine was slow to send it, all of it is done.
    let is_ended = status.signal() == Some(nix::libc::SIGINT) && changed == 0;
    assert!(is_ended || changed == 400, "{status}, {changed} files changed");
    assert_eq!(world.shell("repo", "find . -name '.banger-*'"), "");
    assert!(!about.exists());
    world.apply(&[]).ok();
    world.shell(".", "diff -r -x .git repo guest/repo");
}

#[test]
fn two_at_once_end_as_one() {
    let world = World::new("for i in $(seq 20); do echo $i >f$i; done");
    world.shell("guest/repo", "for i in $(seq 20); do echo more >>f$i; done");
    thread::scope(|scope| {
        let all: Vec<_> = (0..3).map(|_| scope.spawn(|| world.apply(&[]))).collect();
        let changed: usize = all
            .into_iter()
            .map(|one| paths(&one.join().unwrap().ok().document()["changes"]).len())
            .sum();
        assert_eq!(changed, 20);
    });
    world.shell(".", "diff -r -x .git repo guest/repo");
}
