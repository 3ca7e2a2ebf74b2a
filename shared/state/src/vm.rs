//! One VM's folder: its documents, its lock, its computed status.

use crate::{Lock, file, place, shelf::absent};
use banger_doc::{
    Context, Desire, Document, Error, Exit, HostPorts, Mark, Name, Phase, Result, Running, Spec,
    Status, View, Vm, Wanted,
};
use std::{
    fs::{self, File},
    io::ErrorKind,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long to wait for another program that asks at the same time.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How long to wait for programs that only look whether the lock is held.
const LOOKERS_LIMIT: Duration = Duration::from_secs(10);

/// The folder of a VM that exists.
#[derive(Clone, Debug)]
pub struct VmFolder {
    path: PathBuf,
    name: Name,
}

impl VmFolder {
    pub(crate) fn new(path: PathBuf, name: Name) -> Self {
        Self { path, name }
    }

    /// Returns the VM's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a place in [`place`].
    pub fn join(&self, place: &str) -> PathBuf {
        self.path.join(place)
    }

    /// Reads the fixed record.
    pub fn vm(&self) -> Result<Vm> {
        crate::load(&self.join(place::VM_DOCUMENT), "VM", &self.name).map_err(self.unless_gone())
    }

    /// Reads the spec.
    pub fn spec(&self) -> Result<Spec> {
        crate::load(&self.join(place::VM_SPEC), "VM", &self.name).map_err(self.unless_gone())
    }

    /// Reads what is asked; nothing if nobody asked yet.
    pub fn wanted(&self) -> Result<Option<Wanted>> {
        self.optional(place::VM_WANTED)
    }

    /// Reads what a supervisor said. Trust it only while [`VmFolder::is_live`].
    pub fn running(&self) -> Result<Option<Running>> {
        self.optional(place::VM_RUNNING)
    }

    /// Reads how the last run ended; nothing if none did.
    pub fn last_exit(&self) -> Result<Option<Exit>> {
        self.optional(place::VM_EXIT)
    }

    /// Asks the supervisor, now or when it comes. One that lives and was asked to end is asked
    /// nothing else, seen by it or not: an end that somebody waits for comes.
    pub fn ask(&self, wanted: &Wanted) -> Result<()> {
        // Nobody is to put back what was asked before this. But no stop waits for a program that
        // was held still: it is asked in any case.
        let _turn = Lock::exclusive_dir(&self.path, ASK_LIMIT, "the VM");
        let live = self.is_live().unwrap_or(false);
        let before = if live { self.wanted().ok().flatten() } else { None };
        // How a start that goes on is to be seen stays, whatever else is asked of it.
        let console = wanted.console || before.as_ref().is_some_and(|before| before.console);
        match (before.map(|before| before.desire), wanted.desire) {
            (Some(Desire::Stopped | Desire::Killed), Desire::Running | Desire::Paused) => {
                return Err(Error::conflict(format!("VM '{}' is being stopped", self.name))
                    .hint(format!("'banger vm wait --for stopped {}' waits for it", self.name)));
            }
            (Some(Desire::Killed), Desire::Stopped) => return Ok(()),
            _ => {}
        }
        let wanted = Wanted { console, ..wanted.clone() };
        file::write_fleeting(&self.join(place::VM_WANTED), &wanted).map_err(self.unless_gone())
    }

    /// Asks the supervisor for ports of the host, and for nothing else than before. The caller has
    /// written them into the spec, under [`VmFolder::edit_lock`].
    pub fn ask_ports(&self, _turn: &Lock, ports: &HostPorts) -> Result<()> {
        let now = self.wanted()?.unwrap_or_else(|| Wanted::new(Desire::Running));
        let wanted = Wanted { ports: Some(ports.clone()), ..now };
        file::write_fleeting(&self.join(place::VM_WANTED), &wanted)
    }

    /// Takes the lock that makes the caller this VM's supervisor, or its only changer while it does
    /// not run; `None` if another holds it.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        let path = self.join(place::VM_LOCK);
        let end = Instant::now() + LOOKERS_LIMIT;
        let mut tries = 20;
        while tries > 0 && Instant::now() < end {
            if let Some(lock) = Lock::try_exclusive(&path).map_err(self.unless_gone())? {
                return Ok(Some(lock));
            }
            // Whoever only asks whether the lock is held shares it for a moment, which is a long one
            // where the processors are busy.
            if Lock::is_held(&path)? {
                tries -= 1;
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(None)
    }

    /// Says why [`VmFolder::try_lock`] gave nothing: `runs`, or that somebody reads the disks of a VM that
    /// does not run.
    pub fn why_locked(&self, runs: Error) -> Error {
        if self.is_live().unwrap_or(true) {
            return runs;
        }
        Error::conflict(format!("VM '{}' is being read", self.name))
            .hint("another banger program looks into its disks; try again when it has ended")
    }

    /// Shares the lock with others who only read what is on the disks: no run begins meanwhile. `None` if
    /// another has it alone, a supervisor or who changes the VM.
    pub fn try_share(&self) -> Result<Option<Lock>> {
        let path = self.join(place::VM_LOCK);
        let lock = Lock::try_shared(&path).map_err(self.unless_gone())?;
        if lock.as_ref().is_some_and(|lock| !lock.is_of(&path)) {
            return Err(absent("VM", &self.name));
        }
        Ok(lock)
    }

    /// Takes the lock under which the documents of a VM are changed, running or not.
    pub fn edit_lock(&self) -> Result<Lock> {
        let what = format!("VM '{}'", self.name);
        let limit = Duration::from_secs(20);
        Lock::exclusive_dir(&self.path, limit, &what).map_err(self.unless_gone())
    }

    /// Returns the folders of its workspaces, in the order of their names.
    pub fn workspaces(&self) -> Result<Vec<PathBuf>> {
        workspaces(&self.path)
    }

    /// Says whether a supervisor holds the lock.
    pub fn is_live(&self) -> Result<bool> {
        Lock::is_held(&self.join(place::VM_LOCK))
    }

    /// Computes how the VM stands.
    pub fn status(&self) -> Result<Status> {
        Ok(self.stand()?.0)
    }

    /// Returns all that can be shown of the VM.
    pub fn view(&self) -> Result<View> {
        let (status, running, last_exit) = self.stand()?;
        Ok(View {
            status,
            vm: self.vm()?,
            spec: self.spec()?,
            folder: self.path.display().to_string(),
            running,
            last_exit,
        })
    }

    fn stand(&self) -> Result<(Status, Option<Running>, Option<Exit>)> {
        let mut tries = 20;
        loop {
            let live = self.is_live()?;
            let running = if live { self.running()? } else { None };
            // Left behind by a supervisor that died; its contents mean nothing any more.
            let left = !live && self.join(place::VM_RUNNING).exists();
            let exit = self.last_exit()?;
            // A supervisor writes `running.json` just after taking the lock, and removes it just
            // before letting go: look again rather than misread that moment.
            let between = if live { running.is_none() } else { left && self.is_live()? };
            if between && tries > 0 {
                tries -= 1;
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            let status = match (&running, &exit) {
                _ if left => return Ok((Status::Error, None, None)),
                (Some(running), _) => match running.phase {
                    Phase::Preparing | Phase::Booting => Status::Starting,
                    Phase::Ready => Status::Running,
                    Phase::Paused => Status::Paused,
                    Phase::Stopping => Status::Stopping,
                },
                (None, _) if live => Status::Starting,
                (None, None) => Status::Created,
                (None, Some(exit)) if exit.is_orderly() => Status::Stopped,
                (None, Some(_)) => Status::Error,
            };
            return Ok((status, running, exit));
        }
    }

    /// Fails unless the VM runs.
    pub fn must_run(&self) -> Result<()> {
        let (status, _, exit) = self.stand()?;
        let why =
            exit.filter(|_| status == Status::Error).map(|exit| format!(": {}", exit.message));
        let why = why.unwrap_or_default();
        match status {
            Status::Running => Ok(()),
            status => Err(Error::conflict(format!("VM '{}' is {status}{why}", self.name)).hint(
                match status {
                    Status::Starting => {
                        format!("'banger vm logs {}' shows how far it is", self.name)
                    }
                    Status::Paused => format!("'banger vm resume {}' lets it run", self.name),
                    _ => format!("'banger vm start {}' starts it", self.name),
                },
            )),
        }
    }

    /// Says of a VM whose agent answers that its init is not past its boot, which commands may notice.
    pub fn boots_on(&self) -> Option<String> {
        let running = self.running().ok().flatten()?;
        let (answers, booted) =
            (running.has_reached(Mark::Agent), running.has_reached(Mark::Booted));
        let name = &self.name;
        (answers && !booted).then(|| {
            format!("note: the boot of '{name}' goes on; 'banger vm wait {name}' waits for it")
        })
    }

    /// Returns a short path to a place in the folder, whatever the folder's own length: sockets
    /// have room for 107 bytes (unix(7)). Valid while the returned directory is open.
    pub fn short_path(&self, place: &str) -> Result<(File, PathBuf)> {
        let dir = File::open(&self.path)
            .with_context(|| format!("cannot open '{}'", self.path.display()))
            .map_err(self.unless_gone())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{place}", dir.as_raw_fd()));
        Ok((dir, path))
    }

    /// Says of a VM that another program deleted meanwhile just that, whatever failed for it.
    pub(crate) fn unless_gone(&self) -> impl Fn(Error) -> Error {
        |error| {
            if self.join(place::VM_DOCUMENT).exists() { error } else { absent("VM", &self.name) }
        }
    }

    fn optional<D: Document>(&self, place: &str) -> Result<Option<D>> {
        let path = self.join(place);
        match fs::metadata(&path) {
            // It may be removed at this moment, as when a run ends.
            Ok(_) => match file::read_document(&path) {
                Err(_) if !path.exists() => Ok(None),
                read => read.map(Some),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(format!("cannot look at '{}'", path.display())),
        }
    }
}

/// Returns the folders of the workspaces in a VM's folder, in the order of their names. One without a document
/// is none: a prepare is at work there, or was killed.
pub fn workspaces(vm: &Path) -> Result<Vec<PathBuf>> {
    let all = vm.join(place::VM_WORKSPACES);
    let said = || format!("cannot read '{}'", all.display());
    let entries = match fs::read_dir(&all) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(said)?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry.with_context(said)?.path();
        if path.join(place::WORKSPACE_DOCUMENT).exists() {
            folders.push(path);
        }
    }
    folders.sort_unstable();
    Ok(folders)
}

/// Returns the time in seconds since 1970.
pub fn clock_s() -> u64 {
    clock_ms() / 1000
}

/// Returns the time in milliseconds since 1970.
pub fn clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::State;
    use nix::fcntl::{Flock, FlockArg};

    #[test]
    fn an_end_that_was_asked_for_is_not_taken_back_while_the_vm_lives() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().join("state")).unwrap();
        let name: Name = "web".parse().unwrap();
        let staged = state.vms().begin(&name).unwrap();
        let vm = Vm {
            name: name.clone(),
            id: "0".repeat(32),
            image: "i".parse().unwrap(),
            kernel: "k".parse().unwrap(),
            mac: String::new(),
            created_unix_s: 0,
        };
        state.vms().publish(&name, staged, &vm).unwrap();
        let folder = state.vm(&name).unwrap();
        let ask = |desire| folder.ask(&Wanted::new(desire));
        let desire = || folder.wanted().unwrap().unwrap().desire;

        let lock = folder.try_lock().unwrap().unwrap();
        for desire in [Desire::Running, Desire::Paused, Desire::Running, Desire::Stopped] {
            ask(desire).unwrap();
        }
        for late in [Desire::Running, Desire::Paused] {
            assert_eq!(ask(late).unwrap_err().kind(), banger_doc::Kind::Conflict);
            assert_eq!(desire(), Desire::Stopped);
        }
        ask(Desire::Killed).unwrap();
        // Whoever asks for less waits for the same.
        ask(Desire::Stopped).unwrap();
        assert_eq!(desire(), Desire::Killed);
        // What the last run was asked is nothing to the next.
        drop(lock);
        ask(Desire::Running).unwrap();
        assert_eq!(desire(), Desire::Running);
    }

    #[test]
    fn a_pause_leaves_a_start_its_console() {
        let dir = tempfile::tempdir().unwrap();
        let folder = VmFolder::new(dir.path().to_owned(), "web".parse().unwrap());
        let console = || folder.wanted().unwrap().unwrap().console;
        folder.ask(&Wanted { console: true, ..Wanted::new(Desire::Running) }).unwrap();
        let lock = folder.try_lock().unwrap().unwrap();
        folder.ask(&Wanted::new(Desire::Paused)).unwrap();
        assert!(console());
        drop(lock);
        folder.ask(&Wanted::new(Desire::Running)).unwrap();
        assert!(!console());
    }

    #[test]
    fn who_only_looks_whether_a_lock_is_held_keeps_nobody_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = VmFolder::new(dir.path().to_owned(), "web".parse().unwrap());
        let looker = File::create(folder.join(place::VM_LOCK)).unwrap();
        let shared = Flock::lock(looker, FlockArg::LockShared).unwrap();
        thread::scope(|scope| {
            let lock = scope.spawn(|| folder.try_lock().unwrap());
            // As long as a busy machine may hold a looker up.
            thread::sleep(Duration::from_millis(200));
            drop(shared);
            assert!(lock.join().unwrap().is_some());
        });
        let held = folder.try_lock().unwrap().unwrap();
        assert!(folder.try_lock().unwrap().is_none());
        drop(held);
    }
}
