//! The contract of `banger-vm-exec`: against the real agent, over the real channel, with this
//! machine in place of a guest.
#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_channel::bridge;
use banger_tests::{Answer, Running, Sandbox, have, write_program};
use serde_json::json;
use std::{
    fs,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const EXEC: &str = env!("CARGO_BIN_EXE_banger-vm-exec");

/// A VM that runs as far as anybody can tell: its lock is held, its agent answers.
struct Guest {
    sandbox: Sandbox,
    running: Running,
}

impl Guest {
    /// Starts one whose image says so much of how to run it.
    fn new(config: &str) -> Self {
        let sandbox = Sandbox::new();
        let mut running = sandbox.plant_running("web", &json!({}));
        let config = serde_json::from_str(config).unwrap();
        running.start_agent(&sandbox, &config, |listener, device| {
            drop(bridge::run(listener, bridge::Device::Port(device)));
        });
        Self { sandbox, running }
    }

    fn exec(&self, args: &[&str]) -> Answer {
        self.sandbox.feed(EXEC, args, b"")
    }

    fn feed(&self, args: &[&str], stdin: &[u8]) -> Answer {
        let all: Vec<&str> = ["-i"].iter().chain(args).copied().collect();
        self.sandbox.feed(EXEC, &all, stdin)
    }

    /// Starts it and returns at once.
    fn start(&self, args: &[&str]) -> Child {
        let mut command = self.sandbox.command(EXEC);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }
}

/// Waits until something is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < end, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Says whether a process with these words in its command line runs.
fn runs(words: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == words.as_bytes())
    })
}

#[test]
fn stdout_stderr_and_status_are_exact() {
    let guest = Guest::new("{}");
    let answer =
        guest.exec(&["web", "--", "sh", "-c", "printf 'a\\0\\377\\r\\n'; echo no >&2; exit 42"]);
    assert_eq!(
        (answer.status, &*answer.stdout, &*answer.stderr),
        (42, &b"a\0\xff\r\n"[..], "no\n")
    );
    guest.exec(&["web", "true"]).ok();
    for (signal, status) in [("TERM", 143), ("KILL", 137), ("SEGV", 139)] {
        let answer = guest.exec(&["web", "--", "sh", "-c", &format!("kill -{signal} $$")]);
        assert_eq!((answer.status, &*answer.stderr), (status, ""));
    }
}

#[test]
fn stdin_goes_in_and_comes_back_whole() {
    let guest = Guest::new("{}");
    let big: Vec<u8> = (0..64_u32 << 20).map(|n| (n ^ (n >> 8) ^ (n >> 17)) as u8).collect();
    let answer = guest.feed(&["web", "cat"], &big);
    assert_eq!(answer.status, 0);
    assert!(answer.stdout == big, "{} bytes came back", answer.stdout.len());
}

#[test]
fn stdin_is_left_to_others_unless_it_is_asked_for() {
    let guest = Guest::new("{}");
    let script = format!(
        "printf 'one\\ntwo\\n' | while read word; do {EXEC} web -- sh -c \"cat; echo $word\"; done; \
         printf 'one\\ntwo\\n' | while read word; do {EXEC} -i web -- sh -c \"cat; echo $word\"; done"
    );
    let answer = guest.sandbox.raw("/bin/sh", &["-c", &script]);
    assert_eq!(answer.ok().text(), "one\ntwo\ntwo\none\n");
}

#[test]
fn a_command_that_is_left_running_outlives_the_call() {
    let guest = Guest::new("{}");
    let mark = guest.sandbox.dir().join("mark");
    let script = format!("sleep 1; echo done >{}", mark.display());
    let answer = guest.exec(&["-d", "web", "sh", "-c", &script]);
    assert!(answer.ok().stdout.is_empty() && !mark.exists(), "{}", answer.all());
    until("it wrote its mark", || mark.exists());
    let answer = guest.exec(&["-d", "web", "no-such-command"]);
    answer.fails(127, "cannot find the command 'no-such-command' in the guest");
    let answer = guest.exec(&["web", "no-such-command"]);
    answer.fails(127, "hint: install it in the guest, or use an image that has it: '--image ");
    let answer = guest.exec(&["web", "./no-such-script"]);
    answer.fails(127, "cannot find the command");
    assert!(!answer.stderr.contains("hint:"), "{}", answer.all());
    guest.exec(&["-d", "-t", "web", "true"]).fails(2, "cannot be used with");
    guest.exec(&["-d", "web"]).fails(2, "COMMAND");
}

