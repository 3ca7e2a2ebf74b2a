//! Files that a guest may write to for ever without filling the disk.

use banger_doc::{Context, Result, console_line};
use banger_state::clock_s;
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::FileExt,
};

/// Largest console log of one boot. The one before is kept beside it.
pub(crate) const CONSOLE_LIMIT: u64 = 4 << 20;
/// Largest log of the supervisor's own.
pub(crate) const SUPERVISE_LIMIT: u64 = 1 << 20;
/// How much of the last lines is kept in memory.
const TAIL: usize = 8 << 10;
/// Longest line of a console in a document, in columns.
const CONSOLE_COLUMNS: usize = 200;
/// Longest line of our own log in one.
const LOG_COLUMNS: usize = 1000;

/// What stands for the middle that was left out.
const GAP: &str = "[banger left out what came here: the log was full]";

/// A log that keeps its beginning and its end, and leaves out the middle.
#[derive(Debug)]
pub(crate) struct CappedLog {
    file: File,
    size: u64,
    limit: u64,
    tail: Vec<u8>,
}

impl CappedLog {
    /// Continues a log.
    pub(crate) fn append(path: &str, limit: u64) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("cannot open '{path}'"))?;
        let size = file.metadata().with_context(|| format!("cannot look at '{path}'"))?.len();
        Ok(Self { file, size, limit, tail: Vec::new() })
    }

    /// Begins a log; the one that is there becomes `path.1`.
    pub(crate) fn fresh(path: &str, limit: u64) -> Result<Self> {
        match fs::rename(path, format!("{path}.1")) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).context(format!("cannot move '{path}' aside"))
            }
            _ => Self::append(path, limit),
        }
    }

    /// Adds bytes. A full disk is no reason to end a VM.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.size + bytes.len() as u64 > self.limit {
            self.shorten();
        }
        if self.file.write_all_at(bytes, self.size).is_ok() {
            self.size += bytes.len() as u64;
        }
        let keep = bytes.len().min(TAIL);
        self.tail.extend_from_slice(&bytes[bytes.len() - keep..]);
        if self.tail.len() > 2 * TAIL {
            self.tail.drain(..self.tail.len() - TAIL);
        }
    }

    /// Adds a line with the time.
    pub(crate) fn say(&mut self, text: &str) {
        self.write(format!("{} {text}\n", clock_s()).as_bytes());
    }

    /// Returns the last lines of a log of our own. A VMM's reason stands at a line's end, behind all it
    /// was called with.
    pub(crate) fn last_lines(&self, count: usize) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.tail);
        let lines: Vec<String> = text
            .lines()
            .map(|line| console_line(line.trim_end(), LOG_COLUMNS))
            .filter(|line| !line.is_empty())
            .collect();
        lines[lines.len().saturating_sub(count)..].to_vec()
    }

    /// Returns all lines of a guest's that are kept, as a person may see them. The first one after a gap is
    /// left out: its beginning is gone.
    pub(crate) fn console_lines(&self) -> Vec<String> {
        let mut bytes = vec![0; self.size.min(self.limit) as usize];
        if self.file.read_exact_at(&mut bytes, 0).is_err() {
            return Vec::new();
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = Vec::new();
        let mut is_whole = true;
        for line in text.lines() {
            let is_gap = line == GAP;
            if is_whole && !is_gap {
                let line = console_line(line.trim_end(), CONSOLE_COLUMNS);
                lines.extend(Some(line).filter(|line| !line.is_empty()));
            }
            is_whole = !is_gap;
        }
        lines
    }

    /// Moves the last quarter up to behind the first one.
    fn shorten(&mut self) {
        let quarter = self.limit / 4;
        let mark = format!("\n{GAP}\n");
        let mut from = self.size - quarter.min(self.size);
        let mut to = quarter;
        let mut buffer = [0; 16 << 10];
        if self.file.write_all_at(mark.as_bytes(), to).is_ok() {
            to += mark.len() as u64;
        }
        while from < self.size {
            let Ok(n) = self.file.read_at(&mut buffer, from) else { break };
            if n == 0 || self.file.write_all_at(&buffer[..n], to).is_err() {
                break;
            }
            from += n as u64;
            to += n as u64;
        }
        let _ = self.file.set_len(to);
        let _ = self.file.flush();
        self.size = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_keeps_its_beginning_and_its_end() {
        let dir = std::env::temp_dir().join(format!("banger-log-{}", std::process::id()));
        let path = dir.to_str().unwrap();
        let mut log = CappedLog::append(path, 4096).unwrap();
        for i in 0..10_000 {
            log.write(format!("line {i}\n").as_bytes());
        }
        let text = fs::read_to_string(path).unwrap();
        let lines = log.console_lines();
        let _ = fs::remove_file(path);
        let numbered = |line: &String| {
            line.strip_prefix("line ").is_some_and(|rest| rest.parse::<u32>().is_ok())
        };
        assert!(lines.len() > 100 && lines.iter().all(numbered), "{lines:?}");
        assert!(text.len() <= 4096, "{}", text.len());
        assert!(text.starts_with("line 0\nline 1\n"));
        assert!(text.ends_with("line 9999\n"));
        assert!(text.contains("left out"));
        assert_eq!(log.last_lines(2), ["line 9998", "line 9999"]);
    }

    #[test]
    fn lines_for_people_are_short_and_move_no_cursor() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = CappedLog::append(file.path().to_str().unwrap(), CONSOLE_LIMIT).unwrap();
        log.write(b"\x1b[1;31mred\x1b[0m \x07\x1bc\r\n");
        log.write(&vec![0; 64 << 10]);
        let lines = log.console_lines();
        assert!(lines.iter().all(|line| line.chars().count() <= 200), "{lines:?}");
        log.write(b"\n\x1b[1;31mred\x1b[0m \x07\x1bc\r\n\n");
        assert_eq!(log.console_lines().last().unwrap(), "red \\u{7}\\u{1b}c");
        log.write("x".repeat(900).as_bytes());
        assert_eq!(log.last_lines(1), ["x".repeat(900)]);
    }
}
