//! What is carried to a hostile guest and from it, and what is asked of it in a word.

use crate::{litter, timed};
use banger_tests::{Running, Sandbox, program};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Result, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What an agent does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Foul {
    /// It says nothing, and takes nothing but the beginning of what it is told.
    Silent,
    /// It tells something whole now and then.
    Crawls,
    /// It tells a byte now and then.
    Drips,
    /// It tells without an end.
    Floods,
    /// It answers, with the largest numbers and the worst names.
    Lies,
}

const ALL: [Foul; 5] = [Foul::Silent, Foul::Crawls, Foul::Drips, Foul::Floods, Foul::Lies];

/// A directory of the guest that the agent tells the truth of, until its content is asked for.
const LATE: &str = "late";

/// Says `whole` in the manner of this agent, until nobody listens.
fn say(foul: Foul, stream: &mut UnixStream, whole: &[u8]) -> Result<()> {
    match foul {
        Foul::Silent => thread::sleep(Duration::from_mins(5)),
        Foul::Crawls => loop {
            stream.write_all(whole)?;
            thread::sleep(Duration::from_millis(300));
        },
        Foul::Drips => {
            for byte in whole.iter().cycle() {
                stream.write_all(&[*byte])?;
                thread::sleep(Duration::from_millis(20));
            }
        }
        Foul::Floods => loop {
            stream.write_all(whole)?;
        },
        Foul::Lies => stream.write_all(whole)?,
    }
    Ok(())
}

/// Answers one request.
fn play(foul: Foul, stream: &mut BufReader<UnixStream>) -> Result<()> {
    if stream.fill_buf()?.starts_with(br#"{"argv""#) {
        // A frame of stdout.
        let frame = [&[16, 0, 0, 0xff, 0][..], &vec![b'x'; 0xff00]].concat();
        let frame: &[u8] = match foul {
            Foul::Crawls => &[16, 0, 0, 0, 1, b'x'],
            Foul::Lies => &[16, 0xff, 0xff, 0xff, 0xff],
            _ => &frame,
        };
        return say(foul, stream.get_mut(), frame);
    }
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let request: Value = serde_json::from_str(&line).unwrap_or_default();
    let name = "\u{1b}[31m\u{202e}x".repeat(10);
    let answer = match request["op"].as_str().unwrap_or_default() {
        "stats" if foul == Foul::Lies => {
            let disk = json!({ "path": name, "total_bytes": u64::MAX, "free_bytes": u64::MAX })
                .to_string();
            let disks = vec![disk; 2000].join(",");
            let most = u64::MAX;
            format!(
                r#"{{"memory_total_bytes":{most},"memory_available_bytes":0,"load1":1e308,"processes":{most},
                "cpu_busy_ms":{most},"cpu_idle_ms":{most},"received_bytes":{most},"sent_bytes":{most},
                "disks":[{disks}]}}"#
            )
            .replace('\n', "")
                + "\n"
        }
        "ports" if foul == Foul::Lies => {
            let port = |number: u16| json!({ "protocol": "tcp", "address": "::", "port": number, "pid": u32::MAX, "process": name });
            let ports: Vec<Value> = (0..3000).map(port).collect();
            json!({ "ports": ports }).to_string() + "\n"
        }
        "stat" | "tar" if request["root"] == "/" || request["root"] == "/late" => {
            return files(foul, &request, stream);
        }
        "stats" | "ports" => "[".repeat(100),
        // Something is written: nobody says that it was.
        _ => "x".repeat(100),
    };
    say(foul, stream.get_mut(), answer.as_bytes())
}

