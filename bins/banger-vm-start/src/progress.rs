//! What a person sees while guests come up.

use banger_cli::Out;
use banger_doc::Name;
use std::{io::Write, time::Instant};

/// Stages on stderr: one line that changes on a terminal, lines with names for several VMs;
/// elsewhere only what somebody must know.
pub(crate) struct Stages {
    live: bool,
    quiet: bool,
    several: bool,
    begun: Instant,
}

impl Stages {
    pub(crate) fn new(out: &Out, several: bool) -> Self {
        Self { live: out.is_live(), quiet: out.is_quiet(), several, begun: Instant::now() }
    }

    /// Says that a stage began.
    pub(crate) fn enter(&self, vm: &Name, stage: &str) {
        if self.live && !self.several {
            write(&format!("\r\x1b[K{vm}: {stage}"));
        }
    }

    /// Says something that somebody must know.
    pub(crate) fn note(&self, vm: &Name, text: &str) {
        if !self.quiet {
            write(&format!("{}{vm}: {text}\n", self.clear()));
        }
    }

    /// Says that the guest answers.
    pub(crate) fn ready(&self, vm: &Name) {
        if self.live {
            let took = self.begun.elapsed().as_secs_f32();
            self.note(vm, &format!("ready in {took:.1}s"));
        }
    }

    /// Takes the changing line away.
    pub(crate) fn end(&self) {
        if self.live {
            write(self.clear());
        }
    }

    fn clear(&self) -> &'static str {
        if self.live && !self.several { "\r\x1b[K" } else { "" }
    }
}

fn write(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
