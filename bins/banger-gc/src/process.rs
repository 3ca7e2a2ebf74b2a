//! Processes that a supervisor started.

use banger_doc::Process;
use banger_state::{place, process_of};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long a killed process may take to be gone.
const LIMIT: Duration = Duration::from_secs(5);

/// A process whose environment says that it belongs to a VM of this state.
pub(crate) struct Marked {
    pub(crate) process: Process,
    pub(crate) command: String,
    /// The id of its VM.
    pub(crate) vm: String,
}

/// Finds them among the user's own processes; of others the environment cannot be read.
pub(crate) fn marked(root: &Path) -> Vec<Marked> {
    let Ok(state) = fs::metadata(root) else { return Vec::new() };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let process = process_of(pid)?;
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        let mark =
            variables.find_map(|v| v.strip_prefix(place::MARK.as_bytes())?.strip_prefix(b"="))?;
        let (vm, place) = std::str::from_utf8(mark).ok()?.split_once(' ')?;
        let place = fs::metadata(place).ok()?;
        let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let ours = (place.dev(), place.ino()) == (state.dev(), state.ino());
        ours.then(|| Marked { process, command: command.trim().into(), vm: vm.into() })
    });
    found.collect()
}

impl Marked {
    /// Kills it, unless its number is another process's by now; says whether it is gone.
    pub(crate) fn end(&self) -> bool {
        let is_there = || process_of(self.process.pid).as_ref() == Some(&self.process);
        let end = Instant::now() + LIMIT;
        if is_there() {
            let _ = kill(Pid::from_raw(self.process.pid as i32), Signal::SIGKILL);
        }
        while is_there() {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }
}