#[test]
fn a_command_that_does_not_read_gets_its_end_all_the_same() {
    let guest = Guest::new("{}");
    let big = vec![b'x'; 8 << 20];
    assert_eq!(guest.feed(&["web", "true"], &big).status, 0);
    let answer = guest.feed(&["web", "head", "-c", "3"], &big);
    assert_eq!(answer.stdout, b"xxx");
    // It closes its stdin and lives on: what is left over is thrown away.
    let answer = guest.feed(&["web", "sh", "-c", "exec <&-; sleep 0.2; echo done"], &big);
    assert_eq!(answer.stdout, b"done\n");
}

#[test]
fn a_reader_that_goes_away_ends_the_command() {
    let guest = Guest::new("{}");
    let words = format!("goes-away-{}", std::process::id());
    let mut child = guest.start(&["web", "yes", &words]);
    child.stdout.take().unwrap().read_exact(&mut vec![0; 100_000]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
    until("the command ends", || !runs(&words));
}

#[test]
fn a_client_that_is_killed_takes_its_command_along() {
    let guest = Guest::new("{}");
    // It ignores the hang-up and reads nothing, so it has to be killed.
    let seconds = format!("71.{}", std::process::id());
    let script = format!("trap '' HUP; echo up; sleep {seconds}; sleep {seconds}");
    let mut child = guest.start(&["-i", "web", "sh", "-c", &script]);
    child.stdin.take().unwrap().write_all(&vec![b'x'; 200_000]).unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    until("it runs", || runs(&seconds));
    child.kill().unwrap();
    child.wait().unwrap();
    until("the command ends", || !runs(&seconds));
}

#[test]
fn what_stays_behind_holds_nobody_up() {
    let guest = Guest::new("{}");
    let begun = Instant::now();
    let seconds = format!("50.{}", std::process::id());
    let script = format!("sleep {seconds} & echo here; exit 3");
    let answer = guest.exec(&["web", "sh", "-c", &script]);
    assert_eq!((answer.status, &*answer.stdout), (3, &b"here\n"[..]));
    assert!(begun.elapsed() < Duration::from_secs(30));
    let _ = guest.exec(&["web", "pkill", "-f", &format!("^sleep {seconds}$")]);
    // Also when it never stops talking.
    let words = format!("stays-behind-{}", std::process::id());
    let script = format!("(trap '' PIPE; yes {words}) & exit 4");
    let answer = guest.exec(&["web", "sh", "-c", &script]);
    assert_eq!(answer.status, 4);
    until("its reader is gone, so it ends", || !runs(&words));
}

#[test]
fn signals_reach_the_command() {
    let guest = Guest::new("{}");
    for (signal, name) in
        [(libc_signal("INT"), "INT"), (libc_signal("TERM"), "TERM"), (libc_signal("USR1"), "USR1")]
    {
        let script = format!(
            "trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done"
        );
        let mut child = guest.start(&["web", "sh", "-c", &script]);
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 6]).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!((child.wait().unwrap().code(), &*rest), (Some(7), &*format!("got {name}\n")));
    }
}

/// Sends a signal to a process.
fn send(pid: u32, name: &str) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), libc_signal(name)).unwrap();
}

#[test]
fn a_guest_that_is_silent_after_a_signal_is_given_up() {
    let mut guest = Guest::new("{}");
    let seconds = format!("60.{}", std::process::id());
    let mut command = guest.sandbox.command(EXEC);
    command.args(["web", "sh", "-c", &format!("exec sleep {seconds}")]).stderr(Stdio::piped());
    let client = command.spawn().unwrap();
    until("it runs", || runs(&seconds));
    let agent = guest.running.agent().id();
    send(agent, "STOP");
    let begun = Instant::now();
    send(client.id(), "TERM");
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the guest has said nothing for 10 s since"), "{said}");
    assert!(said.contains("'banger vm kill web'"), "{said}");
    let took = begun.elapsed();
    assert!((9..25).contains(&took.as_secs()), "{took:?}");
    send(agent, "CONT");
    until("the command ends", || !runs(&seconds));
}

