//! Shows a person how far VMs have come: what each waits for, and for how long.

mod times;

pub use times::Times;

use banger_cli::Out;
use banger_doc::Name;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// How often a line that changes is drawn.
const TICK: Duration = Duration::from_millis(120);

/// No note is longer: it may name a file of anybody's.
const NOTE_COLUMNS: usize = 1200;

/// A changing line on stderr for each VM, where a person watches; elsewhere only what somebody must
/// know.
#[derive(Debug)]
pub struct Stages {
    lines: Option<MultiProgress>,
    live: bool,
    quiet: bool,
}

impl Stages {
    /// Sees whether a person watches. With the guest's console on the same stream there is no place for
    /// lines that change.
    pub fn new(out: &Out, console: bool) -> Self {
        let live = out.is_live();
        let lines = (live && !console).then(MultiProgress::new);
        // A dumb terminal has none, and is told in whole lines.
        let lines = lines.filter(|lines| !lines.is_hidden());
        Self { lines, live, quiet: out.is_quiet() }
    }

    /// Begins the line of a VM; dropped, it goes.
    pub fn line(&self, vm: &Name) -> Line {
        let shown = self.lines.as_ref().map(|lines| {
            let style = ProgressStyle::with_template("{spinner} {prefix}: {msg}, {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = lines.add(ProgressBar::new_spinner().with_style(style));
            bar.set_prefix(vm.to_string());
            bar.enable_steady_tick(TICK);
            (lines.clone(), bar)
        });
        Line { vm: vm.clone(), shown, live: self.live, quiet: self.quiet, begun: Instant::now() }
    }
}

/// The line of one VM.
#[derive(Debug)]
pub struct Line {
    vm: Name,
    shown: Option<(MultiProgress, ProgressBar)>,
    live: bool,
    quiet: bool,
    begun: Instant,
}

impl Line {
    /// Says that a stage began.
    pub fn enter(&self, stage: &'static str) {
        if let Some((_, bar)) = &self.shown {
            bar.set_message(stage);
        }
    }

    /// Returns how long it has been going on.
    pub fn took(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Says whether anybody hears what is noted.
    pub fn is_heard(&self) -> bool {
        !self.quiet
    }

    /// Says something that somebody must know.
    pub fn note(&self, text: &str) {
        let text = format!("{}: {text}", self.vm);
        if let Some((lines, _)) = &self.shown {
            let _ = lines.println(banger_doc::visible(&text, NOTE_COLUMNS));
        } else if !self.quiet {
            banger_cli::note(&text);
        }
    }

    /// Says to a person what came of it, and how long it took.
    pub fn done(&self, what: &str) {
        if self.live {
            self.note(&format!("{what} in {:.1}s", self.took().as_secs_f32()));
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some((lines, bar)) = &self.shown {
            bar.finish_and_clear();
            lines.remove(bar);
        }
    }
}
