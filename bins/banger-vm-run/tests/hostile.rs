//! `vm run --rm` as a whole on a real machine, whose guest's agent is a false one.
#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_channel::bridge;
use banger_tests::{Sandbox, Then, have, program, pvh_kernel};
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        signal::{Signal, killpg},
    },
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Result, Write, copy},
    net::Shutdown,
    os::unix::{
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

const RUN: &str = env!("CARGO_BIN_EXE_banger-vm-run");
/// The most memory that any program may take, in KiB.
const MEMORY: u64 = 256 << 10;
/// How long a machine may take to come so far.
const SOON: Duration = Duration::from_secs(40);

/// What an agent does once a command is to run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Foul {
    /// It never answers at all.
    Mute,
    /// It says nothing of the command.
    Silent,
    /// The command says a letter now and then.
    Crawls,
    /// The command's words come byte by byte.
    Drips,
    /// The command talks without an end, and what listens changes without an end.
    Floods,
    /// It is an honest one until the command has run; then it tells nothing of its files.
    Turns,
}

/// An agent in the place of a guest's.
struct Agent {
    foul: Foul,
    /// Told when somebody waits for it in vain.
    news: Sender<()>,
    /// Where an honest one answers, if it has one.
    honest: Option<PathBuf>,
    has_run: AtomicBool,
}

impl Agent {
    /// Takes the place of the channel to the guest as soon as there is one.
    fn take_over(self, socket: PathBuf) {
        let agent = Arc::new(self);
        thread::spawn(move || {
            let end = Instant::now() + Duration::from_mins(2);
            while !socket.exists() {
                assert!(Instant::now() < end, "there is no channel to take the place of");
                thread::sleep(Duration::from_millis(2));
            }
            fs::remove_file(&socket).unwrap();
            let listener = UnixListener::bind(&socket).unwrap();
            for stream in listener.incoming().map_while(Result::ok) {
                let agent = Arc::clone(&agent);
                thread::spawn(move || drop(agent.answer(BufReader::new(stream))));
            }
        });
    }

    /// Somebody waits in vain.
    fn is_silent(&self) {
        let _ = self.news.send(());
        thread::sleep(Duration::from_mins(5));
    }

    fn answer(&self, mut stream: BufReader<UnixStream>) -> Result<()> {
        let mut connect = String::new();
        stream.read_line(&mut connect)?;
        if self.foul == Foul::Mute {
            self.is_silent();
        }
        stream.get_mut().write_all(b"OK 1\n")?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let request: Value = serde_json::from_str(&line)?;
        if request["argv"].is_array() {
            return self.run(stream);
        }
        let said = match request["op"].as_str().unwrap_or_default() {
            _ if request["root"].is_string() => {
                if self.has_run.load(Ordering::Relaxed) {
                    self.is_silent();
                }
                return self.pass_on(&connect, &line, stream);
            }
            "hello" => {
                json!({ "protocol": 1, "agent_version": "0", "boot_id": "x", "init": "other",
                "uptime_ms": 1 })
            }
            "boot" => json!({ "booted": "yes" }),
            "account" => json!({ "uid": 0, "gid": 0, "home": "/root", "place": "/root" }),
            "watch-ports" if self.foul == Foul::Floods => loop {
                stream.get_mut().write_all(&[b'['; 4096])?;
            },
            // A machine that was told to end does not.
            _ => json!({}),
        };
        writeln!(stream.get_mut(), "{said}")
    }