#[test]
fn a_command_that_takes_its_time_to_end_is_waited_for_until_the_third_signal() {
    let guest = Guest::new("{}");
    let start = |script: &str| {
        let mut child = guest.start(&["web", "sh", "-c", script]);
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 6]).unwrap();
        (child, stdout)
    };
    // It says nothing for longer than a guest may be silent.
    let slow = "trap 'sleep 12; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let (mut patient, _stdout) = start(slow);
    send(patient.id(), "TERM");
    let deaf = "trap '' TERM INT; echo ready; while :; do sleep 0.05; done";
    let (mut client, _stdout) = start(deaf);
    for name in ["TERM", "INT"] {
        send(client.id(), name);
        thread::sleep(Duration::from_millis(300));
        assert!(client.try_wait().unwrap().is_none(), "{name} ended it");
    }
    send(client.id(), "INT");
    assert_eq!(client.wait().unwrap().code(), Some(130));
    assert_eq!(patient.wait().unwrap().code(), Some(7));
}

#[test]
fn what_cannot_be_written_is_an_own_failure() {
    let guest = Guest::new("{}");
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let mut command = guest.sandbox.command(EXEC);
    command.args(["web", "seq", "100000"]).stdout(full()).stderr(Stdio::piped());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{said}");
    let wanted = "cannot write what the command says to stdout: no space left on device";
    assert!(said.to_lowercase().contains(wanted), "{said}");
    let mut command = guest.sandbox.command(EXEC);
    command.args(["web", "sh", "-c", "seq 100000 >&2"]).stdout(Stdio::null()).stderr(full());
    assert_eq!(command.status().unwrap().code(), Some(125));
}

#[test]
fn a_boot_that_goes_on_is_said_and_not_waited_for() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.plant_running("web", &json!({ "booted": "no" }));
    running.start_agent(&sandbox, &json!({}), |listener, device| {
        drop(bridge::run(listener, bridge::Device::Port(device)));
    });
    let answer = sandbox.raw(EXEC, &["web", "true"]);
    let note = "note: the boot of 'web' goes on; 'banger vm wait web' waits for it\n";
    assert_eq!((answer.status, &*answer.stderr), (0, note));
    assert_eq!(sandbox.raw(EXEC, &["-q", "web", "true"]).stderr, "");
}

fn libc_signal(name: &str) -> nix::sys::signal::Signal {
    format!("SIG{name}").parse().unwrap()
}

#[test]
fn a_variable_that_is_not_set_here_is_not_set_there() {
    let guest = Guest::new("{}");
    let words = ["-e", "NO_SUCH_NAME", "-e", "EMPTY", "-e", "B=2", "web", "sh", "-c"];
    let show = "echo ${NO_SUCH_NAME-unset} ${EMPTY-unset} $B";
    let answer = guest.sandbox.raw_with(EXEC, &[&words[..], &[show]].concat(), |command| {
        command.env("EMPTY", "").env_remove("NO_SUCH_NAME");
    });
    assert_eq!(answer.ok().text(), "unset 2\n");
    guest.exec(&["-e", "=x", "web", "true"]).fails(2, "names no variable");
}

#[test]
fn the_image_decides_and_options_overrule() {
    let guest = Guest::new(
        r#"{"env":["PATH=/opt/none:/usr/bin:/bin","COLOUR=red","KEPT=1"],"working_dir":"/usr","user":"nobody"}"#,
    );
    let show = "echo $COLOUR $KEPT $PWD $(id -un) $HOME $PATH";
    let answer = guest.exec(&["web", "sh", "-c", show]);
    let text = answer.text();
    assert!(
        text.starts_with("red 1 /usr nobody /nonexistent /opt/none:/usr/bin:/bin:/run/banger/bin"),
        "{text}"
    );
    let options = [
        "-u",
        "root",
        "-e",
        "COLOUR=blue",
        "--env",
        "MINE",
        "--workdir",
        "/tmp",
        "web",
        "--",
        "sh",
        "-c",
    ];
    let answer = guest.sandbox.raw_with(
        EXEC,
        &[&options[..], &["echo $COLOUR $MINE $PWD $HOME; id -G"]].concat(),
        |c| {
            c.env("MINE", "yes");
        },
    );
    assert_eq!(answer.text(), "blue yes /tmp /root\n0\n");
    let answer = guest.exec(&["-u", "12345:54321", "web", "id"]);
    assert!(answer.text().starts_with("uid=12345 gid=54321"), "{}", answer.text());
}

