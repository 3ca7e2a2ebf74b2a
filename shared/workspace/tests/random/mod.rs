//! Random repositories and random work by real git, for whoever has a guest to put them into, and a judge
//! that asks git and the files alone what a host lacks.

#![allow(
    dead_code,
    clippy::unwrap_used,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "several test programs have this as a module"
)]

mod judge;
mod work;

use judge::{Clean, View};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// What every script of a case begins with, on either side.
pub const PROLOGUE: &str = "\
export GIT_AUTHOR_NAME=Ann GIT_AUTHOR_EMAIL=ann@example.org GIT_COMMITTER_NAME=Ann GIT_COMMITTER_EMAIL=ann@example.org
export GIT_AUTHOR_DATE='@1700000000 +0000' GIT_COMMITTER_DATE='@1700000000 +0000' GIT_EDITOR=true GIT_TEMPLATE_DIR=
export GIT_CONFIG_COUNT=3 GIT_CONFIG_KEY_0=protocol.file.allow GIT_CONFIG_VALUE_0=always
export GIT_CONFIG_KEY_1=init.defaultBranch GIT_CONFIG_VALUE_1=main GIT_CONFIG_KEY_2=gc.auto GIT_CONFIG_VALUE_2=0
put() { mkdir -p \"${1%/*}\"; echo \"$2\" >\"$1\"; }
add() { mkdir -p \"${1%/*}\"; echo \"$2\" >>\"$1\"; }
";

/// What has a guest. Host and guest have the same absolute paths below `top`: the repository is `host`
/// there, the workspace `guest/root/repo`.
pub trait Bed {
    fn top(&self) -> &Path;
    /// Runs a script on the host, in `host`.
    fn on_host(&self, script: &str);
    /// Runs a script in the guest, in the workspace.
    fn in_guest(&self, script: &str);
    /// Has all of the guest's files lie in `guest` on this machine.
    fn bring(&self);
    /// Says how the guest's files look, `.git` included.
    fn fingerprint(&self) -> String;
    /// Returns the commit that was prepared, or why nothing was.
    fn prepare(&self, how: How) -> Result<Option<String>, String>;
    fn unexported(&self) -> Result<Vec<String>, String>;
    /// Exports, which counts, and returns the patch: against what went in, or against what was prepared.
    fn export(&self, of_commit: bool) -> Result<Vec<u8>, String>;
    /// Exports mails to what was prepared, which counts, and returns them; an error where none can be made.
    fn mails(&self) -> Result<Vec<u8>, String>;
    /// Checks that the VM cannot be deleted with this work in it.
    fn keeps(&self, unexported: &[String]);
}

/// How a repository goes in.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub full: bool,
    pub untracked: bool,
    pub branch: bool,
}

/// One thing that happens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// To the host's repository before it goes in.
    Setup(String),
    /// In the guest; with whether a patch certainly holds all of it.
    Work(String, bool),
    /// To the host's repository meanwhile.
    Host(String),
    Export,
    /// Another prepare.
    Again,
}

/// A case: all that its number says.
#[derive(Clone, Debug)]
pub struct Case {
    pub seed: u64,
    pub how: How,
    pub steps: Vec<Step>,
}

impl Case {
    pub fn new(seed: u64) -> Self {
        work::case(seed)
    }

    /// Returns the case as plain shell.
    pub fn script(&self) -> String {
        let mut text = format!("# case {}, {:?}\n{PROLOGUE}", self.seed, self.how);
        for step in &self.steps {
            let _ = match step {
                Step::Setup(script) => writeln!(text, "( {script} )  # host, before it goes in"),
                Step::Work(script, _) => writeln!(text, "( {script} )  # guest"),
                Step::Host(script) => writeln!(text, "( {script} )  # host"),
                Step::Export => writeln!(text, "banger workspace export --mark VM >patch"),
                Step::Again => writeln!(text, "banger workspace prepare VM host"),
            };
        }
        text
    }

