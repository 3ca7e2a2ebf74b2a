//! A run, from the start of the VMM to its end: one loop over all that can happen. What follows from what
//! is [`Life`]'s to say; here it is heard and done.

use crate::{
    clock::{self, HostClock},
    end::{End, Stage, clear_run},
    halt,
    life::{Act, Heard, Life, REAP_LIMIT},
    log::{CONSOLE_LIMIT, CappedLog},
    names::Share,
    network::weaker_network,
    ports::{self, HostSide},
    prepare::{Prepared, prepare},
    stub::{Stub, VmmEnd},
};
use banger_channel::{bridge, control};
use banger_disks::Disks;
use banger_doc::{
    Booted, Context, Desire, Error, HostPorts, IN_GUEST, Phase, Process, Refused, Result, Running,
    Wanted,
};
use banger_machine::{Accelerator, Event, Machine};
use banger_state::{
    State, VmFolder, Watch, clock_ms, place, process_of, replace_fleeting, write_fleeting,
};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{Pid, pipe2},
};
use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::DirBuilderExt, net::UnixListener},
    },
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a VMM whose socket is closed may take to end.
const END_LIMIT: Duration = Duration::from_millis(500);
/// How long a guest whose agent never answered may take to react to its power button.
const BUTTON_LIMIT: Duration = Duration::from_secs(5);
/// The longest measurement of a VMM that is kept; Firecracker's have some 5000 bytes.
const METRICS_LIMIT: usize = 64 << 10;
/// How long an agent that answers may take to say who the guest's user is: it waits five minutes for the boot to make
/// its root.
const LOGIN_LIMIT: Duration = Duration::from_secs(310);
/// Stack of a helper thread; none goes deep.
const STACK: usize = 512 << 10;
/// What helper threads say: the agent answers; the agent cannot be told to shut down; it cannot be
/// told the time.
const READY: u8 = b'R';
const DEAF: u8 = b'D';
const CLOCK: u8 = b'C';
/// Something else listens in the guest.
const PORTS: u8 = b'P';
/// The agent said how far the image's init is.
const BOOT: u8 = b'B';
/// The guest, which says that it has halted, is silent; it answers.
const HALTED: u8 = b'H';
const ALIVE: u8 = b'A';
/// How long the agent is waited for beyond the time it may wait itself.
const BOOT_ANSWER: Duration = Duration::from_secs(15);
/// How long it waits for the end of the boot before it says what that waits for: at first, and later.
const FIRST_WORD: Duration = Duration::from_secs(2);
const LATER_WORD: Duration = Duration::from_secs(20);

/// What a run begins with.
pub(crate) struct Start<'a> {
    pub(crate) state: &'a State,
    pub(crate) folder: &'a VmFolder,
    pub(crate) begun: Instant,
    pub(crate) begun_unix_ms: u64,
}

/// Runs the VM to its end. Whatever goes wrong is part of the end.
pub(crate) fn run(start: &Start<'_>, log: &mut CappedLog) -> End {
    let mut end = End::default();
    if let Err(error) = try_run(start, log, &mut end) {
        end.failure = Some(error);
    }
    end
}