#[test]
fn agents_are_told_that_this_is_a_sandbox_unless_somebody_says_otherwise() {
    let show = ["web", "sh", "-c", "echo $IS_SANDBOX"];
    let guest = Guest::new("{}");
    assert_eq!(guest.exec(&show).ok().text(), "1\n");
    assert_eq!(guest.exec(&[&["-e", "IS_SANDBOX=0"], &show[..]].concat()).ok().text(), "0\n");
    let guest = Guest::new(r#"{"env":["IS_SANDBOX="]}"#);
    assert_eq!(guest.exec(&show).ok().text(), "\n");
}

#[test]
fn a_command_starts_where_the_workspace_was_named_and_a_shell_at_home() {
    let guest = Guest::new("{}");
    // Without words it is a shell, here one that reads its commands from stdin.
    let shell = guest.feed(&["-T", "web"], b"pwd\n");
    assert_eq!(shell.ok().text(), format!("{}\n", root_home()));
    assert_eq!(guest.exec(&["web", "pwd"]).ok().text(), "/\n");
    // Who may not log in has a shell all the same, and no home to start it in.
    let nobody = guest.feed(&["-T", "-u", "nobody", "web"], b"id -un; echo $SHELL\n");
    assert_eq!(nobody.ok().text(), "nobody\n/bin/sh\n");
    let dir = guest.sandbox.dir().join("inside/deep");
    fs::create_dir_all(&dir).unwrap();
    let (top, deep) = (dir.parent().unwrap().to_str().unwrap(), dir.to_str().unwrap());
    let mut record = json!({
        "schema": "banger.workspace/1", "guest_path": top, "host_path": "/h", "is_repository": false,
        "object_format": "sha1", "prepared_tree": "t", "given": {}, "tree_file": "t", "files": 1,
        "prepared_unix_ms": 1,
    });
    let folder = guest.sandbox.vm("web").join("workspaces/0123456789abcdef");
    fs::create_dir_all(&folder).unwrap();
    let mut starts = |start: Option<&str>| {
        if let Some(start) = start {
            record["start_path"] = start.into();
        }
        fs::write(folder.join("workspace.json"), record.to_string()).unwrap();
        guest.exec(&["web", "pwd"]).ok().text()
    };
    assert_eq!(starts(None), format!("{top}\n"));
    assert_eq!(starts(Some(deep)), format!("{deep}\n"));
    // Of several it is the one that was made first, whatever its folder is called; one that was begun and
    // one that cannot be read are none.
    let write = |id: &str, text: String| {
        let folder = guest.sandbox.vm("web").join("workspaces").join(id);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("workspace.json"), text).unwrap();
    };
    let mut other = record.clone();
    (other["guest_path"], other["first_unix_ms"]) = ("/etc".into(), 7.into());
    write("0000000000000001", other.to_string());
    other["first_unix_ms"] = 3.into();
    other["next"] = json!({});
    write("0000000000000002", other.to_string());
    write("0000000000000003", "damaged".into());
    record["first_unix_ms"] = 5.into();
    write("0123456789abcdef", record.to_string());
    assert_eq!(guest.exec(&["web", "pwd"]).ok().text(), format!("{deep}\n"));
}

/// The home that this machine's list of users has for whoever runs the test.
fn root_home() -> String {
    let list = fs::read_to_string("/etc/passwd").unwrap();
    let root = list.lines().find(|line| line.starts_with("root:")).unwrap();
    root.split(':').nth(5).unwrap().to_owned()
}

#[test]
fn what_cannot_start_says_why() {
    let guest = Guest::new("{}");
    let cases: [(&[&str], i32, &str); 7] = [
        (&["web", "no-such-command"], 127, "no-such-command"),
        (&["web", "ls -la"], 127, "hint: each word stands alone"),
        (&["web", "/no/such/file"], 127, "/no/such/file"),
        (&["web", "/etc/passwd"], 126, "/etc/passwd"),
        (&["web", "/etc"], 126, "/etc"),
        (&["-w", "/no/such/dir", "web", "true"], 125, "'/no/such/dir'"),
        (&["-u", "no-such-user", "web", "true"], 125, "'no-such-user'"),
    ];
    for (args, status, part) in cases {
        let answer = guest.exec(args);
        assert_eq!(answer.status, status, "{}", answer.all());
        assert!(answer.stdout.is_empty() && answer.stderr.contains(part), "{}", answer.all());
    }
}

