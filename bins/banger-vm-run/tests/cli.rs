//! The contract of `banger-vm-run`, with stand-ins for the programs it runs. Flows have real VMs.

use banger_tests::Sandbox;
use std::{fs, path::PathBuf};

const RUN: &str = env!("CARGO_BIN_EXE_banger-vm-run");

struct Stage {
    sandbox: Sandbox,
    program: PathBuf,
}

impl Stage {
    fn new(exec: &str) -> Self {
        let sandbox = Sandbox::new();
        let program = sandbox.beside(RUN, &[]);
        let stage = Self { sandbox, program };
        let view = r#"{"schema":"banger.view/1","status":"running","name":"web","id":"0","image":"a","kernel":"k","mac":"","created_unix_s":1,"spec":{"vcpu":1,"memory_mib":1,"overlay_bytes":1,"disk_bytes":1},"folder":"/"}"#;
        stage.program("banger-vm-create", &format!("echo '{view}'"));
        stage.program("banger-vm-start", &format!("echo '{view}'"));
        stage.program("banger-vm-exec", exec);
        let removed = r#"{"schema":"banger.removed/1","what":"vm","name":"web","freed_bytes":1}"#;
        stage.program("banger-vm-delete", &format!("echo '{removed}'"));
        stage
    }

    /// Places a stand-in that notes how it was called.
    fn program(&self, name: &str, script: &str) {
        let script = format!("echo {name} \"$*\" >> {}\n{script}", self.path().display());
        self.sandbox.beside(RUN, &[(name, &script)]);
    }

    fn path(&self) -> PathBuf {
        self.sandbox.dir().join("log")
    }

    fn run(&self, words: &[&str]) -> banger_tests::Answer {
        self.sandbox.raw(&self.program, words)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path()).unwrap_or_default()
    }
}

#[test]
fn the_command_s_bytes_and_status_are_passed_on() {
    let stage = Stage::new("printf 'out\\0'; echo err >&2; exit 42");
    let answer = stage.run(&["--image", "a", "--memory", "1G", "--", "ls", "-l", "--rm"]);
    assert_eq!(answer.status, 42, "{answer:?}");
    assert_eq!(answer.stdout, b"out\0");
    assert_eq!(answer.stderr, "err\n");
    assert_eq!(
        stage.log(),
        "banger-vm-create --image=a --memory=1G --no-start\n\
         banger-vm-start web\n\
         banger-vm-exec web -- ls -l --rm\n"
    );
}

#[test]
fn rm_deletes_whatever_became_of_the_command() {
    for (exec, status) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        let stage = Stage::new(exec);
        let answer = stage.run(&["--rm", "--", "true"]);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(stage.log().ends_with("banger-vm-delete --force --quiet web\n"), "{}", stage.log());
    }
}

#[test]
fn a_guest_that_never_came_up_is_kept() {
    let stage = Stage::new("exit 0");
    let report =
        r#"{"schema":"banger.error/1","kind":"failed","message":"VM 'web' did not come up"}"#;
    stage.program("banger-vm-start", &format!("cat <<'X'\n{report}\nX\nexit 1"));
    let answer = stage.run(&["--rm", "--timeout", "9", "--", "true"]);
    answer.fails(125, "did not come up");
    assert!(answer.stdout.is_empty(), "{answer:?}");
    assert_eq!(stage.log(), "banger-vm-create --no-start\nbanger-vm-start --timeout 9 web\n");
}

#[test]
fn who_interrupts_the_boot_gives_the_vm_up() {
    // As at a terminal: the signal goes to both.
    let interrupt = "kill -INT $PPID; kill -INT $$";
    let stage = Stage::new("exit 0");
    stage.program("banger-vm-start", interrupt);
    assert_eq!(stage.run(&["--rm", "--", "true"]).status, 130);
    assert!(stage.log().ends_with("banger-vm-delete --force --quiet web\n"), "{}", stage.log());

    let stage = Stage::new("exit 0");
    stage.program("banger-vm-start", interrupt);
    stage.run(&["--", "true"]).fails(130, "VM 'web' runs on");
}

#[test]
fn detached_it_says_which_vm_it_is() {
    let stage = Stage::new("exit 1");
    let answer = stage.run(&["-d", "--name", "web"]);
    answer.ok();
    assert!(answer.text().starts_with(r#"{"schema":"banger.view/1""#), "{answer:?}");
    assert_eq!(stage.log(), "banger-vm-create --name=web --no-start\nbanger-vm-start web\n");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() {
    let stage = Stage::new("exit 0");
    stage.run(&["--rm", "-d"]).fails(2, "cannot be used with");
    stage.run(&["-d", "--", "true"]).fails(2, "cannot be used with");
    stage.run(&["--name", "No!"]).fails(2, "is not a name");
    stage.run(&[]).fails(2, "a shell needs a terminal");
    assert_eq!(stage.log(), "");
}