fn try_run(start: &Start<'_>, log: &mut CappedLog, end: &mut End) -> Result<()> {
    let signals = block_signals()?;
    let watch = Watch::new(start.folder)?;
    let mut running = Running {
        phase: Phase::Preparing,
        supervisor: this_process()?,
        stub: None,
        vmm_process: None,
        vmm: banger_doc::Vmm::Qemu,
        accelerator: Accelerator::Tcg.to_string(),
        started_unix_ms: start.begun_unix_ms,
        launched_ms: None,
        agent_ms: None,
        booted_ms: None,
        booted: Booted::No,
        waits_for: Vec::new(),
        addresses: Vec::new(),
        forwards: Vec::new(),
        ports: HostPorts::default(),
        notes: Vec::new(),
        refused: None,
    };
    write_fleeting(&start.folder.join(place::VM_RUNNING), &running)?;
    let console = CappedLog::fresh(place::VM_CONSOLE, CONSOLE_LIMIT)?;
    let console = end.console.insert(console);
    let until = start.begun + limit(start.folder);
    let disks = end.disks.insert(Disks::take(Path::new("."))?);
    // A run that has ended left these only if it was killed.
    clear_run()?;
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(place::VM_RUN)
        .context("cannot make 'run'")?;

    let Prepared { mut machine, network, carrier, addresses, notes, ports, user } =
        prepare(start.state, start.folder, until)?;
    // Before anything runs: a port that cannot be had ends the start.
    let mut ports = HostSide::bind(start.folder.name(), ports)?;
    running.vmm = machine.vmm();
    end.kind = Some(machine.vmm());
    running.accelerator = machine.accelerator().to_string();
    running.addresses = addresses;
    running.notes = notes;
    if machine.accelerator() == Accelerator::Tcg {
        running
            .notes
            .push("no KVM: emulated in software, much slower ('banger doctor' tells why)".into());
    }
    let output = banger_machine::output()?;
    let output_end = File::options()
        .write(true)
        .open(banger_machine::OUTPUT)
        .context("cannot open the VMM's output")?;
    let launch = machine.launch()?;
    let prepared = start.begun.elapsed();
    let mut stub = Stub::start(
        &launch,
        (network.as_ref(), carrier.as_ref()),
        &output_end.into(),
        &disks.share()?,
        until,
    )?;
    drop(launch);
    machine.started()?;
    running.stub = process_of(stub.pid.as_raw() as u32);
    running.vmm_process = process_of(stub.vmm.as_raw() as u32);
    running.notes.append(&mut stub.weaker);

    if let (Some(why), Some(wish)) = (&stub.no_network, &network) {
        running.notes.push(weaker_network(&wish.plan, why));
    }

    ports.begin()?;
    running.forwards = ports.forwards();
    running.ports = ports.wanted().clone();
    let over = Arc::new(AtomicBool::new(false));
    let (news, news_end) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    serve_channel(machine.channel())?;
    let mut live = Live {
        start,
        log,
        console,
        machine,
        stub,
        running,
        output: Some(output.into()),
        measured: Vec::new(),
        control_open: true,
        news_end,
        over,
        ports,
        heard: Arc::default(),
        boot: Arc::default(),
        host_notes: 0,
        follows: false,
        turn: Arc::default(),
        name: None,
        user,
        life: Life::new(),
    };
    live.write_down()?;
    live.be_named();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    live.log.say(&format!(
        "prepared after {:.1} ms, the VMM began after {:.1} ms",
        ms(prepared),
        ms(start.begun.elapsed())
    ));
    let vmm_end = live.watch_over(&signals, &watch, &news);
    live.over.store(true, Ordering::Relaxed);
    end.booted = live.running.booted.is_over();
    (end.stage, end.why, end.halted) = live.life.end();
    end.vmm = Some(vmm_end?);
    Ok(())
}

/// How long the start may take: as usual, or longer if whoever asked for it waits longer. One who
/// waits shorter finds a guest that comes up all the same.
fn limit(folder: &VmFolder) -> Duration {
    let emulated = !banger_machine::kvm().works();
    let usual = Wanted::new(Desire::Running).limit(emulated);
    let wanted = folder.wanted().ok().flatten();
    wanted.map_or(usual, |wanted| wanted.limit(emulated).max(usual))
}

struct Live<'a> {
    start: &'a Start<'a>,
    log: &'a mut CappedLog,
    console: &'a mut CappedLog,
    machine: Box<dyn Machine>,
    stub: Stub,
    running: Running,
    output: Option<OwnedFd>,
    /// The VMM's measurements that are not whole yet.
    measured: Vec<u8>,
    control_open: bool,
    news_end: OwnedFd,
    over: Arc<AtomicBool>,
    ports: HostSide,
    /// What listens in the guest, as it was last heard and not yet followed.
    heard: Arc<Mutex<Option<Vec<control::Port>>>>,
    /// How far the image's init is, as was last heard and not yet told.
    boot: Arc<Mutex<Option<control::Boot>>>,
    /// How many of the notes are the host's own.
    host_notes: usize,
    /// Whether somebody listens to that.
    follows: bool,
    /// Which of those that ever did still is to.
    turn: Arc<AtomicUsize>,
    /// The share in `banger-dns`, while the VM's name leads somewhere.
    name: Option<Share>,
    /// The guest's user, as the image or who made the VM names it.
    user: Option<String>,
    life: Life,
}

