//! How a run ended, and writing it down.

use crate::{log::CappedLog, stub::VmmEnd};
use banger_disks::Disks;
use banger_doc::{Context, Error, Exit, Reason, Result, Vmm};
use banger_guest::place::{GAVE_UP, MARK, SAYS};
use banger_machine::{Event, Kvm};
use banger_state::{VmFolder, clock_s, place, write_document};
use banger_tree::remove_tree_if_there;
use nix::sys::signal::Signal;
use std::{fs, io::ErrorKind, path::Path, time::Duration};

/// Lines of the console that the record keeps.
const TAIL_LINES: usize = 20;

/// How the kernel's last words begin.
const PANIC: &str = "Kernel panic";
/// Of the record's lines about a panic so many come before it.
const BEFORE_PANIC: usize = 12;
/// As many of the last lines of an init are repeated.
const LAST_WORDS: usize = 3;

/// How far the run came.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Stage {
    #[default]
    Preparing,
    Launched,
    Ready,
}

/// Who wanted the end.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Why {
    #[default]
    Unasked,
    Stopped,
    TooSlow(Duration),
    Killed,
    Guest(Event),
}

/// All that is known at the end of a run.
#[derive(Debug, Default)]
pub(crate) struct End {
    pub(crate) stage: Stage,
    /// Whether the image's init was past its boot.
    pub(crate) booted: bool,
    pub(crate) why: Why,
    /// Which VMM it was, once that is known.
    pub(crate) kind: Option<Vmm>,
    pub(crate) vmm: Option<VmmEnd>,
    /// Whether the VMM was killed because its guest had halted, which is an orderly end.
    pub(crate) halted: bool,
    pub(crate) failure: Option<Error>,
    pub(crate) console: Option<CappedLog>,
    pub(crate) disks: Option<Disks>,
}

/// Brings the disks to rest, writes `last-exit.json` and removes what belongs to the run. Every step
/// is tried, whatever became of the others.
pub(crate) fn record(folder: &VmFolder, end: End, log: &mut CappedLog) {
    let disks_clean = end.disks.as_ref().is_some_and(|disks| {
        let mut say = |words: &str| log.say(words);
        disks.take_back(&mut say);
        disks.check(&mut say)
    });
    // What a VM's own control groups are called is all that is needed of it.
    if let Ok(vm) = folder.vm()
        && let Err(error) = banger_machine::forget(&vm.id)
    {
        log.say(&error.chain());
    }
    let console = end.console.as_ref().map(CappedLog::console_lines).unwrap_or_default();
    let (reason, message) = judge(&end, &console, log);
    let console_tail = tail(console, reason);
    log.say(&message);
    let exit = Exit {
        reason,
        message,
        kind: end.failure.as_ref().map(Error::kind),
        hint: end.failure.as_ref().and_then(Error::hint_text).map(str::to_owned),
        vmm_status: end.vmm.and_then(|vmm| match vmm {
            VmmEnd::Status(status) => Some(status),
            _ => None,
        }),
        vmm_signal: end.vmm.and_then(|vmm| match vmm {
            VmmEnd::Signal(signal) => Some(signal),
            _ => None,
        }),
        disks_clean,
        ended_unix_s: clock_s(),
        console_tail,
    };
    let written = write_document(&folder.join(place::VM_EXIT), &exit);
    if let Err(error) = &written {
        log.say(&error.chain());
    }
    if let Err(error) = clear_run() {
        log.say(&error.chain());
    }
    match fs::remove_file(place::VM_METRICS) {
        Err(error) if error.kind() != ErrorKind::NotFound => log.say(&error.to_string()),
        _ => {}
    }
    if written.is_err() {
        // What is there tells of another run's end: that this one ended is all that can be known.
        return;
    }
    // Last: without it, the exit record counts as soon as the lock ends.
    match fs::remove_file(place::VM_RUNNING) {
        Err(error) if error.kind() != ErrorKind::NotFound => log.say(&error.to_string()),
        _ => {}
    }
}

