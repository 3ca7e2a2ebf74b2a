//! A guest whose agent speaks the real protocol and lies in it: whatever is asked of such a VM ends in its
//! time, takes little memory, and leaves nothing.
#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

mod carried;

use banger_channel::{bridge, files::MARK};
use banger_tests::{Answer, Running, Sandbox, program};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Result, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const STOP: &str = env!("CARGO_BIN_EXE_banger-vm-stop");

/// The most memory that any program may take, in KiB.
const MEMORY: i64 = 256 << 10;

/// What an agent does when the tree of its workspace is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Foul {
    /// It says nothing.
    Silent,
    /// It tells an entry now and then.
    Crawls,
    /// It tells a byte now and then.
    Drips,
    /// It tells entries without an end, with names and targets as long as they can be.
    FloodsLong,
    /// The same with names as short as they can be.
    FloodsShort,
    /// It tells of directories without an end in one another.
    Nests,
    /// It tells sizes whose sum no number holds, and sends all of that.
    Sizes,
    /// It has an index, references and rules of any size.
    Fat,
}

const ALL: [Foul; 8] = [
    Foul::Silent,
    Foul::Crawls,
    Foul::Drips,
    Foul::FloodsLong,
    Foul::FloodsShort,
    Foul::Nests,
    Foul::Sizes,
    Foul::Fat,
];

/// Answers one request.
fn play(foul: Foul, stream: &mut BufReader<UnixStream>) -> Result<()> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let request: Value = serde_json::from_str(&line).unwrap_or_default();
    let mut list = vec![0; request["list_bytes"].as_u64().unwrap_or(0) as usize];
    stream.read_exact(&mut list)?;
    let out = stream.get_mut();
    let Some(op) = request["op"].as_str().filter(|_| request["root"].is_string()) else {
        // Another service: a frame, a line, an answer of any kind.
        return match foul {
            Foul::Silent | Foul::Crawls | Foul::Drips => loop {
                thread::sleep(Duration::from_millis(20));
                out.write_all(b"[")?;
            },
            Foul::Sizes => out.write_all(&[0xff; 64]),
            _ => loop {
                out.write_all(&[b'['; 4096])?;
            },
        };
    };
    let asked: Vec<&[u8]> = list.split(|b| *b == 0).filter(|path| !path.is_empty()).collect();
    let is_tree = request["root"].as_str().is_some_and(|root| root.ends_with("/repo"));
    match op {
        "scan" if is_tree => scan(foul, out)?,
        "get" => {
            for path in asked {
                let is_fat =
                    foul == Foul::Fat || (foul == Foul::Sizes && !path.starts_with(b".git"));
                if is_fat {
                    write!(out, "f 644 {}\0", 480u64 << 20)?;
                    let piece =
                        [b"DIRC\0\0\0\x02\0\xff\xff\xff".as_slice(), &[b'x'; 8192]].concat();
                    loop {
                        out.write_all(&piece)?;
                    }
                }
                out.write_all(b"o 0 0\0")?;
            }
        }
        "stat" => {
            for path in asked {
                out.write_all(b"f 644 1 1 1 1 ")?;
                out.write_all(path)?;
                out.write_all(b"\0")?;
            }
        }
        "hash" => asked.iter().try_for_each(|_| out.write_all(b"-\0"))?,
        // Half a stream.
        "tar" => out.write_all(b"512\0halfend\0")?,
        _ => {}
    }
    out.write_all(b"end\0")
}

/// Tells what the tree of the workspace holds.
fn scan(foul: Foul, out: &mut UnixStream) -> Result<()> {
    let entry = |out: &mut dyn Write, path: &str| write!(out, "f 644 9 1 1 1 {path}\0");
    match foul {
        Foul::Silent => loop {
            thread::sleep(Duration::from_secs(1));
        },
        Foul::Crawls => {
            for number in 0.. {
                thread::sleep(Duration::from_millis(300));
                entry(out, &number.to_string())?;
            }
        }
        Foul::Drips => {
            for byte in "f 644 9 1 1 1 name-of-a-file\0".bytes().cycle() {
                thread::sleep(Duration::from_millis(20));
                out.write_all(&[byte])?;
            }
        }
        Foul::FloodsLong => {
            let dir = format!("{}/", "n".repeat(250)).repeat(15);
            for number in 0u64.. {
                write!(out, "l 777 9 1 1 1 {dir}{number}\0{}\0", "t".repeat(4096))?;
            }
        }
        Foul::FloodsShort => {
            let mut all = Vec::new();
            for number in 0u64.. {
                entry(&mut all, &format!("{number:x}"))?;
                if all.len() > 60_000 {
                    out.write_all(&all)?;
                    all.clear();
                }
            }
        }
        Foul::Nests => {
            let mut path = "d".to_owned();
            while path.len() < 4000 {
                write!(out, "d 755 9 1 1 1 {path}\0")?;
                path.push_str("/d");
            }
        }
        Foul::Sizes => {
            for name in ["a", "b", "c"] {
                write!(out, "f 644 {} 1 1 1 {name}\0", u64::MAX)?;
            }
        }
        Foul::Fat => entry(out, "a")?,
    }
    Ok(())
}

/// A VM whose workspace was prepared by an honest agent, which a foul one then takes the place of.
fn vm(sandbox: &Sandbox, name: &str, foul: Foul) -> Running {
    let mut running = sandbox.plant_running(name, &json!({}));
    let bridge = |listener, device| drop(bridge::run(listener, bridge::Device::Port(device)));
    running.start_agent(sandbox, &json!({}), bridge);
    let repository = sandbox.dir().join("host");
    let guest = sandbox.dir().join(name).join("repo");
    let words = ["--guest-path", guest.to_str().unwrap(), name, repository.to_str().unwrap()];
    sandbox.run(program("banger-workspace-prepare"), &words).ok();
    running.agent().kill().unwrap();
    fs::remove_file(sandbox.vm(name).join("run/channel.sock")).unwrap();
    running.answer(move |stream| drop(play(foul, stream)));
    running
}

