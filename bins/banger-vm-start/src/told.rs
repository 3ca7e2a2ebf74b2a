//! What a person was told of this host: the same at every start, so it is said once.

use banger_state::{State, place, read_limited};
use std::{
    fs::OpenOptions,
    io::Write,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

/// A longer list is begun anew; then some of it is said again.
const MAX_BYTES: u64 = 64 << 10;
/// The most columns of a note.
const NOTE: usize = 600;

/// The notes that were said, one a line of a file.
pub(crate) struct Told {
    path: PathBuf,
    lines: Mutex<Vec<String>>,
}

impl Told {
    /// Reads what was said. A list that cannot be read is empty.
    pub(crate) fn read(state: &State) -> Self {
        let path = state.path(place::TOLD);
        let bytes = read_limited(&path, MAX_BYTES).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        Self { path, lines: Mutex::new(text.lines().map(str::to_owned).collect()) }
    }

    /// Returns the notes that were not said yet, as one; from now on they were. That it cannot be
    /// written down is no reason not to start: they are said again.
    pub(crate) fn fresh<'a>(&self, notes: impl Iterator<Item = &'a String>) -> Option<String> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh: Vec<String> = Vec::new();
        for note in notes.map(|note| banger_doc::visible(note, NOTE)) {
            if !lines.contains(&note) {
                lines.push(note.clone());
                fresh.push(note);
            }
        }
        let words = fresh.join("; ");
        if words.is_empty() {
            return None;
        }
        let is_full = self.path.metadata().is_ok_and(|meta| meta.len() > MAX_BYTES / 2);
        let mut options = OpenOptions::new();
        options.create(true).append(!is_full).write(is_full).truncate(is_full);
        if let Ok(mut file) = options.open(&self.path) {
            let _ = file.write_all((fresh.join("\n") + "\n").as_bytes());
        }
        Some(words)
    }
}