#[test]
fn a_script_without_a_first_line_runs_as_shells_run_it() {
    let guest = Guest::new("{}");
    let script = guest.sandbox.dir().join("script");
    write_program(&script, "echo \"$0 $1\"\n");
    let script = script.to_str().unwrap();
    assert_eq!(guest.exec(&["web", script, "one"]).text(), format!("{script} one\n"));
}

#[test]
fn without_a_command_it_is_a_shell() {
    let guest = Guest::new("{}");
    let answer = guest.feed(&["web"], b"echo from $0; exit 5\n");
    assert_eq!(answer.status, 5);
    assert!(answer.text().starts_with("from "), "{}", answer.text());
}

#[test]
fn who_leaves_a_shell_is_told_that_the_vm_runs_on() {
    let guest = Guest::new("{}");
    let told =
        "VM 'web' runs on; 'banger vm exec web' goes back into it, 'banger vm stop web' stops it";
    let typed = |words: &str, env: &str| {
        let line = format!("exec 2>&1; printf 'exit 3\\n' | {env} {EXEC} {words}; echo status $?");
        guest.sandbox.terminal(&line, 200, |_| {}).text()
    };
    for words in ["-t web", "-t web -- sh", "-t web /bin/sh -i"] {
        let text = typed(words, "");
        assert!(text.contains(told) && text.contains("status 3"), "{words}: {text}");
    }
    // Who asked for silence is not, nor who only ran a command, nor is a caller's person twice.
    for (words, env) in [
        ("-q -t web", ""),
        ("-t web -- sh -c 'exit 3'", ""),
        ("-t web -- cat", ""),
        ("-T web", ""),
        ("-t web", "env BANGER_CALLED=1"),
    ] {
        let text = typed(words, env);
        assert!(!text.contains("runs on"), "{words}: {text}");
    }
    // Without a terminal nobody is there to be told.
    assert_eq!(guest.feed(&["-t", "web"], b"exit\n").stderr, "");
}

#[test]
fn that_the_host_has_moved_on_is_said_once() {
    let guest = Guest::new("{}");
    let host = guest.sandbox.dir().join("repo");
    fs::create_dir_all(host.join(".git")).unwrap();
    let commit = |digit: &str| digit.repeat(40);
    let head = |digit: &str| fs::write(host.join(".git/HEAD"), commit(digit)).unwrap();
    let record = json!({
        "schema": "banger.workspace/1", "guest_path": "/", "host_path": host, "is_repository": true,
        "object_format": "sha1", "prepared_tree": "t", "given": {"head": "x"}, "tree_file": "t",
        "files": 1, "prepared_unix_ms": 1, "host_commit": commit("1"),
    });
    let folder = guest.sandbox.vm("web").join("workspaces/0123456789abcdef");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("workspace.json"), record.to_string()).unwrap();
    let says = |words: &[&str]| guest.exec(words).ok().stderr.matches("has moved on").count();
    head("1");
    assert_eq!(says(&["web", "true"]), 0);
    head("2");
    // Silence tells nobody, so it is still news.
    assert_eq!(says(&["-q", "web", "true"]), 0);
    assert_eq!([says(&["web", "true"]), says(&["web", "true"])], [1, 0]);
    head("3");
    assert_eq!([says(&["web", "true"]), says(&["web", "true"])], [1, 0]);
    // Of each workspace, with what brings it in.
    let folder = folder.with_file_name("fedcba9876543210");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("workspace.json"), record.to_string()).unwrap();
    head("4");
    let said = guest.exec(&["web", "true"]).stderr;
    assert_eq!(said.matches("has moved on").count(), 2, "{said}");
    let typed = format!("'banger workspace prepare web {}'", host.display());
    assert_eq!(said.matches(&typed).count(), 2, "{said}");
    assert_eq!(says(&["web", "true"]), 0);
}