/// Answers what is asked of the files.
fn files(foul: Foul, request: &Value, stream: &mut BufReader<UnixStream>) -> Result<()> {
    let mut path = Vec::new();
    if request["list_bytes"] != 0 {
        stream.read_until(0, &mut path)?;
        path.pop();
    }
    let path = String::from_utf8_lossy(&path).into_owned();
    let out = stream.get_mut();
    match request["op"].as_str() {
        Some("stat") if path == LATE => write!(out, "d 755 1 1 1 1 {LATE}\0end\0"),
        // What would be in it is not there yet.
        Some("stat") if request["root"] == "/late" => out.write_all(b"-\0end\0"),
        Some("stat") => say(foul, out, b"f 644 1 1 1 1 a-name-that-has-no-end"),
        _ => {
            // A piece of a file of a gibibyte.
            let mut header = [0; 512];
            let mut put =
                |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
            put(0, b"./file");
            put(100, b"0000644\0");
            put(108, b"0000000\0");
            put(116, b"0000000\0");
            put(124, b"10000000000\0");
            put(136, b"00000000000\0");
            put(148, b"        ");
            put(156, b"0");
            put(257, b"ustar\x0000");
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            if foul == Foul::Lies {
                return write!(out, "{}\0", u64::MAX);
            }
            out.write_all(b"512\0")?;
            out.write_all(&header)?;
            let piece = [b"60000\0".as_slice(), &vec![b'x'; 60_000]].concat();
            say(foul, out, if foul == Foul::Crawls { b"1\0x" } else { &piece })
        }
    }
}

/// A program that somebody presses Ctrl-C at.
struct Pressed {
    child: Child,
    said: PathBuf,
}

impl Pressed {
    fn start(sandbox: &Sandbox, label: &str, name: &str, words: &[&str]) -> Self {
        let said = sandbox.dir().join(format!("said-{label}"));
        let mut command = sandbox.command(program(name));
        command.args(words).process_group(0).stdout(Stdio::null());
        command.stderr(File::create(&said).unwrap());
        Self { child: command.spawn().unwrap(), said }
    }

    /// Presses Ctrl-C after each of these times; returns the status, what was said, and whether it was still at
    /// work when the first came. It has to end within so many seconds of the last.
    fn ended(mut self, after: &[Duration], seconds: u64) -> (Option<i32>, String, bool) {
        let group = Pid::from_raw(self.child.id() as i32);
        let mut ran = None;
        for time in after {
            thread::sleep(*time);
            ran = ran.or(Some(self.child.try_wait().unwrap().is_none()));
            let _ = killpg(group, Signal::SIGINT);
        }
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            let said = || fs::read_to_string(&self.said).unwrap_or_default();
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), said(), ran == Some(true));
            }
            if Instant::now() > end {
                let _ = killpg(group, Signal::SIGKILL);
                let _ = self.child.wait();
                panic!("it goes on after {after:?}: {}", said());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// VMs whose agents are foul in each way, with a file and a directory of this host to be copied.
pub(crate) struct Vms(Vec<(Foul, Running)>);

impl Vms {
    pub(crate) fn new(sandbox: &Sandbox) -> Self {
        let given = sandbox.dir().join("given");
        fs::create_dir(&given).unwrap();
        fs::write(given.join("file"), vec![b'x'; 4 << 20]).unwrap();
        Self(Vec::from(ALL.map(|foul| {
            let running = sandbox.plant_running(&name_of(foul), &json!({}));
            running.answer(move |stream| drop(play(foul, stream)));
            (foul, running)
        })))
    }

    /// Asks each of them for everything, all at once.
    pub(crate) fn try_all(&self, sandbox: &Sandbox) {
        thread::scope(|scope| {
            for (foul, _) in &self.0 {
                scope.spawn(|| asked(sandbox, *foul));
                scope.spawn(|| ran(sandbox, *foul));
                scope.spawn(|| looked(sandbox, *foul));
                scope.spawn(|| copied(sandbox, *foul));
            }
        });
        // No copy is on its way any more.
        assert_eq!(litter(&sandbox.dir()), [""; 0]);
    }
}

fn name_of(foul: Foul) -> String {
    format!("carried-{foul:?}").to_lowercase()
}

fn is_clean(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}'))
}

/// Short questions.
fn asked(sandbox: &Sandbox, foul: Foul) {
    let name = &name_of(foul);
    let stats = timed(sandbox, "banger-vm-stats", &[name], 10);
    assert!(is_clean(&stats.ok().text()), "{}", stats.all());
    let stats: Value = serde_json::from_str(&stats.text()).unwrap();
    assert_eq!(stats["guest"].is_object(), foul == Foul::Lies, "{stats}");
    let ports = timed(sandbox, "banger-vm-ports", &[name], 20);
    assert!(is_clean(&ports.text()) && is_clean(&ports.stderr), "{}", ports.all());
    assert_eq!(ports.status == 0, foul == Foul::Lies, "{foul:?}: {}", ports.all());
}