/// Removes what a run left in `run/`.
pub(crate) fn clear_run() -> Result<()> {
    remove_tree_if_there(Path::new(place::VM_RUN)).context("cannot clear 'run'")
}

/// Puts the end into a reason and a sentence.
fn judge(end: &End, console: &[String], log: &CappedLog) -> (Reason, String) {
    if let Some(error) = &end.failure {
        let reason = if end.vmm.is_none() && end.stage == Stage::Preparing {
            Reason::StartFailed
        } else {
            Reason::VmmEnded
        };
        return (reason, error.chain());
    }
    let gave_up = (end.kind == Some(Vmm::Firecracker)).then(|| gave_up(log)).flatten();
    let orderly = end.halted || matches!(end.vmm, Some(VmmEnd::Status(0))) && gave_up.is_none();
    let panic = panic_at(console);
    let complaint = console
        .iter()
        .rev()
        .filter(|line| !line.starts_with(MARK))
        .find_map(|line| line.split_once(SAYS)?.1.strip_prefix(GAVE_UP));
    let unasked =
        if end.stage == Stage::Preparing { Reason::StartFailed } else { Reason::VmmEnded };
    match &end.why {
        Why::Killed => (Reason::Killed, "it was killed as asked".into()),
        Why::TooSlow(given) if end.stage == Stage::Ready => {
            (Reason::Killed, format!("it did not stop within {} s and was killed", seconds(*given)))
        }
        Why::TooSlow(given) if given.is_zero() => (
            Reason::Killed,
            "its agent never answered and it has no power button, so it was killed".into(),
        ),
        Why::TooSlow(given) => (
            Reason::Killed,
            format!(
                "its agent never answered, so its power button was pressed, and {} s later it was \
                 killed",
                seconds(*given)
            ),
        ),
        Why::Stopped if orderly => (Reason::Stopped, "it stopped as asked".into()),
        Why::Guest(_) | Why::Unasked if panic.is_some() => (
            Reason::VmmEnded,
            format!("the guest's kernel panicked: {}", panic_words(console, panic.unwrap_or(0))),
        ),
        // The agent may have answered before: it does not need the image's root.
        Why::Guest(_) | Why::Unasked if !end.booted && complaint.is_some() => {
            (Reason::VmmEnded, format!("the guest gave up: {}", complaint.unwrap_or_default()))
        }
        Why::Guest(Event::GuestPanic) => (Reason::VmmEnded, "the guest's kernel panicked".into()),
        Why::Guest(Event::GuestReset) if end.stage != Stage::Ready => {
            (Reason::VmmEnded, "the guest ended or restarted before its agent answered".into())
        }
        Why::Guest(Event::GuestReset) => (
            Reason::GuestShutdown,
            "the guest shut itself down, or restarted, which ends a VM".into(),
        ),
        Why::Guest(_) if orderly => (Reason::GuestShutdown, "the guest shut itself down".into()),
        Why::Unasked if orderly && end.stage == Stage::Ready => {
            (Reason::GuestShutdown, "the guest shut itself down".into())
        }
        // A reset is the only end a guest can give to Firecracker.
        Why::Unasked if orderly && end.kind == Some(Vmm::Firecracker) => {
            (Reason::VmmEnded, "the guest ended or restarted before its agent answered".into())
        }
        _ => (unasked, gave_up.unwrap_or_else(|| vmm_words(end.vmm, end.kind, log))),
    }
}

/// Finds the kernel's panic: many lines may come after it.
fn panic_at(console: &[String]) -> Option<usize> {
    let is_one = |line: &String| {
        line.contains(PANIC) && !line.contains("---[ end") && !line.starts_with(MARK)
    };
    console.iter().rposition(is_one)
}

