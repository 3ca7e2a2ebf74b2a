//! What guest-init says: to the console when it cannot go on, to the kernel's log otherwise.

use banger_doc::visible;
use banger_guest::place;
use nix::{
    sys::{
        reboot::{RebootMode, reboot},
        time::{TimeSpec, TimeValLike},
    },
    time::{ClockId, clock_gettime},
};
use std::{fs::OpenOptions, io::Write, process::ExitCode, sync::Mutex};

/// A longer note loses its middle.
const MOST_COLUMNS: usize = 1000;

/// Returns what is said as one line: names of files are the image's and its users', and what comes after a line's end
/// would be taken for another note.
fn line(text: &str) -> String {
    visible(text, MOST_COLUMNS)
}

/// Notes something that went wrong but does not keep the guest from running.
pub(crate) fn warn(text: &str) {
    let text = line(text);
    // "4" is a warning (syslog(2)).
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = writeln!(log, "<4>banger-guest-init: {text}");
    }
    // Before the image's root is entered, its folder is where the initramfs has it.
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    let log = options
        .open(place::LOG)
        .or_else(|_| options.open(place::LOG.replacen(place::RUN, "/banger", 1)));
    if let Ok(mut log) = log {
        let _ = writeln!(log, "{text}");
    }
}

/// Milliseconds since the machine began, at the end of each stage of the boot.
static STAGES: Mutex<Vec<(&str, i64)>> = Mutex::new(Vec::new());

/// Notes that a stage of the boot has ended.
pub(crate) fn stage(name: &'static str) {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| TimeSpec::num_milliseconds(&t));
    if let Ok(mut stages) = STAGES.lock() {
        stages.push((name, now));
    }
}

/// Writes down how long the boot took, for whoever looks into a guest.
pub(crate) fn stages() {
    let Ok(stages) = STAGES.lock() else { return };
    let words: Vec<String> = stages.iter().map(|(name, ms)| format!("{name} {ms} ms")).collect();
    if let Ok(mut log) = OpenOptions::new().append(true).create(true).open(place::LOG) {
        let _ = writeln!(log, "stages: {}", words.join(", "));
    }
}

/// Notes a failure and goes on.
pub(crate) fn or_warn<T>(result: banger_doc::Result<T>) -> Option<T> {
    result.map_err(|error| warn(&error.chain())).ok()
}

/// Says one line on the console and ends the machine: without a root there is nothing to run.
pub(crate) fn fatal(text: &str) -> ! {
    console(&format!("{}{text}", place::GAVE_UP));
    nix::unistd::sync();
    let _ = reboot(RebootMode::RB_AUTOBOOT);
    let _ = reboot(RebootMode::RB_POWER_OFF);
    // Both fail only if this is no machine of ours; the kernel's panic then ends it.
    panic!("cannot end the machine");
}

/// Says one line on the console.
pub(crate) fn console(text: &str) {
    let line = format!("{}{}\n", place::SAYS, line(text));
    let done = OpenOptions::new()
        .write(true)
        .open("/dev/console")
        .and_then(|mut console| console.write_all(line.as_bytes()));
    if done.is_err() {
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Answers whoever runs this program where it has nothing to do.
pub(crate) fn refuse(version: bool) -> ExitCode {
    let name = env!("CARGO_PKG_NAME");
    if version {
        let _ = writeln!(std::io::stdout(), "{name} {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let _ = writeln!(
        std::io::stderr(),
        "{name}: this program is the first one in a banger guest and does nothing elsewhere"
    );
    ExitCode::from(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_line_end_makes_no_second_note() {
        let said = line("cannot copy '/home/a/x\nforged \u{1b}[2J': it is gone");
        assert!(said.starts_with("cannot copy '/home/a/x") && said.ends_with("': it is gone"));
        assert!(!said.chars().any(char::is_control), "{said:?}");
        assert!(line(&"x".repeat(1 << 20)).len() < 2 * MOST_COLUMNS);
    }
}
