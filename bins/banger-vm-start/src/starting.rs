//! Starting one VM and waiting for its guest.

use crate::told::Told;
use banger_cli::{Screen, find};
use banger_doc::{
    Context, Desire, Document, Error, Exit, IN_GUEST, Mark, Name, Phase, Report, Result, Running,
    View, Wanted, console_line,
};
use banger_lease::Leases;
use banger_stages::{Line, Stages};
use banger_state::{State, VmFolder, Watch, place, rewrite_document};
use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

/// How long a guest's init may take after the agent's answer, unless told.
const BOOT_LIMIT: Duration = Duration::from_mins(5);
/// How often a console that is shown is looked at.
const FOLLOW: Duration = Duration::from_millis(50);
/// Lines of the console in an error.
const CONSOLE_LINES: usize = 8;
/// And their longest, in columns.
const CONSOLE_COLUMNS: usize = 200;

/// How to start.
pub(crate) struct How<'a> {
    /// How long a guest may take, if that was said.
    pub(crate) limit: Option<Duration>,
    /// How far to wait.
    pub(crate) mark: Mark,
    /// Whether the whole boot is to be seen.
    pub(crate) console: bool,
    /// What was said of this host already.
    pub(crate) told: &'a Told,
}

impl How<'_> {
    /// What the supervisor is asked.
    fn wanted(&self) -> Wanted {
        let limit_ms = self.limit.map(|limit| limit.as_millis() as u64);
        Wanted { console: self.console, limit_ms, ..Wanted::new(Desire::Running) }
    }
}

pub(crate) fn start(
    state: &State,
    folder: &VmFolder,
    how: &How<'_>,
    stages: &Stages,
) -> Result<View> {
    let name = folder.name();
    if folder.is_live()? {
        return Err(already(name));
    }
    lease(state, folder)?;
    let watch = Watch::new(folder)?;
    folder.ask(&how.wanted())?;
    let line = stages.line(name);
    line.enter("preparing");
    let before = last_end(folder);
    let mut child = spawn(name)?;
    // Ends when the supervisor has the VM's lock, or has given up.
    let mut said = String::new();
    let mut stdout = child.stdout.take().expect("because it was piped");
    stdout
        .by_ref()
        .take(1 << 20)
        .read_to_string(&mut said)
        .with_context(|| format!("cannot hear the supervisor of '{name}'"))?;
    if let Some(report) = said.lines().find_map(|line| Report::from_slice(line.as_bytes()).ok()) {
        let _ = child.wait();
        return Err(report.into());
    }
    let view = wait(folder, &watch, &mut child, how, &line, before)?;
    line.done("ready");
    Ok(view)
}

/// Sees that the ports and the address in the spec are this VM's, also where their database was lost
/// or comes from elsewhere.
fn lease(state: &State, folder: &VmFolder) -> Result<()> {
    if folder.spec()?.ports.is_empty() {
        return Ok(());
    }
    let _turn = folder.edit_lock()?;
    let mut spec = folder.spec()?;
    let taken = Leases::open(state)?.take(folder.name(), &folder.vm()?.id, &spec.ports)?;
    if taken == spec.ports {
        return Ok(());
    }
    spec.ports = taken;
    rewrite_document(&folder.join(place::VM_SPEC), &spec)
}

fn already(name: &Name) -> Error {
    Error::conflict(format!("VM '{name}' is running"))
        .hint(format!("'banger vm stop {name}' stops it; 'banger vm restart {name}' does both"))
}

/// Starts the supervisor. It makes a session of its own; only its first words are heard.
fn spawn(name: &Name) -> Result<Child> {
    Command::new(find("banger-vm-supervise")?)
        .arg(name.as_str())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start the supervisor of '{name}'"))
}

/// Waits until the guest is as far as it is to be, the run ends, or the time is over.
fn wait(
    folder: &VmFolder,
    watch: &Watch,
    child: &mut Child,
    how: &How<'_>,
    line: &Line,
    before: Option<(u64, SystemTime)>,
) -> Result<View> {
    let begun = Instant::now();
    let mut answered = None;
    let mut said = Said::default();
    let mut shown = how.console.then(|| Follow::new(folder));
    loop {
        let mine = |running: &Running| running.supervisor.pid == child.id();
        let running = folder.running()?.filter(mine);
        let emulated = running.as_ref().is_some_and(|running| running.accelerator == "tcg");
        if let Some(running) = &running {
            said.say(running, line, how.told);
            // One that is held still gets no further.
            let is_there = match running.phase {
                Phase::Ready => running.has_reached(how.mark),
                Phase::Paused => running.has_reached(Mark::Agent),
                _ => false,
            };
            if is_there {
                return folder.view();
            }
            if running.agent_ms.is_some() {
                answered.get_or_insert_with(Instant::now);
            }
        }
        if let Some(shown) = &mut shown {
            shown.copy();
        }
        if child.try_wait().context("cannot ask for the supervisor")?.is_some() {
            return Err(ended(folder, before));
        }
        let (since, limit) = match (answered, how.limit) {
            (Some(answered), None) => (answered, BOOT_LIMIT),
            _ => (begun, how.wanted().limit(emulated)),
        };
        let left = limit.saturating_sub(since.elapsed());
        if left.is_zero() {
            return Err(match running {
                Some(running) if running.agent_ms.is_some() => slow(folder, &running, limit),
                _ => late(folder, limit),
            });
        }
        watch.once(if shown.is_some() { left.min(FOLLOW) } else { left })?;
    }
}