/// Says why the kernel panicked; where its first process ended, also how, and what that had said.
fn panic_words(console: &[String], at: usize) -> String {
    let line = console[at].trim();
    let code = line.split_once("Attempted to kill init! exitcode=0x").map(|(_, code)| code);
    let code = code.and_then(|code| i32::from_str_radix(code.get(..8)?, 16).ok());
    let Some(code) = code else { return line.to_owned() };
    let how = match code & 0x7f {
        0 => format!("ended with status {}", code >> 8),
        signal => {
            let name = Signal::try_from(signal).map_or("unknown", Signal::as_str);
            format!("was ended by signal {signal} ({name})")
        }
    };
    let mut words = format!("{line}; the image's init {how}");
    let mut said: Vec<&str> = console[..at]
        .iter()
        .rev()
        .map(|line| line.trim())
        .filter(|line| !is_kernels(line) && !line.contains(SAYS))
        .take(LAST_WORDS)
        .collect();
    said.reverse();
    if !said.is_empty() {
        words.extend([", after it said: ", &said.join(" / ")]);
    }
    words
}

/// Says whether a line has the time in brackets with which the kernel's lines begin.
fn is_kernels(line: &str) -> bool {
    let time = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(time, _)| time);
    time.is_some_and(|time| time.trim().parse::<f64>().is_ok())
}

/// Returns the lines that the record keeps: the last ones, of a panic those round it.
fn tail(mut console: Vec<String>, reason: Reason) -> Vec<String> {
    if let (Reason::VmmEnded, Some(at)) = (reason, panic_at(&console)) {
        console.truncate(at.saturating_add(TAIL_LINES - BEFORE_PANIC));
    }
    console.split_off(console.len().saturating_sub(TAIL_LINES))
}

fn seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000) as u64
}

/// Says why Firecracker ended by itself, if it wrote so.
fn gave_up(log: &CappedLog) -> Option<String> {
    let mut words = format!("Firecracker gave up: {}", banger_machine::complaint(&last_run(log))?);
    if banger_machine::kvm() == Kvm::NotReal {
        words.push_str("; KVM here is an imitation that runs only kernels made for it");
    }
    Some(words)
}

/// The log's last lines, without those of the run before.
fn last_run(log: &CappedLog) -> Vec<String> {
    let mut lines = log.last_lines(usize::MAX);
    let begin = lines.iter().rposition(|line| line.contains("the supervisor of '"));
    lines.drain(..begin.map_or(0, |at| at + 1));
    lines
}