    /// Tries it in a bed; returns what is wrong.
    pub fn run(&self, bed: &impl Bed) -> Result<(), String> {
        Run::new(self, bed).run()
    }

    /// Returns a case that is wrong in the same way, without the steps that need not be there, and what is.
    pub fn shrunk(
        &self,
        wrong: String,
        run: impl Fn(&Self) -> Result<(), String>,
    ) -> (Self, String) {
        let (mut least, mut wrong) = (self.clone(), wrong);
        let mut size = (least.steps.len() / 2).max(1);
        loop {
            // The first makes the repository.
            let mut at = 1;
            while at < least.steps.len() {
                let mut less = least.clone();
                less.steps.drain(at..(at + size).min(less.steps.len()));
                match run(&less) {
                    Err(words) if kind(&words) == kind(&wrong) => (least, wrong) = (less, words),
                    _ => at += size,
                }
            }
            if size == 1 {
                return (least, wrong);
            }
            size /= 2;
        }
    }
}

/// Returns what is wrong without names and numbers.
pub fn kind(wrong: &str) -> String {
    let wrong = wrong.split(", but there is").next().unwrap_or_default();
    let outside = wrong.split(['\'', '"']).step_by(2).collect::<String>();
    outside.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit())).collect()
}

const AFTER: &str = "after the export";

/// A case on its way.
struct Run<'a, B> {
    case: &'a Case,
    bed: &'a B,
    base: Option<String>,
    /// What the guest had right after the last prepare.
    given: View,
    /// What the host has by the last patch.
    brought: Option<Clean>,
    /// Commits whose sum the host has.
    summed: BTreeSet<String>,
    /// Whether all work is of the sort that a patch holds.
    is_plain: bool,
}

impl<'a, B: Bed> Run<'a, B> {
    fn new(case: &'a Case, bed: &'a B) -> Self {
        let (given, summed) = (View::default(), BTreeSet::new());
        Self { case, bed, base: None, given, brought: None, summed, is_plain: true }
    }

    fn root(&self) -> PathBuf {
        self.bed.top().join("guest/root/repo")
    }

    fn view(&self) -> View {
        self.bed.bring();
        View::of(&self.root())
    }

    fn run(mut self) -> Result<(), String> {
        let mut setup = String::from(PROLOGUE);
        let setups = self.case.steps.iter().filter_map(|step| match step {
            Step::Setup(script) => Some(script),
            _ => None,
        });
        for script in setups {
            let _ = writeln!(setup, "( {script} ) >/dev/null 2>&1 </dev/null || :");
        }
        self.bed.on_host(&setup);
        // What is refused is a matter of other tests; it loses nothing.
        let Ok(base) = self.bed.prepare(self.case.how) else { return Ok(()) };
        self.base = base;
        Clean::keep(self.bed.top());
        self.given = self.view();
        self.is_as_on_the_host()?;
        let mut work = String::new();
        let steps = self.case.steps.iter().filter(|step| !matches!(step, Step::Setup(_)));
        for step in steps.chain([&Step::Export]) {
            if let Step::Work(script, plain) = step {
                self.is_plain &= plain;
                let _ = writeln!(work, "( {script} ) >/dev/null 2>&1 </dev/null || :");
                continue;
            }
            if !work.is_empty() {
                // A change within the clock's own grain would not be seen.
                self.bed.in_guest(&format!("{PROLOGUE}sleep 0.02\n{work}"));
                work.clear();
            }
            match step {
                Step::Host(script) => self
                    .bed
                    .on_host(&format!("{PROLOGUE}( {script} ) >/dev/null 2>&1 </dev/null || :")),
                Step::Export => self.export()?,
                _ => self.again()?,
            }
        }
        Ok(())
    }

