//! The contract of `banger-vm-run`, with stand-ins for the programs it runs. Flows have real VMs.

use banger_tests::Sandbox;
use std::{fs, path::PathBuf};

const RUN: &str = env!("CARGO_BIN_EXE_banger-vm-run");

/// The VM that is made.
const VIEW: &str = r#"{"schema":"banger.view/1","status":"running","name":"web","id":"0","image":"a","kernel":"k","mac":"","created_unix_s":1,"spec":{"vcpu":1,"memory_mib":1,"overlay_bytes":1,"disk_bytes":1},"folder":"/"}"#;

struct Stage {
    sandbox: Sandbox,
    program: PathBuf,
}

impl Stage {
    fn new(exec: &str) -> Self {
        let sandbox = Sandbox::new();
        let program = sandbox.beside(RUN, &[]);
        let stage = Self { sandbox, program };
        stage.program("banger-vm-create", &format!("echo '{VIEW}'"));
        stage.program("banger-vm-start", &format!("echo '{VIEW}'"));
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
         banger-vm-exec --interactive web -- ls -l --rm\n"
    );
}

#[test]
fn options_of_other_tools_mean_the_same_here() {
    let stage = Stage::new("exit 0");
    let words = ["-it", "--rm", "--cpus", "2", "-m", "1G", "--disk", "9G", "--network=none"];
    let words: Vec<&str> = words.iter().chain(&["-p", "80:80", "-w", "/srv"]).copied().collect();
    stage.run(&[&words[..], &["--", "sh"]].concat()).ok();
    assert!(
        stage.log().starts_with(
            "banger-vm-create --vcpu=2 --memory=1G --disk-size=9G --net=none --publish=80:80 --no-start\n\
             banger-vm-start web\n\
             banger-vm-exec --workdir=/srv --tty --interactive web -- sh\n"
        ),
        "{}",
        stage.log()
    );
    let stage = Stage::new("exit 0");
    for (words, hint) in [
        (&["-v", ".:/src", "--", "x"][..], "nothing of the host is mounted"),
        (&["--mount", "type=bind", "--", "x"], "nothing of the host is mounted"),
        (&["--volume=.:/src", "--", "x"], "nothing of the host is mounted"),
        (&["--entrypoint", "sh", "--", "x"], "what comes behind '--' runs beside it"),
        (&["--label", "a=b", "--", "x"], "VMs have no labels"),
        (&["--hostname", "web", "--", "x"], "'--name NAME'"),
        (&["--env-file", "f", "--", "x"], "'--env NAME'"),
        (&["--privileged", "--", "x"], "a kernel of its own"),
        (&["--pull", "always", "--", "x"], "'banger image pull REFERENCE'"),
        (&["--gpus=all", "--", "x"], "not passed into VMs"),
        (&["--nothing-like-it", "--", "x"], "'banger vm run --help' shows how to call it"),
    ] {
        let answer = stage.run(words);
        answer.fails(2, "unexpected argument");
        let said = answer.stderr.split_once("hint: ").map_or("", |(_, said)| said);
        assert!(said.contains(hint), "{}", answer.stderr);
        assert!(!answer.stderr.contains("as a value"), "{}", answer.stderr);
    }
    assert_eq!(stage.log(), "");
}

