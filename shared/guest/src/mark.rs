//! The second mark of a boot: the image's init is past what it does before logins. The first is that the
//! agent answers.

use crate::{place, read_start};
use banger_doc::{Booted, Context, Result};
use std::{fs, path::Path};

/// More of a file is not read: anybody who is root in the guest may have written it.
const MOST: u64 = 64 << 10;
/// More notes are not told, nor longer ones.
const NOTES: usize = 20;
const NOTE_CHARS: usize = 300;

/// Says that there is nothing left to wait for. Appears whole.
pub fn set(booted: Booted) -> Result<()> {
    let new = format!("{}.new", place::BOOTED);
    fs::write(&new, booted.word())
        .and_then(|()| fs::rename(&new, place::BOOTED))
        .context("cannot say how the boot went")
}

/// Returns what was said of the boot.
pub fn get() -> Booted {
    match text_of(Path::new(place::BOOTED)).trim() {
        "yes" => Booted::Yes,
        "degraded" => Booted::Degraded,
        "unknown" => Booted::Unknown,
        _ => Booted::No,
    }
}

/// Returns what went wrong in the boot so far.
pub fn notes() -> Vec<String> {
    notes_in(&text_of(Path::new(place::LOG)))
}

fn notes_in(log: &str) -> Vec<String> {
    let lines = log.lines().map(str::trim).filter(|line| !line.starts_with("stages: "));
    let mut notes: Vec<String> = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let note: String = line.chars().filter(|c| !c.is_control()).take(NOTE_CHARS).collect();
        if !notes.contains(&note) {
            notes.push(note);
        }
        if notes.len() == NOTES {
            break;
        }
    }
    notes
}

/// Says whether OpenRC has begun its default runlevel, or whichever comes after those of the boot.
/// It writes the runlevel's name before it starts that one's services (openrc(8)).
pub fn openrc_is_past_boot(root: &Path) -> bool {
    let level = text_of(&root.join("run/openrc/softlevel"));
    !matches!(level.trim(), "" | "sysinit" | "boot" | "shutdown" | "reboot")
}

/// Returns the services that OpenRC is starting.
pub fn openrc_starts(root: &Path) -> Vec<String> {
    let starting = fs::read_dir(root.join("run/openrc/starting")).into_iter().flatten().flatten();
    starting.take(NOTES).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&read_start(path, MOST).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openrc_is_past_its_boot_when_another_runlevel_begins() {
        let root = tempfile::tempdir().unwrap();
        assert!(!openrc_is_past_boot(root.path()));
        fs::create_dir_all(root.path().join("run/openrc/starting")).unwrap();
        for (level, past) in
            [("sysinit\n", false), ("boot\n", false), ("default\n", true), ("shutdown\n", false)]
        {
            fs::write(root.path().join("run/openrc/softlevel"), level).unwrap();
            assert_eq!(openrc_is_past_boot(root.path()), past, "{level}");
        }
        fs::write(root.path().join("run/openrc/starting/networking"), "").unwrap();
        assert_eq!(openrc_starts(root.path()), ["networking"]);
        let level = root.path().join("run/openrc/softlevel");
        fs::remove_file(&level).unwrap();
        nix::unistd::mkfifo(&level, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(!openrc_is_past_boot(root.path()));
    }

    #[test]
    fn notes_are_few_short_and_each_said_once() {
        let long = "x".repeat(10_000);
        let log = format!("cannot a\ncannot a\nstages: kernel 1 ms\n\n\u{1b}[2Jodd\r\n{long}\n");
        let notes = notes_in(&log);
        assert_eq!(notes[..2], ["cannot a", "[2Jodd"]);
        assert_eq!((notes.len(), notes[2].len()), (3, NOTE_CHARS));
        let many: Vec<String> = (0..1000).map(|n| format!("note {n}")).collect();
        assert_eq!(notes_in(&many.join("\n")).len(), NOTES);
    }
}