#[test]
fn a_terminal_has_a_size_and_one_stream() {
    let guest = Guest::new("{}");
    if !have("script") {
        return;
    }
    let answer = guest.sandbox.terminal(
        &format!("stty rows 33; {EXEC} -t web sh -c 'test -t 0 && test -t 2 && stty size; echo $TERM >&2; exit 6'; echo $?"),
        97,
        |command| {
            command.stdin(Stdio::null());
        },
    );
    let text = answer.text();
    assert!(
        text.contains(" 97") && text.contains("xterm") && text.trim_end().ends_with('6'),
        "{text}"
    );
    // One that nobody knows is called by a name that is known; a name that was asked for stays.
    for (words, wanted) in [("", "xterm-256color"), ("-e TERM=odd-terminal", "odd-terminal")] {
        let line = format!("TERM=odd-terminal {EXEC} {words} -t web sh -c 'echo is $TERM'");
        let said = guest.sandbox.terminal(&line, 97, |command| {
            command.stdin(Stdio::null());
        });
        assert_eq!(said.text().trim(), format!("is {wanted}"));
    }
    // Not from a terminal, on demand; end-of-file is typed.
    let answer =
        guest.feed(&["--tty", "web", "--", "sh", "-c", "stty -echo; stty size; cat"], b"typed\n");
    let text = answer.text();
    assert!(text.contains("24 80\r\n") && text.contains("typed\r\n"), "{text:?}");
    assert_eq!(answer.status, 0);
}

#[test]
fn many_at_once_do_not_mix() {
    let guest = Guest::new("{}");
    thread::scope(|scope| {
        for n in 0..40 {
            let guest = &guest;
            scope.spawn(move || {
                let script =
                    format!("cat; head -c 200000 /dev/zero | tr '\\0' {}; exit {n}", n % 10);
                let answer = guest.feed(&["web", "sh", "-c", &script], format!("{n}").as_bytes());
                assert_eq!(answer.status, n);
                let wanted = format!("{n}{}", (n % 10).to_string().repeat(200_000));
                assert!(answer.stdout == wanted.as_bytes());
            });
        }
    });
}

#[test]
fn the_agent_stays_small() {
    let mut guest = Guest::new("{}");
    let agent = guest.running.agent().id();
    guest.feed(&["web", "cat"], &vec![1; 8 << 20]).ok();
    for _ in 0..20 {
        guest.exec(&["web", "true"]).ok();
    }
    let field = |name: &str| {
        let status = fs::read_to_string(format!("/proc/{agent}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        line.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    // One takes connections; none carries what leads to ports before there is any.
    until("its other threads end", || field("Threads:") == 1);
    let kib = field("VmRSS:");
    assert!(kib < 5 << 10, "{kib} KiB");
}

#[test]
fn an_agent_that_dies_is_an_own_failure() {
    let mut guest = Guest::new("{}");
    let seconds = format!("20.{}", std::process::id());
    // Within a word of the client's own, so that it is not taken for the command.
    let child = guest.start(&["web", "sh", "-c", &format!("exec sleep {seconds}")]);
    until("it runs", || runs(&seconds));
    guest.running.agent().kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    Command::new("pkill").arg("-f").arg(format!("^sleep {seconds}$")).status().unwrap();
}

#[test]
fn vms_that_do_not_run_and_words_that_mean_nothing_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let stopped = sandbox.raw(EXEC, &["web", "true"]);
    assert_eq!((stopped.status, stopped.stdout.len()), (125, 0));
    assert!(stopped.stderr.contains("'web' is created"), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("hint: 'banger vm start web'"), "{}", stopped.stderr);
    let missing = sandbox.raw(EXEC, &["nobody", "true"]);
    assert!(
        missing.status == 125 && missing.stderr.contains("no VM 'nobody'"),
        "{}",
        missing.all()
    );
    assert_eq!(sandbox.raw(EXEC, &["../web", "true"]).status, 2);
    assert_eq!(sandbox.raw(EXEC, &[]).status, 2);
    assert_eq!(sandbox.raw(EXEC, &["--no-such-option", "web"]).status, 2);
    assert_eq!(sandbox.raw(EXEC, &["-e", "=x", "web", "true"]).status, 2);
}
