//! Ctrl-C while files are made: what is half made goes first.

use banger_cli::note;
use banger_doc::{Context, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::Pid;
use std::{
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// So many signals end the program, whatever it is at.
const ENOUGH: u32 = 3;

/// The signals that end a program, as they are noticed here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    seen: Arc<Mutex<Seen>>,
    /// Set when one came.
    pub(crate) came: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Seen {
    signal: Option<Signal>,
    streams: Vec<UnixStream>,
}

impl Signals {
    /// Watches from now on, in threads that are yet to begin too.
    pub(crate) fn watch() -> Result<Self> {
        let signals = Self::default();
        let set = set();
        set.thread_block().context("cannot watch for signals")?;
        let (seen, came) = (signals.seen.clone(), signals.came.clone());
        thread::spawn(move || {
            if let Ok(signal) = set.wait() {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.signal = Some(signal);
                came.store(true, Ordering::Relaxed);
                // Whoever waits for the guest fails, and removes what it made.
                for stream in &seen.streams {
                    let _ = stream.shutdown(Shutdown::Both);
                }
                drop(seen);
                give_up_after_more(set);
            }
        });
        Ok(signals)
    }

    /// Has a signal end this stream.
    pub(crate) fn guard(&self, stream: UnixStream) -> Result<UnixStream> {
        let copy = stream.try_clone().context("cannot copy a stream")?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.signal.is_some() {
            let _ = copy.shutdown(Shutdown::Both);
        }
        seen.streams.push(copy);
        Ok(stream)
    }

    /// Ends as the signal would have ended this program, if one came.
    pub(crate) fn obey(&self) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signal) = seen.signal {
            end_by(signal);
        }
    }
}

/// Ends this program as a signal does.
fn end_by(signal: Signal) {
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set()), None);
    let _ = kill(Pid::this(), signal);
}

/// Ends a program that one signal did not at the third: removing what it made may take long, or a disk
/// of the host not answer.
fn give_up_after_more(set: SigSet) {
    let mut last = Signal::SIGTERM;
    for _ in 1..ENOUGH {
        last = set.wait().unwrap_or(last);
    }
    note(
        "banger-vm-cp: this was the third signal; what was half made may be left: 'ls -A' shows it",
    );
    end_by(last);
}

fn set() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}