/// A command says what it likes for as long as it likes, until somebody has enough.
fn ran(sandbox: &Sandbox, foul: Foul) {
    let name = &name_of(foul);
    let second = Duration::from_secs(1);
    if foul == Foul::Lies {
        let answer = timed(sandbox, "banger-vm-exec", &[name, "true"], 10);
        assert!(answer.status == 125, "{}", answer.all());
        assert!(answer.stderr.contains("breaks the protocol"), "{}", answer.all());
        return;
    }
    let start = || Pressed::start(sandbox, name, "banger-vm-exec", &[name, "true"]);
    let (status, said, ran) = if foul == Foul::Silent {
        start().ended(&[second], 14)
    } else {
        start().ended(&[second, second / 2, second / 2], 3)
    };
    assert!(ran, "{foul:?}: it ended before anybody pressed Ctrl-C: {said}");
    assert_eq!(status, Some(130), "{foul:?}: {said}");
    assert!(said.contains("it may still run in VM"), "{foul:?}: {said}");
    if foul == Foul::Silent {
        // More than any buffer holds, of which it takes nothing.
        let long = "x".repeat(120_000);
        let words = [&[&**name, "echo"][..], &[&*long; 10]].concat();
        let answer = timed(sandbox, "banger-vm-exec", &words, 35);
        assert_eq!(answer.status, 125, "{}", answer.stderr);
        assert!(answer.stderr.contains("cannot send the command"), "{}", answer.stderr);
    }
}

/// What is at a place is told, or not known within half a minute.
fn looked(sandbox: &Sandbox, foul: Foul) {
    let name = &name_of(foul);
    let (from, to) = (&format!("{name}:/early"), &format!("{name}-early"));
    thread::scope(|scope| {
        for words in [[&**from, to], ["given", from], [from, "-"]] {
            scope.spawn(move || {
                let answer = timed(sandbox, "banger-vm-cp", &words, 34);
                assert!(answer.status != 0, "{foul:?}: {}", answer.all());
                assert!(is_clean(&answer.stderr), "{}", answer.all());
                // The others keep it waiting, for whatever it hears of first.
                if matches!(foul, Foul::Lies | Foul::Floods) {
                    assert!(answer.stderr.contains("a string does not end"), "{}", answer.all());
                }
            });
        }
    });
    assert!(!sandbox.dir().join(to).exists());
}

/// A tree on its way, of any size: Ctrl-C ends it, and what was half made goes.
fn copied(sandbox: &Sandbox, foul: Foul) {
    let name = &name_of(foul);
    let (from, to) = (&format!("{name}:/{LATE}"), &format!("{name}-late"));
    let ways = [[&**from, to], ["given", from], [from, "-"]];
    thread::scope(|scope| {
        for (number, words) in ways.iter().enumerate() {
            scope.spawn(move || {
                let label = format!("{name}-{number}");
                let copy = Pressed::start(sandbox, &label, "banger-vm-cp", words);
                let (status, said, ran) = copy.ended(&[Duration::from_secs(3)], 5);
                assert!(status != Some(0), "{foul:?} {words:?}: {said}");
                // A lie is seen at once. A flood of what is no archive is, or comes to its place later.
                match foul {
                    Foul::Silent | Foul::Crawls | Foul::Drips => {
                        assert!(ran, "{foul:?} {words:?}: nobody had pressed Ctrl-C: {said}");
                    }
                    Foul::Lies => assert!(!ran, "{words:?}: it goes on after a lie: {said}"),
                    Foul::Floods => {}
                }
                assert!(ran || said.contains("cannot copy"), "{foul:?} {words:?}: {said}");
                assert!(is_clean(&said), "{said}");
            });
        }
    });
    assert!(!sandbox.dir().join(to).exists());
}
