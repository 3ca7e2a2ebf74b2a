//! Random work on random repositories: the host has all that `unexported: []` says it has.
//!
//! A case that fails is printed as plain shell, without the steps that it does not need. `BANGER_CASES`
//! says how many are tried, `BANGER_SEED` with which one they begin.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod random;
mod world;

use banger_doc::{Context as _, WorkspaceMode};
use banger_workspace::{Export, Want, Wish};
use random::{Bed, Case, How};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{Read as _, Write as _},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};
use world::World;

/// A guest that is a directory of this machine's.
struct Near(World);

impl Bed for Near {
    fn top(&self) -> &Path {
        self.0.path()
    }

    fn on_host(&self, script: &str) {
        self.0.shell(&self.0.host(), &format!("set +eu\n{script}"));
    }

    fn in_guest(&self, script: &str) {
        self.0.shell(&self.0.guest(), &format!("set +eu\n{script}"));
    }

    fn bring(&self) {}

    fn fingerprint(&self) -> String {
        format!("{:?}", world::fingerprint(&self.0.path().join("guest")))
    }

    fn prepare(&self, how: How) -> Result<Option<String>, String> {
        let mode = if how.full { WorkspaceMode::FullCopy } else { WorkspaceMode::Shallow };
        let branch = how.branch.then(|| "task".to_owned());
        let wish = Wish { mode, include_untracked: how.untracked, branch, ..self.0.wish() };
        self.0.prepare(&wish).map(|record| record.base_commit).map_err(|error| error.chain())
    }

    fn unexported(&self) -> Result<Vec<String>, String> {
        let found = banger_workspace::status(&self.0.vm(), &self.0.files(), true, &[]);
        let words = |work: banger_doc::Work| work.words;
        found
            .map(|found| found.unexported.into_iter().map(words).collect())
            .map_err(|error| error.chain())
    }

    fn export(&self, of_commit: bool) -> Result<Vec<u8>, String> {
        let base_commit = of_commit.then(|| "prepared".to_owned());
        let want = Want { base_commit, ..Want::default() };
        let read = || {
            let mut export = Export::make(&self.0.vm(), &self.0.files(), &want)?;
            let mut patch = Vec::new();
            export.patch.read_to_end(&mut patch).context("cannot read the patch")?;
            export.done().map(|()| patch)
        };
        read().map_err(|error: banger_doc::Error| error.chain())
    }

    fn mails(&self) -> Result<Vec<u8>, String> {
        let base_commit = Some("prepared".to_owned());
        let want = Want { base_commit, commits: true, ..Want::default() };
        let read = || {
            let mut export = Export::make(&self.0.vm(), &self.0.files(), &want)?;
            let mut mails = Vec::new();
            export.patch.read_to_end(&mut mails).context("cannot read the mails")?;
            export.done().map(|()| mails)
        };
        read().map_err(|error: banger_doc::Error| error.chain())
    }

    fn keeps(&self, _unexported: &[String]) {}
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}

fn run(case: &Case) -> Result<(), String> {
    let bed = Near(World::new(""));
    case.run(&bed)
}

#[test]
fn a_host_has_all_that_is_said_to_be_exported() {
    let soaks = std::env::var_os("BANGER_SOAK").is_some();
    let (first, count) =
        (number("BANGER_SEED", 1), number("BANGER_CASES", if soaks { 5000 } else { 40 }));
    let begin = Instant::now();
    // A soak ends in time, however slow the machine is.
    let limit = if soaks { Duration::from_mins(50) } else { Duration::from_mins(2) };
    let (next, tried) = (AtomicU64::new(first), AtomicU64::new(0));
    let found = thread::scope(|scope| {
        let work = || {
            let mut found = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count || begin.elapsed() > limit {
                    return found;
                }
                tried.fetch_add(1, Ordering::Relaxed);
                let case = Case::new(seed);
                if let Err(wrong) = run(&case) {
                    found.push((case, wrong));
                    if !soaks {
                        next.store(first + count, Ordering::Relaxed);
                    }
                }
            }
        };
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    say(&format!("{} cases in {:.0} s", tried.into_inner(), begin.elapsed().as_secs_f64()));
    let mut kinds = BTreeMap::new();
    for (case, wrong) in found {
        kinds.entry(random::kind(&wrong)).or_insert_with(Vec::new).push((case, wrong));
    }
    let mut all = String::new();
    for cases in kinds.values() {
        let seeds: Vec<u64> = cases.iter().map(|(case, _)| case.seed).collect();
        let (case, wrong) = cases[0].0.shrunk(cases[0].1.clone(), run);
        let _ = writeln!(all, "\n{wrong}\nin {} cases: {seeds:?}\n{}", seeds.len(), case.script());
    }
    assert!(all.is_empty(), "{all}");
}

/// Keeps what was found, for whoever runs this.
fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "{words}");
}