fn made() -> Sandbox {
    let sandbox = Sandbox::new();
    let make = "git init -q $0; cd $0; echo a >a; echo b >b; git add -A; \
                git -c user.name=A -c user.email=a@b commit -qm one";
    let repository = sandbox.dir().join("host");
    sandbox.raw("/bin/sh", &["-ec", make, repository.to_str().unwrap()]).ok();
    sandbox
}

/// Runs a program, which has to end in time.
fn timed(sandbox: &Sandbox, name: &str, words: &[&str], seconds: u64) -> Answer {
    let begin = Instant::now();
    let path = if name == "banger-vm-stop" { STOP.into() } else { program(name) };
    let answer = sandbox.raw(path, words);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(seconds), "{name} {words:?}: {took:?}\n{}", answer.all());
    answer
}

fn litter(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| [".tmp-", ".old-", MARK].iter().any(|mark| name.starts_with(mark)))
        .collect()
}

fn name_of(foul: Foul) -> String {
    format!("{foul:?}").to_lowercase()
}

fn tried(sandbox: &Sandbox, foul: Foul, running: Running) {
    let name = &name_of(foul);
    let workspaces = fs::read_dir(sandbox.vm(name).join("workspaces")).unwrap();
    let workspace = workspaces.map(|entry| entry.unwrap().path()).next().unwrap();
    // It is memory, not time, that a flood comes to an end at.
    let is_flood = matches!(foul, Foul::FloodsLong | Foul::FloodsShort | Foul::Fat);
    let time = if is_flood { "30" } else { "2" };
    for (command, words) in [
        ("banger-workspace-status", &["--timeout", time, name][..]),
        ("banger-workspace-status", &["--check", "--timeout", time, name]),
        ("banger-workspace-export", &["--timeout", time, name]),
    ] {
        let answer = timed(sandbox, command, words, 28);
        assert!(!is_flood || answer.stderr.contains("of memory"), "{foul:?}: {}", answer.all());
        // What it says of sizes counts only where the content is asked for.
        let is_told = foul == Foul::Sizes && words[0] == "--timeout" && command.ends_with("status");
        assert_eq!(answer.status == 0, is_told, "{foul:?} {command}: {}", answer.all());
        assert_eq!(litter(&workspace), [""; 0], "{foul:?} {command}");
    }
    thread::scope(|scope| {
        scope.spawn(|| timed(sandbox, "banger-vm-ports", &[name], 30));
        if !matches!(foul, Foul::Silent | Foul::Crawls | Foul::Drips) {
            // A command may say nothing for days.
            scope.spawn(|| timed(sandbox, "banger-vm-exec", &[name, "true"], 30));
            let (to, from) = (sandbox.dir().join(format!("{name}-copy")), format!("{name}:/x"));
            let words = [from.as_str(), to.to_str().unwrap()];
            let answer = timed(sandbox, "banger-vm-cp", &words, 30);
            assert!(answer.status != 0 && !to.exists(), "{foul:?}: {}", answer.all());
        }
    });
    thread::scope(|scope| {
        let begin = Instant::now();
        let stop = scope.spawn(|| timed(sandbox, "banger-vm-stop", &["--timeout", "2", name], 30));
        let wanted = sandbox.vm(name).join("wanted.json");
        while !fs::read_to_string(&wanted).is_ok_and(|text| text.contains("stopped")) {
            assert!(begin.elapsed() < Duration::from_secs(5), "{foul:?}: it was not asked to stop");
            thread::sleep(Duration::from_millis(20));
        }
        drop(running);
        let answer = stop.join().unwrap();
        assert!(!answer.stderr.contains("work"), "nobody is asked: {}", answer.all());
    });
    let answer = timed(sandbox, "banger-vm-delete", &[name], 15);
    assert!(answer.status == 4 && answer.stderr.contains("not known"), "{}", answer.all());
    if foul == Foul::Silent {
        // Left for a prune.
        return;
    }
    timed(sandbox, "banger-vm-delete", &["--lose-work", name], 15).ok();
    assert!(!sandbox.vm(name).exists());
}

#[test]
fn whatever_is_asked_of_a_hostile_guest_ends() {
    let sandbox = &made();
    // One that runs is looked at before it is ended, and stays where that comes to nothing.
    let kept = &vm(sandbox, "kept", Foul::Crawls);
    let carried = carried::Vms::new(sandbox);
    let fouls = ALL.map(|foul| (foul, vm(sandbox, &name_of(foul), foul)));
    thread::scope(|scope| {
        scope.spawn(|| {
            let answer = timed(sandbox, "banger-vm-delete", &["--force", "kept"], 40);
            assert!(answer.status == 4 && answer.stderr.contains("not known"), "{}", answer.all());
        });
        scope.spawn(|| carried.try_all(sandbox));
        for (foul, running) in fouls {
            scope.spawn(move || tried(sandbox, foul, running));
        }
    });
    assert!(timed(sandbox, "banger-vm-prune", &["--force"], 15).status != 0);
    assert!(sandbox.vm("silent").exists(), "nobody knows what it holds");
    timed(sandbox, "banger-vm-prune", &["--force", "--lose-work"], 15).ok();
    assert!(!sandbox.vm("silent").exists());
    assert!(sandbox.vm("kept").exists(), "{kept:?}");
    assert_eq!(litter(&sandbox.state().join("vms")), [""; 0]);
    // git's own memory is in it, too.
    let most = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    assert!(most < MEMORY, "a program took {most} KiB");
}