    /// What goes in is what lies there, and no work.
    fn is_as_on_the_host(&self) -> Result<(), String> {
        let host = View::of(&self.bed.top().join("host"));
        let index = |view: &View| view.index.clone();
        if !self.case.how.branch && index(&host) != index(&self.given) {
            return Err(format!("the index went in as {:?}", self.given.index));
        }
        for (path, body) in &self.given.files {
            if host.files.get(path) != Some(body) {
                return Err(format!("'{}' went in changed: {body:?}", path.escape_ascii()));
            }
        }
        for path in host.files.keys() {
            let is_tracked = host.index.keys().any(|(known, _)| known == path);
            if is_tracked && !self.given.files.contains_key(path) {
                return Err(format!("'{}' did not go in", path.escape_ascii()));
            }
        }
        match self.bed.unexported()? {
            found if found.is_empty() => Ok(()),
            found => Err(format!("right after a prepare there is work: {found:?}")),
        }
    }

    fn export(&mut self) -> Result<(), String> {
        let now = self.view();
        let before = self.bed.fingerprint();
        let found = self.bed.unexported()?;
        self.judge("before the export", &now, &found)?;
        self.bed.keeps(&found);
        for way in ["mails", "as it lies", "to the commit"] {
            let (top, base) = (self.bed.top(), self.base.as_deref());
            let clean = match way {
                "mails" => match self.bed.mails() {
                    Ok(mails) => Clean::mailed(top, base, &mails)?,
                    // After a rebase and the like.
                    Err(words) if words.contains("does not follow") => continue,
                    Err(words) => return Err(format!("no mails: {words}")),
                },
                "as it lies" => {
                    Clean::lying(top, self.case.how.untracked, &self.bed.export(false)?)?
                }
                _ => Clean::make(top, base, &self.bed.export(true)?)?,
            };
            self.summed.extend(now.history.iter().cloned());
            self.brought = Some(clean);
            let found = self.bed.unexported()?;
            if self.bed.fingerprint() != before {
                return Err("an export touches the guest".into());
            }
            self.judge(AFTER, &now, &found)?;
            self.bed.keeps(&found);
            if self.is_plain && !found.is_empty() {
                return Err(format!("all of it was exported, and still: {found:?}"));
            }
        }
        Ok(())
    }

    /// Another prepare brings the host's news, or is refused; it never loses work.
    fn again(&mut self) -> Result<(), String> {
        let now = self.view();
        let before = self.bed.fingerprint();
        let found = self.bed.unexported()?;
        self.judge("before another prepare", &now, &found)?;
        let Ok(base) = self.bed.prepare(self.case.how) else {
            if self.bed.fingerprint() != before {
                return Err("a prepare that is refused touches the guest".into());
            }
            return match self.bed.unexported()? {
                after if after == found => Ok(()),
                after => Err(format!("after a prepare that is refused: {after:?}, not {found:?}")),
            };
        };
        self.base = base;
        Clean::keep(self.bed.top());
        if now.files != self.given.files {
            return Err("a prepare is done over work".into());
        }
        let after = self.view();
        let kept = after.facts(self.bed.top());
        let given = self.given.facts(self.bed.top());
        for fact in now.facts(self.bed.top()) {
            if !given.contains(&fact) && !kept.contains(&fact) {
                return Err(format!("another prepare loses {fact}"));
            }
        }
        self.given = after;
        self.brought = None;
        self.summed.clear();
        Ok(())
    }

    /// Says what neither the host has nor `found` names.
    fn judge(&self, when: &str, now: &View, found: &[String]) -> Result<(), String> {
        let is_fresh = when == AFTER;
        let brought = self.brought.as_ref();
        let lost = now.lost(self.bed.top(), &self.given, brought, &self.summed, is_fresh);
        for (what, names) in lost {
            let is_named =
                found.iter().any(|words| names.iter().any(|name| words.contains(name.as_str())));
            if !is_named {
                return Err(format!("{when}: {what}, but there is only {found:?}"));
            }
        }
        Ok(())
    }
}

/// Numbers that look random and are the same each time.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d);
        random.below(2);
        random
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) as usize) % end
    }

    pub fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    /// Once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