fn vmm_words(vmm: Option<VmmEnd>, kind: Option<Vmm>, log: &CappedLog) -> String {
    match vmm {
        Some(VmmEnd::Signal(number)) => {
            let name = Signal::try_from(number).map_or("unknown", Signal::as_str);
            format!("the VMM was ended by signal {number} ({name})")
        }
        Some(VmmEnd::Status(status)) => {
            let last = last_run(log);
            let said = match kind {
                Some(Vmm::Firecracker) => {
                    let own = |line: &&String| line.contains("Error") || line.contains("error");
                    last.iter().rev().find(own)
                }
                _ => last.iter().rev().find(|line| line.contains("qemu")),
            };
            let said = said.map(|line| format!(": {line}")).unwrap_or_default();
            format!("the VMM ended with status {status}{said}")
        }
        Some(VmmEnd::Unknown) | None => "the VMM was ended by somebody else".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SUPERVISE_LIMIT;

    fn judged(end: &End, console: &[&str], said: &str) -> (Reason, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = CappedLog::append(file.path().to_str().unwrap(), SUPERVISE_LIMIT).unwrap();
        log.write(said.as_bytes());
        let console: Vec<String> = console.iter().map(ToString::to_string).collect();
        judge(end, &console, &log)
    }

    fn end(stage: Stage, why: Why, vmm: VmmEnd) -> End {
        End { stage, why, vmm: Some(vmm), ..End::default() }
    }

    #[test]
    fn each_end_has_its_reason() {
        let over = VmmEnd::Status(0);
        let ready = Stage::Ready;
        for (end, reason) in [
            (end(ready, Why::Stopped, over), Reason::Stopped),
            (end(ready, Why::Killed, VmmEnd::Signal(9)), Reason::Killed),
            (end(ready, Why::TooSlow(Duration::from_secs(1)), VmmEnd::Signal(9)), Reason::Killed),
            (end(ready, Why::Guest(Event::GuestShutdown), over), Reason::GuestShutdown),
            (end(ready, Why::Guest(Event::GuestReset), over), Reason::GuestShutdown),
            (end(ready, Why::Unasked, over), Reason::GuestShutdown),
            (end(ready, Why::Unasked, VmmEnd::Signal(11)), Reason::VmmEnded),
            (end(ready, Why::Unasked, VmmEnd::Unknown), Reason::VmmEnded),
            (end(ready, Why::Guest(Event::GuestPanic), over), Reason::VmmEnded),
            (end(Stage::Launched, Why::Guest(Event::GuestReset), over), Reason::VmmEnded),
            (end(Stage::Preparing, Why::Unasked, VmmEnd::Status(1)), Reason::StartFailed),
        ] {
            assert_eq!(judged(&end, &[], "").0, reason, "{end:?}");
        }
        for (why, reason) in [
            (Why::Guest(Event::GuestShutdown), Reason::GuestShutdown),
            (Why::Stopped, Reason::Stopped),
            (Why::Killed, Reason::Killed),
        ] {
            let end = End { halted: true, ..end(ready, why, VmmEnd::Signal(9)) };
            assert_eq!(judged(&end, &[], "").0, reason, "{end:?}");
        }
        let failed = End { failure: Some(Error::failed("no disk")), ..End::default() };
        assert_eq!(judged(&failed, &[], ""), (Reason::StartFailed, "no disk".into()));
    }

    #[test]
    fn the_console_says_why_a_guest_went() {
        let reset = end(Stage::Launched, Why::Guest(Event::GuestReset), VmmEnd::Status(0));
        let panic = ["[ 1.0] Kernel panic - not syncing: VFS", "[ 1.1] Rebooting"];
        let (reason, words) = judged(&reset, &panic, "");
        assert_eq!(reason, Reason::VmmEnded);
        assert!(words.contains("not syncing: VFS"), "{words}");
        let said = ["banger-guest-init: gave up: cannot mount 'x'", "[ 1.1] Rebooting"];
        let (_, words) = judged(&reset, &said, "");
        assert_eq!(words, "the guest gave up: cannot mount 'x'");
        // Its agent may have answered before it came to its disks; one that has booted ends in another way.
        let answered = end(Stage::Ready, Why::Guest(Event::GuestReset), VmmEnd::Status(0));
        let wanted = (Reason::VmmEnded, "the guest gave up: cannot mount 'x'".to_owned());
        assert_eq!(judged(&answered, &said, ""), wanted);
        let booted = End { booted: true, ..answered };
        assert_eq!(judged(&booted, &said, "").0, Reason::GuestShutdown);
        // What it says besides ends no guest.
        let other = ["banger-guest-init: the agent ended"];
        let answered = end(Stage::Ready, Why::Guest(Event::GuestReset), VmmEnd::Status(0));
        assert_eq!(judged(&answered, &other, "").0, Reason::GuestShutdown);
        // What an image prints after its start is no reason.
        let stopped = end(Stage::Ready, Why::Stopped, VmmEnd::Status(0));
        assert_eq!(judged(&stopped, &panic, "").0, Reason::Stopped);
    }

    #[test]
    fn a_panic_is_one_wherever_it_stands_and_whoever_forges_it() {
        let mut console: Vec<String> =
            (0..3000).map(|n| format!("[ 1.{n:06}] a line of the boot")).collect();
        console.push("usage: init PROGRAM".into());
        let line =
            "[    2.5] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100";
        console.push(line.into());
        console.extend((0..60).map(|n| format!("[    2.6] register {n}")));
        console.push(
            "[    2.7] ---[ end Kernel panic - not syncing: Attempted to kill init! ]---".into(),
        );
        let reset = end(Stage::Ready, Why::Guest(Event::GuestReset), VmmEnd::Status(0));
        let lines: Vec<&str> = console.iter().map(String::as_str).collect();
        let (reason, words) = judged(&reset, &lines, "");
        assert_eq!(reason, Reason::VmmEnded);
        assert!(words.contains(line), "{words}");
        let how = "init ended with status 1, after it said: usage: init PROGRAM";
        assert!(words.ends_with(how), "{words}");
        let kept = tail(console.clone(), reason);
        assert_eq!(kept.len(), TAIL_LINES);
        // Whoever shows eight of them shows the panic first.
        assert_eq!(kept[TAIL_LINES - 8], line);
        assert_eq!(tail(console, Reason::Stopped).len(), TAIL_LINES);
        // A signal ended this one, in silence.
        let killed = [
            "[ 1.0] x",
            "banger-guest-init: y",
            "[ 2.5] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
        ];
        let (_, words) = judged(&reset, &killed, "");
        assert!(words.ends_with("init was ended by signal 11 (SIGSEGV)"), "{words}");
        // What a user of the guest's writes is not the kernel's, nor guest-init's.
        let forged = [
            "| [ 1.0] Kernel panic - not syncing: forged",
            "| banger-guest-init: gave up: forged too",
        ];
        assert_eq!(judged(&reset, &forged, "").0, Reason::GuestShutdown);
        let early = end(Stage::Launched, Why::Guest(Event::GuestReset), VmmEnd::Status(0));
        let (_, words) = judged(&early, &forged, "");
        assert!(!words.contains("forged"), "{words}");
    }

    #[test]
    fn what_firecracker_wrote_counts_more_than_its_status() {
        let kind = Some(Vmm::Firecracker);
        let over = VmmEnd::Status(0);
        let quiet = End { kind, ..end(Stage::Launched, Why::Unasked, over) };
        let (reason, words) = judged(&quiet, &[], "1 the supervisor of 'web' begins\n");
        assert_eq!(reason, Reason::VmmEnded);
        assert!(words.contains("before its agent answered"), "{words}");
        let ready = End { kind, ..end(Stage::Ready, Why::Unasked, over) };
        assert_eq!(judged(&ready, &[], "").0, Reason::GuestShutdown);
        let said = "1 the supervisor of 'web' begins\n2026 [web:fc_vcpu 0] Received \
                    KVM_EXIT_INTERNAL_ERROR signal\n2026 [web:main] Vmm is stopping.\n";
        for end in [&quiet, &ready] {
            let (reason, words) = judged(end, &[], said);
            assert_eq!(reason, Reason::VmmEnded);
            let wanted = "Firecracker gave up: Received KVM_EXIT_INTERNAL_ERROR signal";
            assert!(words.starts_with(wanted), "{words}");
        }
        // What it wrote in the run before is over.
        let again = format!("{said}9 the supervisor of 'web' begins\n");
        assert_eq!(judged(&ready, &[], &again).0, Reason::GuestShutdown);
        let slow = End { kind, ..end(Stage::Launched, Why::TooSlow(Duration::ZERO), over) };
        assert!(judged(&slow, &[], "").1.contains("no power button"));
    }

    #[test]
    fn what_the_vmm_said_last_is_passed_on() {
        let dead = end(Stage::Preparing, Why::Unasked, VmmEnd::Status(1));
        let (_, words) = judged(&dead, &[], "1 begins\nqemu-system-x86_64: no such device\n");
        assert!(words.ends_with("status 1: qemu-system-x86_64: no such device"), "{words}");
        let shot = end(Stage::Ready, Why::Unasked, VmmEnd::Signal(9));
        assert!(judged(&shot, &[], "").1.contains("SIGKILL"));
    }
}