    /// Pretends to run a command.
    fn run(&self, mut stream: BufReader<UnixStream>) -> Result<()> {
        let frame = [&[16, 0, 0, 0xff, 0][..], &vec![b'x'; 0xff00]].concat();
        let out = stream.get_mut();
        let _ = self.news.send(());
        match self.foul {
            Foul::Mute | Foul::Silent => self.is_silent(),
            Foul::Crawls => loop {
                out.write_all(&[16, 0, 0, 0, 1, b'x'])?;
                thread::sleep(Duration::from_millis(300));
            },
            Foul::Drips => {
                for byte in frame.iter().cycle() {
                    out.write_all(&[*byte])?;
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Foul::Floods => loop {
                out.write_all(&frame)?;
            },
            Foul::Turns => {
                self.has_run.store(true, Ordering::Relaxed);
                out.write_all(&[19, 0, 0, 0, 2, 7, 0])?;
            }
        }
        Ok(())
    }

    /// Has the honest one answer.
    fn pass_on(&self, connect: &str, line: &str, mut stream: BufReader<UnixStream>) -> Result<()> {
        let Some(honest) = &self.honest else { return Ok(()) };
        let mut there = BufReader::new(UnixStream::connect(honest)?);
        there.get_mut().write_all(connect.as_bytes())?;
        there.read_line(&mut String::new())?;
        there.get_mut().write_all(line.as_bytes())?;
        let (mut back, mut to) = (stream.get_ref().try_clone()?, there.get_ref().try_clone()?);
        thread::spawn(move || {
            let _ = copy(&mut there, &mut back);
            let _ = back.shutdown(Shutdown::Both);
        });
        copy(&mut stream, &mut to)?;
        to.shutdown(Shutdown::Write)
    }
}

/// Starts the real agent, with this machine in place of a guest; returns it, and where it answers.
fn honest(sandbox: &Sandbox) -> (Child, PathBuf) {
    let dir = sandbox.dir();
    let (guest, device) = (dir.join("guest.json"), dir.join("port.sock"));
    let document = json!({
        "schema": "banger.guest/1", "hostname": "web", "machine_id": "0", "clock_unix_ms": 0,
        "disks": { "base": "a", "overlay": "b", "work": "c" }, "channel": "virtio-serial", "config": {},
    });
    fs::write(&guest, document.to_string()).unwrap();
    let port = UnixListener::bind(&device).unwrap();
    let mut agent = sandbox.command(program("banger-guest-agent"));
    let agent = agent.arg("--guest").arg(guest).arg("--device").arg(device).spawn().unwrap();
    let (device, _) = port.accept().unwrap();
    let place = dir.join("honest.sock");
    let listener = UnixListener::bind(&place).unwrap();
    thread::spawn(move || drop(bridge::run(listener, bridge::Device::Port(device))));
    (agent, place)
}

/// A `vm run --rm` on its way.
struct Begun<'a> {
    sandbox: &'a Sandbox,
    name: String,
    child: Child,
    news: Receiver<()>,
}

impl<'a> Begun<'a> {
    fn new(sandbox: &'a Sandbox, foul: Foul, words: &[&str], honest: Option<PathBuf>) -> Self {
        let name = format!("{foul:?}-{}", words.len()).to_lowercase();
        let (sender, news) = channel();
        let agent = Agent { foul, news: sender, honest, has_run: AtomicBool::new(false) };
        agent.take_over(sandbox.vm(&name).join("run/channel.sock"));
        let mut command = sandbox.command(RUN);
        command.args(["--rm", "--image", "empty", "--kernel", "generic-6.12", "--memory", "64M"]);
        command.args(["--net", "none", "--vmm", "qemu", "--name", &name]).args(words);
        command.args(["--", "true"]).process_group(0).stdout(Stdio::null());
        let said = File::create(sandbox.dir().join(format!("{name}.said"))).unwrap();
        let child = command.stderr(said).spawn().unwrap();
        Self { sandbox, name, child, news }
    }

    fn said(&self) -> String {
        let said = self.sandbox.dir().join(format!("{}.said", self.name));
        fs::read_to_string(said).unwrap_or_default()
    }

    /// Waits until somebody waits for the agent in vain.
    fn wait(&self) {
        let came = self.news.recv_timeout(SOON);
        assert!(came.is_ok(), "{}: it does not come so far: {}", self.name, self.said());
    }

    /// Returns the processes of the VM, each of which has taken little memory so far.
    fn processes(&self) -> Vec<u64> {
        let document = fs::read(self.sandbox.vm(&self.name).join("running.json")).unwrap();
        let running: Value = serde_json::from_slice(&document).unwrap();
        let all = ["supervisor", "stub", "vmm_process"].map(|role| running[role]["pid"].as_u64());
        for pid in all.iter().flatten() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.and_then(|words| words.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            assert!(peak.is_none_or(|peak| peak < MEMORY), "{}: {peak:?} KiB", self.name);
        }
        all.into_iter().flatten().collect()
    }