#[test]
fn an_error_of_a_called_program_names_the_one_that_was_called() {
    let stage = Stage::new("exit 0");
    let report = r#"{"schema":"banger.error/1","kind":"usage","message":"no","hint":"'banger vm create --help' shows how to call it"}"#;
    stage.program("banger-vm-create", &format!("cat <<'X'\n{report}\nX\nexit 2"));
    let answer = stage.run(&["--publish", "8080", "--", "x"]);
    answer.fails(2, "hint: 'banger vm run --help' shows how to call it");
    // A word that is no path may be an image.
    let report = r#"{"schema":"banger.error/1","kind":"not-found","message":"no 'alpine'"}"#;
    stage.program("banger-workspace-prepare", &format!("cat <<'X'\n{report}\nX\nexit 3"));
    stage.run(&["alpine", "--", "sh"]).fails(125, "an image is given with '--image alpine'");
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
fn what_this_host_cannot_run_is_not_kept() {
    let stage = Stage::new("exit 0");
    let report = r#"{"schema":"banger.error/1","kind":"unavailable","message":"no KVM here"}"#;
    stage.program("banger-vm-start", &format!("cat <<'X'\n{report}\nX\nexit 5"));
    stage.run(&["--vmm", "firecracker", "--", "true"]).fails(125, "no KVM here");
    assert!(stage.log().ends_with("banger-vm-delete --force --quiet web\n"), "{}", stage.log());
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
fn a_person_is_told_where_the_time_went_and_what_runs_on() {
    let stage = Stage::new("echo called: ${BANGER_CALLED-no}; sleep 1.2; exit 5");
    stage.program("banger-vm-start", &format!("sleep 1.1; echo '{VIEW}'"));
    let typed = |words: &str| {
        let line = format!("exec 2>&1; {} {words}; echo status $?", stage.program.display());
        stage.sandbox.terminal(&line, 200, |_| {}).text()
    };
    let text = typed("--rm -- make");
    let times = text.lines().find(|line| line.starts_with("web: ")).unwrap_or_default();
    assert!(
        times.contains("s in all: ") && times.contains("boot 1.") && times.contains("command 1.")
    );
    assert!(text.contains("status 5") && !text.contains("runs on"), "{text}");
    // What becomes of the VM is said by this program, not by the one that runs the command.
    assert!(text.contains("called: 1"), "{text}");

    // It becomes the other program here, and the command's time is the person's own.
    let text = typed("--name web -- make");
    assert!(text.contains("VM 'web' runs on; 'banger vm exec web' goes back"), "{text}");
    assert!(text.contains("called: no") && !text.contains("in all"), "{text}");
    // Who leaves a shell is told by the other program, then.
    assert!(!typed("--tty -- sh").contains("runs on"));
    assert!(!typed("-q --rm -- make").contains("in all"));
    assert_eq!(stage.run(&["--rm", "--", "make"]).stderr, "");
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

/// Adds a stand-in for the program that takes a repository in.
fn with_workspace(stage: &Stage, files: &str) {
    let is_allowed = files.contains("tools_allowed");
    with_record(stage, files, if is_allowed { r#","tools_allowed":true"# } else { "" });
}

/// The same, with more words of the record.
fn with_record(stage: &Stage, files: &str, more: &str) {
    let plan = format!(
        r#"{{"schema":"banger.workspace-plan/1","host_path":"/h","guest_path":"/root/repo","mode":"shallow","files":{files},"size_bytes":1,"untracked_left":0}}"#
    );
    let record = format!(
        r#"{{"schema":"banger.workspace/1","guest_path":"/root/repo","host_path":"/h","is_repository":true,"object_format":"sha1","prepared_tree":"t","given":{{}},"tree_file":"t","files":1,"prepared_unix_ms":1{more}}}"#
    );
    let script = format!("case \"$*\" in *--dry-run*) echo '{plan}';; *) echo '{record}';; esac");
    stage.program("banger-workspace-prepare", &script);
}

#[test]
fn a_repository_goes_in_and_the_command_runs_in_it() {
    let stage = Stage::new("exit 3");
    with_workspace(&stage, "[\"a\"]");
    let words = ["--branch", "b", "--from", "main", "--include-untracked", "/h", "--", "make"];
    assert_eq!(stage.run(&words).status, 3);
    let prepare = "web --branch=b --from=main --include-untracked -- /h";
    assert_eq!(
        stage.log(),
        format!(
            "banger-workspace-prepare --dry-run --no-include --quiet {}\n\
             banger-vm-create --no-start\nbanger-vm-start web\nbanger-workspace-prepare {prepare}\n\
             banger-vm-exec --interactive web -- make\n",
            prepare.replacen("web", "new", 1)
        )
    );
}

#[test]
fn user_place_and_variables_are_passed_on() {
    let stage = Stage::new("exit 0");
    with_workspace(&stage, "[\"a\"]");
    let words = [
        "-u",
        "dev:docker",
        "--guest-path",
        "/srv/x",
        "-e",
        "A=b c",
        "--env",
        "HOME",
        "/h",
        "--",
        "make",
    ];
    stage.run(&words).ok();
    let prepare = "web --guest-path=/srv/x -- /h";
    assert_eq!(
        stage.log(),
        format!(
            "banger-workspace-prepare --dry-run --no-include --quiet {}\n\
             banger-vm-create --user=dev:docker --no-start\nbanger-vm-start web\n\
             banger-workspace-prepare {prepare}\nbanger-vm-exec --env=A=b c --env=HOME \
             --interactive web -- make\n",
            prepare.replacen("web", "new", 1)
        )
    );
    let stage = Stage::new("exit 0");
    stage.run(&["-e", "=x", "--", "true"]).fails(2, "'=x' names no variable");
    stage.run(&["-d", "-e", "A=b"]).fails(2, "nothing is run that could get 'A'");
    stage.run(&["-u", "a:b:c", "--", "true"]).fails(2, "'a:b:c' is none of user");
    stage.run(&["--guest-path", "/srv", "--", "true"]).fails(2, "is missing");
    assert_eq!(stage.log(), "");
}

#[test]
fn a_repository_that_cannot_go_in_is_refused_before_anything_is_made() {
    let stage = Stage::new("exit 0");
    let report =
        r#"{"schema":"banger.error/1","kind":"usage","message":"'/h' is a bare repository"}"#;
    stage.program("banger-workspace-prepare", &format!("cat <<'X'\n{report}\nX\nexit 2"));
    stage.run(&["/h", "--", "true"]).fails(2, "bare repository");
    assert!(!stage.log().contains("create"), "{}", stage.log());
    stage.run(&["--branch", "b", "--", "true"]).fails(2, "is missing");
    stage.run(&["--from", "b", "/h", "--", "true"]).fails(2, "is missing");
}

#[test]
fn a_dry_run_makes_nothing() {
    let stage = Stage::new("exit 0");
    with_workspace(&stage, "[\"a\"]");
    let answer = stage.run(&["/h", "--dry-run"]);
    answer.ok();
    assert!(answer.text().contains("banger.workspace-plan/1"), "{answer:?}");
    assert_eq!(
        stage.log(),
        "banger-workspace-prepare --dry-run --no-include --quiet new -- /h\n\
         banger-workspace-prepare --dry-run --no-include new -- /h\n"
    );
}

#[test]
fn what_fails_in_a_dry_run_is_said_once_by_this_program() {
    let stage = Stage::new("exit 0");
    let report =
        r#"{"schema":"banger.error/1","kind":"usage","message":"'/h' is a bare repository"}"#;
    let said = "[ -n \"$BANGER_CALLED\" ] || echo 'banger-workspace-prepare: bare' >&2";
    stage.program("banger-workspace-prepare", &format!("{said}\ncat <<'X'\n{report}\nX\nexit 2"));
    let answer = stage.run(&["/h", "--dry-run"]);
    answer.fails(2, "banger-vm-run: '/h' is a bare repository\n");
    assert!(!answer.stderr.contains("workspace-prepare"), "{answer:?}");
}

#[test]
fn who_forgets_the_dashes_is_told_what_was_taken_for_what() {
    let stage = Stage::new("exit 0");
    for (words, part) in [
        (&["uname", "-a"][..], "unexpected argument '-a' found; 'uname' was taken for PATH\n"),
        (&["--rm", "echo", "hi"], "unexpected argument 'hi' found; 'echo' was taken for PATH\n"),
        (&["ls", "--all"], "unexpected argument '--all' found; 'ls' was taken for PATH\n"),
    ] {
        let answer = stage.run(words);
        answer.fails(2, part);
        let hint = "a command comes behind '--': 'banger vm run [PATH] -- COMMAND'\n";
        assert!(answer.stderr.ends_with(hint), "{answer:?}");
    }
    assert_eq!(stage.log(), "");
}

#[test]
fn tools_are_installed_where_the_user_said_yes_and_there_is_a_network() {
    let allowed = "[\".tool-versions\"],\"tools\":[\".tool-versions\"],\"tools_allowed\":true";
    let stage = Stage::new("exit 0");
    with_workspace(&stage, allowed);
    stage.run(&["/h", "-d", "--net", "none"]).fails(2, "no network");
    assert!(!stage.log().contains("create"), "{}", stage.log());
    stage.sandbox.config("net = 'none'\n");
    stage.run(&["/h", "-d"]).fails(2, "no network");
    assert!(!stage.log().contains("create"), "{}", stage.log());
    stage.run(&["/h", "-d", "--net", "user"]).ok();
    assert!(stage.log().contains("mise install"), "{}", stage.log());
    let stage = Stage::new("exit 0");
    with_workspace(&stage, allowed);
    stage.run(&["/h", "-d", "--net", "none", "--no-bootstrap"]).ok();
    assert!(!stage.log().contains("mise"), "{}", stage.log());
    stage.run(&["/h", "-d", "--bootstrap", "--no-bootstrap"]).fails(2, "cannot be used with");
}

#[test]
fn tools_that_changed_before_they_went_are_not_installed() {
    let plan = "[\".tool-versions\"],\"tools\":[\".tool-versions\"],\"tools_allowed\":true";
    let refused =
        |why: &str| format!(r#","tools_refused":{{"path":".tool-versions","why":"{why}"}}"#);
    let stage = Stage::new("exit 0");
    with_record(&stage, plan, &refused("changed"));
    let answer = stage.run(&["/h", "-d"]);
    answer.ok();
    assert!(!stage.log().contains("mise"), "{}", stage.log());
    assert!(answer.stderr.contains("it is not what you said yes to"), "{}", answer.stderr);
    // Where nothing is left of them, nothing is said either.
    let stage = Stage::new("exit 0");
    with_record(&stage, plan, "");
    stage.run(&["/h", "-d"]).ok();
    assert!(!stage.log().contains("mise"), "{}", stage.log());
    let stage = Stage::new("exit 0");
    with_record(&stage, plan, &refused("changed"));
    stage.run(&["/h", "-d", "--bootstrap"]).ok();
    assert!(stage.log().contains("mise install"), "{}", stage.log());
    // To a link nobody can say yes.
    let stage = Stage::new("exit 0");
    with_record(&stage, &format!("[\"a\"],\"tools\":[\".tool-versions\"]{}", refused("link")), "");
    let answer = stage.run(&["/h", "-d"]);
    answer.ok();
    assert!(answer.stderr.contains("it is a link"), "{}", answer.stderr);
    assert!(!answer.stderr.contains("banger allow"), "{}", answer.stderr);
}

#[test]
fn a_repository_nobody_said_yes_to_starts_nothing_by_itself() {
    let stage = Stage::new("exit 0");
    with_workspace(&stage, "[\".mise.toml\"],\"tools\":[\".mise.toml\"]");
    let answer = stage.run(&["/h", "-d"]);
    answer.ok();
    assert!(!stage.log().contains("mise"), "{}", stage.log());
    assert!(answer.stderr.contains("'banger allow /h'"), "{}", answer.stderr);
    assert!(answer.stderr.contains("'--bootstrap'"), "{}", answer.stderr);
    // Nor is a network needed for what does not start.
    stage.run(&["/h", "-d", "--net", "none"]).ok();
    stage.run(&["/h", "-d", "--net", "none", "--bootstrap"]).fails(2, "no network");
    assert!(!stage.log().contains("mise"), "{}", stage.log());
    stage.run(&["/h", "-d", "--bootstrap"]).ok();
    assert!(stage.log().contains("mise install"), "{}", stage.log());
    // Before a command it is done to the end.
    let stage = Stage::new("exit 0");
    with_workspace(&stage, "[\".mise.toml\"],\"tools\":[\".mise.toml\"]");
    stage.run(&["/h", "--bootstrap", "--trust-git-dir", "/g", "--", "make"]).ok();
    let log = stage.log();
    let (install, make) = (log.find("mise install"), log.find("-- make"));
    assert!(install.is_some() && install < make && !log.contains("trap"), "{log}");
    assert!(log.contains("--trust-git-dir=/g"), "{log}");
    // What lies on the host is not what goes in.
    let answer = stage.run(&["/h", "-d", "--branch", "b", "--from", "x"]);
    assert!(!answer.ok().stderr.contains("banger allow"), "{}", answer.stderr);
}

#[test]
fn tools_that_cannot_be_installed_leave_no_vm_that_was_to_go() {
    for (words, goes) in [(&["--rm"][..], true), (&[], false)] {
        let stage = Stage::new("exit 1");
        with_workspace(&stage, "[\".mise.toml\"],\"tools\":[\".mise.toml\"]");
        let answer = stage.run(&[&["/h", "--bootstrap"], words, &["--", "make"]].concat());
        answer.fails(125, "mise could not install the tools");
        let log = stage.log();
        assert!(!log.contains("-- make"), "{log}");
        assert_eq!(log.contains("delete"), goes, "{log}");
        assert_eq!(answer.stderr.contains("mise.log"), !goes, "{}", answer.stderr);
    }
}
