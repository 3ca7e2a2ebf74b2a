//! `bench NAME`: figures beside their budgets (medians of several runs, the compared things in
//! turn); a missed budget is a failure.

mod boot;
mod create;
mod image;
mod kvm;
mod net;
mod start;
mod workspace;

use crate::{
    Result, build,
    run::{self, cargo, target},
    setup,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_mins(10);

/// Takes the figures of `kvm` on the host that was made for them.
pub(crate) fn there() -> Result {
    kvm::there()
}

/// What a benchmark works with.
pub(crate) struct Bench {
    /// Where the programs are.
    bin: PathBuf,
    /// A folder of its own; its state is in `state`.
    dir: PathBuf,
    missed: Vec<String>,
}

pub(crate) fn run(name: &str, debug: bool) -> Result {
    let measure: fn(&mut Bench) -> Result = match name {
        "boot" => boot::measure,
        "create" => create::measure,
        "image" => image::measure,
        "kvm" => kvm::measure,
        "net" => net::measure,
        "start" => start::measure,
        "workspace" => workspace::measure,
        _ => {
            return Err(format!(
                "no benchmark '{name}': there are boot, create, image, kvm, net, start, workspace"
            ));
        }
    };
    setup::run()?;
    let bin = match (debug, name) {
        (true, _) => programs_for_tests()?,
        // One program does it all.
        (false, "image") => for_speed(&["--package", "banger-image-pull"])?,
        (false, _) => programs_for_speed()?,
    };
    let dir = target().join("bench");
    fs::create_dir_all(&dir)
        .map_err(|error| format!("cannot make '{}': {error}", dir.display()))?;
    let mut bench = Bench { bin, dir, missed: Vec::new() };
    measure(&mut bench)?;
    if bench.missed.is_empty() { Ok(()) } else { Err(bench.missed.join("; ")) }
}

fn programs_for_tests() -> Result<PathBuf> {
    build::run()?;
    Ok(target().join("debug"))
}

/// The profile `bench` is a release without its link time; cargo puts it where a release goes.
fn programs_for_speed() -> Result<PathBuf> {
    let bin = for_speed(&["--workspace"])?;
    // Every page of theirs is read at each boot, so they are as small as a release's.
    build::guest("release", &bin.join("guest"))?;
    Ok(bin)
}

fn for_speed(which: &[&str]) -> Result<PathBuf> {
    build_as("bench", which)?;
    Ok(target().join("release"))
}

fn build_as(profile: &str, which: &[&str]) -> Result {
    run::run(
        &format!("building with the profile '{profile}'"),
        cargo().args(["build", "--quiet", "--profile", profile]).args(which),
        Duration::from_hours(1),
    )
}

impl Bench {
    /// Builds the examples of a package as the programs are built, into `examples` beside them.
    fn examples(&self, package: &str) -> Result {
        let profile = if self.bin.ends_with("debug") { "dev" } else { "bench" };
        build_as(profile, &["--package", package, "--examples"])
    }

    /// Prepares one of banger's programs, in the benchmark's own state.
    fn program(&self, name: &str, words: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.args(words).env("BANGER_STATE", self.state());
        command
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Makes something once: what a run before this one made is used again.
    fn once(&self, mark: &str, make: impl FnOnce() -> Result) -> Result {
        let mark = self.dir.join(mark);
        if mark.exists() {
            return Ok(());
        }
        make()?;
        fs::write(&mark, "").map_err(|error| format!("cannot write '{}': {error}", mark.display()))
    }

    /// Says a figure and whether it keeps its budget.
    fn figure(&mut self, what: &str, value: f64, unit: &str, budget: Option<f64>) {
        let Some(budget) = budget else {
            run::say(&format!("{what:<44} {value:>9.2} {unit}"));
            return;
        };
        let kept = value <= budget;
        let word = if kept { "kept" } else { "MISSED" };
        run::say(&format!("{what:<44} {value:>9.2} {unit:<3} budget {budget:>7.2}  {word}"));
        if !kept {
            self.missed.push(format!("{what} is {value:.2} {unit}, its budget {budget:.2}"));
        }
    }
}

/// Runs a command to its end without a word, in milliseconds.
fn time(command: &mut Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let began = Instant::now();
    let status = run::status(command, LIMIT)?;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    if status.success() { Ok(took) } else { Err(format!("{command:?} ended with {status}")) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn text(path: &Path) -> &str {
    path.to_str().expect("because the tree's own paths are text")
}

/// Runs a shell script in a folder.
fn shell(dir: &Path, script: &str) -> Result {
    let mut shell = Command::new("sh");
    time(shell.args(["-euc", script]).current_dir(dir)).map(drop)
}