    /// Presses Ctrl-C so many times, as a terminal passes it on; returns the status. It has to end within so
    /// many seconds of the last.
    fn pressed(&mut self, times: u32, seconds: u64) -> Option<i32> {
        let group = Pid::from_raw(self.child.id() as i32);
        for _ in 0..times {
            thread::sleep(Duration::from_millis(700));
            let _ = killpg(group, Signal::SIGINT);
        }
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            if Instant::now() > end {
                let _ = killpg(group, Signal::SIGKILL);
                let _ = self.child.wait();
                panic!("{} goes on: {}", self.name, self.said());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Nothing of the VM is left.
    fn is_gone(&self, processes: &[u64]) {
        let vms = self.sandbox.state().join("vms");
        assert!(!vms.join(&self.name).exists(), "{}: {}", self.name, self.said());
        let left: Vec<_> = processes.iter().filter(|pid| is_alive(**pid)).collect();
        assert!(left.is_empty(), "{}: {left:?}", self.name);
    }
}

fn is_alive(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

fn litter(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(".tmp-") || name.starts_with(".old-")).collect()
}

#[test]
fn a_run_in_a_hostile_guest_ends_when_somebody_has_enough_of_it() {
    if !have("qemu-system-x86_64") {
        return;
    }
    let sandbox = &Sandbox::new();
    sandbox.plant_image("empty");
    sandbox.plant_kernel("generic-6.12");
    sandbox.plant_tiny("generic-6.12", &pvh_kernel(Then::Halts));
    let repository = sandbox.dir().join("host");
    let make = "git init -q $0; cd $0; echo a >a; git add -A; \
                git -c user.name=A -c user.email=a@b commit -qm one";
    sandbox.raw("/bin/sh", &["-ec", make, repository.to_str().unwrap()]).ok();
    let (mut agent, place) = honest(sandbox);
    thread::scope(|scope| {
        for (foul, times) in
            [(Foul::Silent, 1), (Foul::Crawls, 3), (Foul::Drips, 3), (Foul::Floods, 3)]
        {
            scope.spawn(move || {
                let mut run = Begun::new(sandbox, foul, &[], None);
                run.wait();
                let processes = run.processes();
                let status = run.pressed(times, 25);
                assert_eq!(status, Some(130), "{foul:?}: {}", run.said());
                run.is_gone(&processes);
            });
        }
        // Nobody answers: it is given up, with the VM.
        scope.spawn(|| {
            let mut run = Begun::new(sandbox, Foul::Mute, &[], None);
            run.wait();
            let processes = run.processes();
            assert_eq!(run.pressed(1, 10), Some(130), "{}", run.said());
            run.is_gone(&processes);
        });
        // Or it is waited for as long as was said, and kept to be looked at.
        scope.spawn(|| {
            let mut run = Begun::new(sandbox, Foul::Mute, &["--timeout", "3"], None);
            assert_eq!(run.pressed(0, 40), Some(125), "{}", run.said());
            assert!(run.said().contains("within 3 s; it is kept"), "{}", run.said());
            let processes = run.processes();
            sandbox.raw(program("banger-vm-delete"), &["--force", &run.name]).ok();
            run.is_gone(&processes);
        });
        // What it holds is not known: it is kept, also where nobody waits for that.
        scope.spawn(|| {
            let (host, guest) = (repository.to_str().unwrap(), sandbox.dir().join("guest"));
            let words = ["--guest-path", guest.to_str().unwrap(), host];
            let mut run = Begun::new(sandbox, Foul::Turns, &words, Some(place));
            run.wait();
            run.wait();
            let processes = run.processes();
            let status = run.pressed(1, 10);
            let said = run.said();
            assert_eq!(status, Some(7), "{said}");
            assert!(said.contains("is kept: its removal was interrupted"), "{said}");
            assert!(said.contains(&format!("'banger vm delete --force {}'", run.name)), "{said}");
            for workspace in fs::read_dir(sandbox.vm(&run.name).join("workspaces")).unwrap() {
                assert_eq!(litter(&workspace.unwrap().path()), [""; 0]);
            }
            let words = ["--force", "--lose-work", &run.name];
            sandbox.raw(program("banger-vm-delete"), &words).ok();
            run.is_gone(&processes);
        });
    });
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(litter(&sandbox.state().join("vms")), [""; 0]);
    let most = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    assert!((most as u64) < MEMORY, "a program took {most} KiB");
}
