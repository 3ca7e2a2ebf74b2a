//! A guest that has halted: its processors stand still, and no VMM is told of it.
//!
//! So do all that call `reboot(2)` to power a machine off that has no ACPI, as Firecracker's has none,
//! and `halt -f` everywhere. The kernel's last line says it (`kernel/reboot.c`). A line is no proof:
//! whoever is root in the guest can write one, so the agent is asked, too.

use banger_channel::control;
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The kernel's last words, at the highest priority there is.
const LAST_WORDS: [&str; 2] = ["reboot: System halted", "reboot: Power down"];
/// The kernel's longest such line, with its time.
const LONGEST: usize = 64;
/// How long an agent that is there may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long to wait before it is asked once more.
const AGAIN: Duration = Duration::from_millis(200);

/// Reads along on the console.
#[derive(Debug, Default)]
pub(crate) struct Console {
    /// The beginning of the line that is being written.
    line: Vec<u8>,
    is_last: bool,
    /// How often the last words were heard, and how often when it was asked whether they are true.
    times: u64,
    asked: u64,
    is_asked: bool,
}

impl Console {
    /// Hears what was written.
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    if !line.is_empty() {
                        self.is_last = is_last(&line);
                        self.times += u64::from(self.is_last);
                    }
                }
                b'\r' => {}
                byte if self.line.len() <= LONGEST => self.line.push(*byte),
                _ => {}
            }
        }
    }

    /// Says whether the kernel's last words are the last ones.
    pub(crate) fn says_so(&self) -> bool {
        self.is_last && self.line.is_empty()
    }

    /// Says whether to find out if they are true: once for the same words, and once at a time.
    pub(crate) fn ask(&mut self) -> bool {
        let asks = self.says_so() && self.asked != self.times && !self.is_asked;
        if asks {
            (self.asked, self.is_asked) = (self.times, true);
        }
        asks
    }

    /// It was found out.
    pub(crate) fn answered(&mut self) {
        self.is_asked = false;
    }

    /// What was found out of a guest that could not answer counts for nothing.
    pub(crate) fn doubt(&mut self) {
        self.asked = 0;
    }
}

fn is_last(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let words = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((time, words)) if time.trim().parse::<f64>().is_ok() => words,
        _ => &line,
    };
    LAST_WORDS.contains(&words)
}

/// Asks the agent whether it is there; says whether the guest is silent.
pub(crate) fn is_silent(channel: &Path, over: &AtomicBool) -> bool {
    let end = Instant::now() + ANSWER;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        if over.load(Ordering::Relaxed) || control::boot(channel, Duration::ZERO, left).is_ok() {
            return false;
        }
        thread::sleep(AGAIN.min(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_last_words_count_only_at_the_end() {
        let mut console = Console::default();
        let mut hears = |bytes: &[u8]| {
            console.hear(bytes);
            console.says_so()
        };
        assert!(!hears(b"a line\r\n[   12.5"));
        assert!(!hears(b"17263] reboot: System hal"));
        assert!(hears(b"ted\r\n"));
        assert!(hears(b"\r\n"));
        assert!(!hears(b"x"));
        assert!(hears(b"\nreboot: Power down\n"));
        for other in [
            &b"reboot: Restarting system\n"[..],
            b"| [ 1.0] reboot: System halted\n",
            b"[ x ] reboot: System halted\n",
            b"grep 'reboot: System halted'\n",
            b"[ 1.0] reboot: System halted, says a user\n",
        ] {
            let mut console = Console::default();
            console.hear(other);
            assert!(!console.says_so(), "{other:?}");
        }
        let mut flood = Console::default();
        flood.hear(&vec![b'x'; 1 << 20]);
        assert!(flood.line.len() <= LONGEST + 1);
    }

    #[test]
    fn it_is_asked_once_for_the_same_words_and_once_at_a_time() {
        let mut console = Console::default();
        assert!(!console.ask());
        console.hear(b"reboot: System halted\n");
        assert!(console.ask() && !console.ask());
        console.hear(b"reboot: System halted\n");
        assert!(!console.ask());
        console.answered();
        assert!(console.ask());
        console.answered();
        assert!(!console.ask());
        console.doubt();
        assert!(console.ask());
        console.answered();
        console.hear(b"it goes on\n");
        console.doubt();
        assert!(!console.ask());
    }
}