/// A console that is copied to stderr while it grows.
struct Follow {
    path: PathBuf,
    file: Option<File>,
    screen: Screen,
}

impl Follow {
    fn new(folder: &VmFolder) -> Self {
        let screen = Screen::of_console().always();
        Self { path: folder.join(place::VM_CONSOLE), file: None, screen }
    }

    /// Copies what is new; what would act on a terminal is visible. A console that cannot be read
    /// is none.
    fn copy(&mut self) {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let mut bytes = Vec::new();
        let Some(file) = &mut self.file else { return };
        let _ = file.take(1 << 20).read_to_end(&mut bytes);
        let _ = io::stderr().lock().write_all(&self.screen.shown(&bytes));
    }
}

/// What a person was told already.
#[derive(Default)]
struct Said {
    phase: Option<Phase>,
    notes: usize,
}

impl Said {
    fn say(&mut self, running: &Running, line: &Line, told: &Told) {
        if running.phase != Phase::Preparing {
            // Those of the host come first and stay; the guest's come behind them.
            let news = running.notes.get(self.notes..).unwrap_or_default();
            let (guest, host): (Vec<_>, Vec<_>) =
                news.iter().partition(|note| note.starts_with(IN_GUEST));
            if let Some(words) = line.is_heard().then(|| told.fresh(host.into_iter())).flatten() {
                line.note(&words);
            }
            for note in guest {
                line.note(note);
            }
            self.notes = self.notes.max(running.notes.len());
        }
        if self.phase == Some(running.phase) {
            return;
        }
        self.phase = Some(running.phase);
        match running.phase {
            Phase::Booting => line.enter("booting"),
            Phase::Ready => line.enter("waiting for its services"),
            Phase::Stopping => line.enter("stopping"),
            _ => {}
        }
    }
}

/// Tells the record of how a run ended from those of other runs: each is a file of its own.
fn last_end(folder: &VmFolder) -> Option<(u64, SystemTime)> {
    let meta = fs::metadata(folder.join(place::VM_EXIT)).ok()?;
    Some((meta.ino(), meta.modified().ok()?))
}

/// The run ended before the guest answered; `before` is how the one before it had ended. One that was
/// killed wrote nothing of its end.
fn ended(folder: &VmFolder, before: Option<(u64, SystemTime)>) -> Error {
    let name = folder.name();
    let written = last_end(folder) != before;
    match folder.last_exit() {
        Ok(Some(exit)) if written => failed(name, &exit),
        _ => Error::failed(format!("the supervisor of VM '{name}' ended unexpectedly"))
            .hint(format!("'{}' may say why", folder.join(place::VM_LOG).display())),
    }
}

fn failed(name: &Name, exit: &Exit) -> Error {
    let mut words = format!("VM '{name}' did not come up: {}", exit.message);
    if let (Some(kind), true) = (exit.kind, exit.console_tail.is_empty()) {
        // It never came so far that there is a console to look at.
        return Report { kind, message: words, hint: exit.hint.clone() }.into();
    }
    let lines = add_console(&mut words, &exit.console_tail);
    let hint = if lines.is_empty() {
        format!("'banger vm start --console {name}' shows what the kernel does")
    } else {
        format!("'banger vm logs {name}' shows its whole console")
    };
    Error::failed(words).lines(lines).hint(hint)
}

fn late(folder: &VmFolder, limit: Duration) -> Error {
    let name = folder.name();
    let mut words = format!("VM '{name}' did not come up within {} s; it is kept", limit.as_secs());
    let lines = add_console(&mut words, &console(&folder.join(place::VM_CONSOLE)));
    let look = if lines.is_empty() {
        format!("'banger vm wait {name}' waits on")
    } else {
        format!("'banger vm logs {name}' shows its whole console")
    };
    Error::failed(words).lines(lines).hint(format!("{look}; 'banger vm kill {name}' ends it"))
}

/// The agent answers, and the image's init is not where it is to be.
fn slow(folder: &VmFolder, running: &Running, limit: Duration) -> Error {
    let name = folder.name();
    let waits = running.waits_in_words();
    let s = limit.as_secs();
    Error::failed(format!("VM '{name}' has not finished booting after {s} s{waits}; it is kept"))
        .hint(format!(
            "'banger vm exec {name}' looks into it; '--wait agent' does not wait for its services"
        ))
}

/// Says what follows below the sentence: returns the last lines of the console.
fn add_console(words: &mut String, lines: &[String]) -> Vec<String> {
    words.push_str(if lines.is_empty() {
        "; its console is empty"
    } else {
        "; the last lines of its console are:"
    });
    lines[lines.len().saturating_sub(CONSOLE_LINES)..].to_vec()
}

/// Reads the last lines of the console, as a person may see them.
fn console(path: &Path) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.take(8192).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .lines()
        .map(|line| console_line(line.trim_end(), CONSOLE_COLUMNS))
        .filter(|line| !line.trim().is_empty())
        .collect()
}
