//! What `banger-workspace-watch` prints, with this machine in place of a guest; how it follows is tested in
//! `shared/workspace`.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_channel::bridge;
use banger_tests::{Running, Sandbox, program};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-workspace-watch");
const LIMIT: Duration = Duration::from_mins(1);

/// A VM that has a workspace.
struct World {
    sandbox: Sandbox,
    host: PathBuf,
    guest: PathBuf,
    running: Option<Running>,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let (host, guest) = (sandbox.dir().join("repo"), sandbox.dir().join("guest/repo"));
        fs::create_dir_all(host.join("d/e")).unwrap();
        fs::create_dir(guest.parent().unwrap()).unwrap();
        let mut running = sandbox.plant_running("web", &json!({}));
        let bridge = |listener, device| drop(bridge::run(listener, bridge::Device::Port(device)));
        running.start_agent(&sandbox, &json!({}), bridge);
        let world = Self { sandbox, host, guest, running: Some(running) };
        world.shell("git init -q -b main; echo a >a; echo b >d/e/b; git add -A; git -c user.name=A -c user.email=a@b commit -qm one");
        let words =
            ["web", world.host.to_str().unwrap(), "--guest-path", world.guest.to_str().unwrap()];
        world.sandbox.run(program("banger-workspace-prepare"), &words).ok();
        world
    }

    fn shell(&self, script: &str) {
        let mut shell = Command::new("timeout");
        shell.args(["60", "sh", "-ec", script]).current_dir(&self.host);
        assert!(shell.env("HOME", self.sandbox.dir()).status().unwrap().success(), "{script}");
    }

    fn watch(&self, words: &[&str]) -> Watching {
        let said = self.sandbox.dir().join("said");
        let mut command = self.sandbox.command(PROGRAM);
        command.args(words).arg("web").stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(&said).unwrap());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut watching = Watching { child, stdout: Some(stdout), said };
        if !words.contains(&"-q") {
            watching.says("Ctrl-C ends it");
        }
        watching
    }
}

/// A program that goes on; killed with its value.
struct Watching {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    said: PathBuf,
}