impl Live<'_> {
    /// The loop. Ends when the VMM has.
    fn watch_over(&mut self, signals: &SignalFd, watch: &Watch, news: &OwnedFd) -> Result<VmmEnd> {
        let mut host_clock =
            HostClock::watch().inspect_err(|error| self.log.say(&error.chain())).ok();
        // What was asked before anybody listened.
        self.obey();
        loop {
            let timeout = self.life.deadline().map_or(PollTimeout::NONE, |until| {
                let left = until.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
            });
            let [ended, asked, told, signalled, console, output, control, metrics, jumped] = {
                let ask = |fd| PollFd::new(fd, PollFlags::POLLIN);
                let mut fds = [
                    ask(self.stub.fd()),
                    ask(watch.fd()),
                    ask(news.as_fd()),
                    ask(signals.as_fd()),
                    ask(self.machine.console()),
                    ask(self.output.as_ref().map_or(self.stub.fd(), AsFd::as_fd)),
                    ask(if self.control_open { self.machine.control() } else { self.stub.fd() }),
                    ask(self.machine.metrics().unwrap_or(self.stub.fd())),
                    ask(host_clock.as_ref().map_or(self.stub.fd(), HostClock::fd)),
                ];
                match poll(&mut fds, timeout) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno).context("cannot wait for the VMM"),
                }
                fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()))
            };
            if console {
                self.copy_console();
            }
            if output {
                self.copy_output();
            }
            if control && self.control_open {
                self.hear_machine()?;
            }
            if metrics {
                self.keep_metrics();
            }
            if ended {
                let end = self.stub.end(REAP_LIMIT);
                self.hear(Heard::Ended);
                self.copy_console();
                self.copy_output();
                if self.control_open {
                    self.hear_machine()?;
                }
                return Ok(end);
            }
            if told {
                self.hear_helper(news);
            }
            if let (true, Some(host)) = (jumped, &mut host_clock) {
                match host.heard() {
                    Ok(words) => self.hear(Heard::ClockJumped(words)),
                    Err(error) => {
                        self.log.say(&error.chain());
                        host_clock = None;
                    }
                }
            }
            if asked {
                watch.clear();
                self.obey();
            }
            if signalled && matches!(signals.read_signal(), Ok(Some(_))) {
                self.hear(Heard::Signal);
            }
            self.hear(Heard::Time);
            if self.life.is_stuck(Instant::now()) {
                return Err(Error::failed("the VMM was killed but does not end"));
            }
        }
    }

    /// Hears what happened, and does what follows.
    fn hear(&mut self, heard: Heard) {
        let acts = self.life.hear(heard, Instant::now());
        self.act(acts);
    }

    fn act(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Tell => self.say_how(),
                Act::Log(words) => self.log.say(&words),
                Act::Obey => self.obey(),
                Act::Pause => {
                    let asked = self.machine.pause();
                    self.answer(Desire::Paused, asked);
                }
                Act::Resume { asked } => match self.machine.resume() {
                    done if asked => self.answer(Desire::Running, done),
                    Err(error) => {
                        self.log.say(&format!("cannot resume the machine: {}", error.chain()));
                    }
                    Ok(()) => {}
                },
                Act::PressPower => {
                    let limit = self.press_power();
                    self.hear(Heard::Button(limit));
                }
                Act::ShutDown(grace) => self.shut_down(grace),
                Act::Kill => self.stub.kill(),
                Act::AwaitAgent => self.await_agent(),
                Act::AwaitBoot => self.await_boot(),
                Act::AskHalted => self.help("halted", |over| {
                    let is_silent = halt::is_silent(Path::new(place::VM_CHANNEL), over);
                    Some(if is_silent { HALTED } else { ALIVE })
                }),
                Act::SetClock => {
                    self.help("clock", |over| clock::set_guest(over).is_err().then_some(CLOCK));
                }
                Act::Follow => self.follow_guest(),
            }
        }
    }

    /// Does what `wanted.json` asks.
    fn obey(&mut self) {
        let wanted = match self.start.folder.wanted() {
            Ok(Some(wanted)) => wanted,
            Ok(None) => return,
            Err(error) => return self.log.say(&format!("cannot read what is wanted: {error}")),
        };
        self.lead(wanted.ports);
        self.hear(Heard::Wanted(wanted.desire, Duration::from_millis(wanted.grace_ms)));
    }

    /// Tells whoever asked for something that it is not done, if so.
    fn answer(&mut self, desire: Desire, done: Result<()>) {
        let Err(error) = done else { return };
        self.log.say(&format!("refused: {}", error.chain()));
        self.running.refused = Some(Refused::new(desire, &error, clock_ms()));
        self.say_how();
    }

    /// Makes the ports of the host that are wanted, closes those that are not.
    fn lead(&mut self, wanted: Option<HostPorts>) {
        let wanted = match wanted.map_or_else(|| self.start.folder.spec().map(|s| s.ports), Ok) {
            Ok(wanted) if wanted == *self.ports.wanted() => return,
            Ok(wanted) => wanted,
            Err(error) => return self.log.say(&format!("cannot read the spec: {error}")),
        };
        self.ports.change(wanted);
        if let Err(error) = self.ports.begin() {
            self.log.say(&format!("cannot serve ports: {}", error.chain()));
        }
        self.be_named();
        self.follow_guest();
        self.say_ports();
    }

    fn say_ports(&mut self) {
        self.running.ports = self.ports.wanted().clone();
        self.running.forwards = self.ports.forwards();
        self.say_how();
    }

    /// Has the VM's name lead to its loopback address, if it has one.
    fn be_named(&mut self) {
        if self.ports.wanted().loopback.is_none() {
            self.name = None;
        } else if self.name.is_none() {
            match Share::take(self.start.state) {
                Ok(share) => self.name = Some(share),
                Err(error) => self.log.say(&format!("no name: {}", error.chain())),
            }
        }
    }

    /// Begins to hear what listens in the guest, if that is wanted and its agent is there.
    fn follow_guest(&mut self) {
        let wanted = self.ports.wanted().auto && self.life.stage() == Stage::Ready;
        if wanted == self.follows {
            return;
        }
        self.follows = wanted;
        // Whoever listened for an earlier wish has heard enough.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) + 1;
        if !wanted {
            return;
        }
        let (heard, now) = (Arc::clone(&self.heard), Arc::clone(&self.turn));
        let Ok(news) = self.news_end.try_clone() else { return };
        self.help("ports", move |over| {
            let hear = |ports| {
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(ports);
                let _ = nix::unistd::write(&news, &[PORTS]);
            };
            let enough = || over.load(Ordering::Relaxed) || now.load(Ordering::Relaxed) != turn;
            ports::watch(hear, enough);
            None
        });
    }

    /// Has the agent shut the guest down.
    fn shut_down(&mut self, grace: Duration) {
        // What the agent has left is for bringing the disks to rest.
        let agent_grace = grace * 4 / 5;
        self.help("shutdown", move |_| {
            let limit = grace.clamp(Duration::from_secs(1), Duration::from_secs(30));
            let asked = control::shutdown(Path::new(place::VM_CHANNEL), agent_grace, limit);
            asked.is_err().then_some(DEAF)
        });
    }

    /// Hears what the machine tells. An error is why its guest cannot run.
    fn hear_machine(&mut self) -> Result<()> {
        let events = match self.machine.events() {
            Ok(Some(events)) => events,
            Ok(None) => {
                self.control_open = false;
                return Ok(());
            }
            Err(error) => {
                self.control_open = false;
                let fails = self.life.stage() == Stage::Preparing && !self.life.is_stopping();
                if fails && !self.ends_soon() {
                    return Err(error);
                }
                self.log.say(&error.chain());
                return Ok(());
            }
        };
        for event in events {
            match event {
                Event::Refused(desire, words) => self.answer(desire, Err(Error::failed(words))),
                Event::Note(words) => self.log.say(&words),
                event => {
                    if event == Event::Launched && self.running.launched_ms.is_none() {
                        let took = self.took();
                        self.running.launched_ms = Some(took);
                        self.log.say(&format!("the guest runs after {took} ms"));
                    }
                    self.hear(Heard::Machine(event));
                }
            }
        }
        Ok(())
    }

    /// Says whether the VMM is ending: its socket closes first, and how it ends says more than that.
    fn ends_soon(&self) -> bool {
        let mut fds = [PollFd::new(self.stub.fd(), PollFlags::POLLIN)];
        poll(&mut fds, END_LIMIT.as_millis() as u16).is_ok_and(|count| count > 0)
    }

    fn await_agent(&mut self) {
        let name = self.start.folder.name().clone();
        let Ok(news) = self.news_end.try_clone() else { return };
        // Whoever waits for the guest may log in next, and where nothing is noted, ssh takes root.
        let is_noted = banger_ssh::is_noted(Path::new("."), self.user.as_deref());
        self.help("ready", move |over| {
            let gone = || over.load(Ordering::Relaxed);
            let channel = Path::new(place::VM_CHANNEL);
            control::wait_ready(channel, gone).ok()?;
            if is_noted {
                let _ = nix::unistd::write(&news, &[READY]);
            }
            let account = control::account(channel, None, LOGIN_LIMIT);
            let _ = banger_ssh::note_login(Path::new("."), &name, account);
            (!is_noted).then_some(READY)
        });
    }

    fn hear_helper(&mut self, news: &OwnedFd) {
        let mut tags = [0; 8];
        let n = nix::unistd::read(news, &mut tags).unwrap_or(0);
        for tag in &tags[..n] {
            match *tag {
                READY => {
                    let took = self.took();
                    self.log.say(&format!("the agent answers after {took} ms"));
                    self.running.agent_ms = Some(took);
                    self.host_notes = self.running.notes.len();
                    self.hear(Heard::Agent);
                }
                CLOCK => self.log.say("cannot set the guest's clock: its agent does not answer"),
                PORTS => {
                    let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some(heard) = heard {
                        self.ports.follow(heard);
                        self.say_ports();
                    }
                }
                BOOT => {
                    let boot = self.boot.lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some(boot) = boot {
                        self.hear_boot(boot);
                    }
                }
                DEAF => self.hear(Heard::Deaf),
                HALTED => self.hear(Heard::Silent),
                ALIVE => self.hear(Heard::Alive),
                _ => {}
            }
        }
    }

    /// Waits for the image's init, and hears meanwhile what it is at.
    fn await_boot(&mut self) {
        let heard = Arc::clone(&self.boot);
        let Ok(news) = self.news_end.try_clone() else { return };
        self.help("boot", move |over| {
            let channel = Path::new(place::VM_CHANNEL);
            let mut wait = FIRST_WORD;
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                // A guest that is paused answers later.
                if let Ok(boot) = control::boot(channel, wait, BOOT_ANSWER) {
                    let is_over = boot.booted.is_over();
                    *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(boot);
                    let _ = nix::unistd::write(&news, &[BOOT]);
                    if is_over {
                        break;
                    }
                }
                // Whatever answers sooner than it was told to is not asked more often for it.
                thread::sleep(wait.saturating_sub(begun.elapsed()).min(FIRST_WORD));
                wait = (wait * 2).min(LATER_WORD);
            }
            None
        });
    }

    fn hear_boot(&mut self, boot: control::Boot) {
        self.running.notes.truncate(self.host_notes);
        self.running.notes.extend(boot.notes.iter().map(|note| format!("{IN_GUEST}{note}")));
        self.running.waits_for = boot.waits_for;
        self.running.booted = boot.booted;
        if boot.booted.is_over() {
            let took = self.took();
            self.running.booted_ms = Some(took);
            self.log.say(&format!("booted after {took} ms: {}", boot.booted.word()));
        }
        self.say_how();
    }

    /// Runs something that waits for the guest in a thread of its own.
    fn help(&mut self, name: &str, work: impl FnOnce(&AtomicBool) -> Option<u8> + Send + 'static) {
        let over = Arc::clone(&self.over);
        let started = self.news_end.try_clone().and_then(|news| {
            thread::Builder::new().name(name.into()).stack_size(STACK).spawn(move || {
                if let Some(tag) = work(&over) {
                    let _ = nix::unistd::write(&news, &[tag]);
                }
            })
        });
        if let Err(error) = started {
            self.log.say(&format!("cannot start a thread: {error}"));
        }
    }

    /// Presses the power button; returns how long the guest may take to react to it.
    fn press_power(&mut self) -> Duration {
        match self.machine.press_power() {
            Ok(true) => BUTTON_LIMIT,
            Ok(false) => Duration::ZERO,
            Err(error) => {
                self.log.say(&format!("cannot press the power button: {}", error.chain()));
                Duration::ZERO
            }
        }
    }

    /// Writes down how the VM stands.
    fn write_down(&mut self) -> Result<()> {
        self.running.phase = self.life.phase();
        write_fleeting(&self.start.folder.join(place::VM_RUNNING), &self.running)
    }

    fn say_how(&mut self) {
        if let Err(error) = self.write_down() {
            self.log.say(&error.chain());
        }
    }

    /// Returns how long this run has taken, in milliseconds.
    fn took(&self) -> u64 {
        self.start.begun.elapsed().as_millis() as u64
    }

    fn copy_console(&mut self) {
        let mut buffer = [0; 4096];
        // Bounded, so that a guest that floods its console cannot keep the loop from the rest.
        for _ in 0..64 {
            match nix::unistd::read(self.machine.console(), &mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    self.console.write(&buffer[..n]);
                    let acts = self.life.hear_console(&buffer[..n]);
                    self.act(acts);
                }
            }
        }
    }

    /// Keeps the VMM's last whole measurement in `run/metrics.json`.
    fn keep_metrics(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..16 {
            let Some(metrics) = self.machine.metrics() else { break };
            match nix::unistd::read(metrics, &mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(n) => self.measured.extend_from_slice(&buffer[..n]),
            }
        }
        let Some(end) = self.measured.iter().rposition(|byte| *byte == b'\n') else {
            // Longer than any real one: not what it should be.
            if self.measured.len() > METRICS_LIMIT {
                self.measured.clear();
            }
            return;
        };
        let rest = self.measured.split_off(end + 1);
        let whole = std::mem::replace(&mut self.measured, rest);
        let last = whole[..end].rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        // Whoever can write to the pipe is not trusted to write JSON.
        if serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(last).is_ok()
            && let Err(error) = replace_fleeting(&self.start.folder.join(place::VM_METRICS), last)
        {
            self.log.say(&error.chain());
        }
    }

    fn copy_output(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..16 {
            let Some(output) = &self.output else { return };
            match nix::unistd::read(output, &mut buffer) {
                Ok(0) => self.output = None,
                Err(_) => return,
                Ok(n) => self.log.write(&buffer[..n]),
            }
        }
    }
}

/// Serves the channel socket over the machine's device for it.
fn serve_channel(device: bridge::Device) -> Result<()> {
    let listener =
        UnixListener::bind(place::VM_CHANNEL).context("cannot make the channel's socket")?;
    thread::Builder::new()
        .name("channel".into())
        .stack_size(STACK)
        .spawn(move || bridge::run(listener, device))
        .context("cannot start a thread")?;
    Ok(())
}

fn this_process() -> Result<Process> {
    process_of(Pid::this().as_raw() as u32)
        .ok_or_else(|| Error::failed("cannot read '/proc': is it mounted?"))
}

/// Turns the signals that ask a program to end into something to wait for.
fn block_signals() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block().context("cannot block signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("cannot wait for signals")
}