impl Watching {
    /// Waits until it has said something on stderr.
    #[track_caller]
    fn says(&mut self, words: &str) {
        let end = Instant::now() + LIMIT;
        loop {
            let said = fs::read_to_string(&self.said).unwrap();
            if said.contains(words) {
                return;
            }
            assert!(Instant::now() < end && self.child.try_wait().unwrap().is_none(), "{said}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }

    /// Waits for its end: status or signal, what it printed since, and what it said.
    fn end(mut self) -> (std::process::ExitStatus, String, String) {
        let end = Instant::now() + LIMIT;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > end => panic!("it goes on"),
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut rest = String::new();
        if let Some(mut stdout) = self.stdout.take() {
            stdout.read_to_string(&mut rest).unwrap();
        }
        (status, rest, fs::read_to_string(&self.said).unwrap())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn interrupt(watching: &Watching) {
    let pid = watching.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

#[test]
fn what_there_is_not_is_said() {
    let sandbox = Sandbox::new();
    sandbox.run(PROGRAM, &["web"]).fails(3, "no VM 'web'");
    sandbox.run(PROGRAM, &[]).fails(2, "VM is missing");
    sandbox.run(PROGRAM, &["web", "--force"]).fails(2, "--force");
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.run(PROGRAM, &["web"]).fails(3, "has no workspace");
    let dir = sandbox.vm("web").join("workspaces/0123456789abcdef");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("workspace.json"), "{}").unwrap();
    sandbox.run(PROGRAM, &["web"]).fails(1, "workspace.json");
}

#[test]
fn a_vm_that_does_not_run_is_not_watched() {
    let mut world = World::new();
    world.running = None;
    world.sandbox.run(PROGRAM, &["web"]).fails(4, "VM 'web' is").fails(4, "banger vm start web");
}

#[test]
fn each_batch_is_a_document() {
    let world = World::new();
    let mut watching = world.watch(&[]);
    world.shell("echo more >>a");
    let document: Value = serde_json::from_str(&watching.line()).unwrap();
    assert_eq!(document["schema"], "banger.workspace-watch/1");
    assert_eq!(document["vm"], "web");
    assert_eq!(document["changes"], json!([{ "path": "a", "how": "modified" }]));
    assert!(document["took_ms"].as_u64() >= document["guest_ms"].as_u64());
    assert_eq!(fs::read_to_string(world.guest.join("a")).unwrap(), "a\nmore\n");
    // It is watched once, and other commands work meanwhile.
    world.sandbox.run(PROGRAM, &["web"]).fails(4, "watched already");
    let status = world.sandbox.run(program("banger-workspace-status"), &["web"]);
    assert_eq!(status.ok().document()["guest_changes"], json!([]));
    world.shell("git -c user.name=A -c user.email=a@b commit -qam two");
    let document: Value = serde_json::from_str(&watching.line()).unwrap();
    assert_eq!(document["git"], true);
    fs::write(world.guest.join("a"), "mine\n").unwrap();
    world.shell("echo yours >>a");
    let document: Value = serde_json::from_str(&watching.line()).unwrap();
    assert_eq!((&document["left"], &document["changes"]), (&json!(["a"]), &json!([])));
    interrupt(&watching);
    let (status, rest, said) = watching.end();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2), "{said}");
    assert_eq!(rest, "");
    let left: Vec<_> = fs::read_dir(std::env::temp_dir()).unwrap().flatten().collect();
    let of_it = |name: &str| left.iter().filter(|entry| entry.file_name() == name).count();
    assert_eq!(of_it("repo.git"), 0);
}

#[test]
fn one_of_several_is_watched() {
    let world = World::new();
    let (host, guest) = (world.sandbox.dir().join("api"), world.sandbox.dir().join("guest/api"));
    fs::create_dir(&host).unwrap();
    fs::write(host.join("f"), "1\n").unwrap();
    let place = guest.to_str().unwrap();
    let words = ["web", host.to_str().unwrap(), "--guest-path", place];
    world.sandbox.run(program("banger-workspace-prepare"), &words).ok();
    world.sandbox.run(PROGRAM, &["web"]).fails(2, "has 2 workspaces").fails(2, "--guest-path DIR");
    world
        .sandbox
        .run(PROGRAM, &["web", "--guest-path", "/none"])
        .fails(3, "no workspace in '/none'");
    world.sandbox.run(PROGRAM, &["web", "--guest-path"]).fails(2, "--guest-path");
    let first = world.guest.to_str().unwrap().to_owned();
    let mut both = [world.watch(&["--guest-path", place]), world.watch(&["--guest-path", &first])];
    fs::write(host.join("f"), "2\n").unwrap();
    world.shell("echo more >>a");
    for (watching, path) in both.iter_mut().zip(["f", "a"]) {
        let document: Value = serde_json::from_str(&watching.line()).unwrap();
        assert_eq!(document["changes"], json!([{ "path": path, "how": "modified" }]));
    }
    assert_eq!(fs::read_to_string(guest.join("f")).unwrap(), "2\n");
    assert_eq!(fs::read_to_string(world.guest.join("a")).unwrap(), "a\nmore\n");
}

#[test]
fn people_see_a_line_and_quiet_is_quiet() {
    let world = World::new();
    let mut watching = world.watch(&["-q", "--format", "table"]);
    let begun = Instant::now();
    let line = loop {
        world.shell("echo more >>a; echo more >>d/e/b");
        thread::sleep(Duration::from_millis(500));
        if fs::read_to_string(world.guest.join("d/e/b")).unwrap() != "b\n" {
            break watching.line();
        }
        assert!(begun.elapsed() < LIMIT);
    };
    assert_eq!(&line[8..], "  2 files: a, d/e/b\n");
    // Nobody reads any more.
    drop(watching.stdout.take());
    world.shell("echo more >>a");
    let (status, _, said) = watching.end();
    assert!(status.success(), "{said}");
    assert_eq!(said, "");
}

#[test]
fn it_ends_with_the_vm() {
    let mut world = World::new();
    let watching = world.watch(&[]);
    world.running = None;
    let (status, _, said) = watching.end();
    assert!(status.success(), "{said}");
    assert!(
        said.contains("waiting 10 s") && said.contains("nothing is watched any more"),
        "{said}"
    );
}

#[test]
fn too_many_directories_for_this_user_are_said_with_what_allows_more() {
    let world = World::new();
    let mut unshare = world.sandbox.command("unshare");
    let script = format!("echo 2 >/proc/sys/user/max_inotify_watches; exec {PROGRAM} web");
    let output = unshare.args(["-Ur", "timeout", "60", "sh", "-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(
        said.contains("cannot watch") && said.contains("sysctl fs.inotify.max_user_watches="),
        "{said}"
    );
}
