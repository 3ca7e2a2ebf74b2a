//! `fuzz`: throws broken input at everything that reads hostile input, for as long as one likes.
//!
//! libFuzzer does it, which learns from the code it reaches; its instrumentation is one that the
//! stable compiler has. See `tests/fuzz/README.md`.

use crate::{
    Result,
    run::{self, cargo, say, target},
    setup,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

/// What is fed; each is a program of `tests/fuzz`. The slowest come first.
const TARGETS: [&str; 13] = [
    "layer",
    "packed",
    "take",
    "relay",
    "offline",
    "repository",
    "staged",
    "refs",
    "config",
    "manifest",
    "index",
    "token",
    "reference",
];
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// An input that takes longer than this many seconds is a find.
const PATIENCE: u32 = 10;
/// So is one that needs more memory than this many MiB.
const MEMORY: u32 = 1024;

/// Reads `[--seconds N] [TARGET...]`.
pub(crate) fn run(words: &[&str]) -> Result {
    let (mut seconds, mut chosen) = (20, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if *word == "--seconds" {
            let number = words.next().and_then(|number| number.parse::<u32>().ok());
            seconds = number
                .filter(|number| *number > 0)
                .ok_or("'--seconds' wants a number from 1 on".to_owned())?;
        } else if let Some(target) = TARGETS.iter().find(|target| *target == word) {
            chosen.push(*target);
        } else {
            return Err(format!("no target '{word}': there are {}", TARGETS.join(", ")));
        }
    }
    if chosen.is_empty() {
        chosen = TARGETS.to_vec();
    }
    setup::run()?;
    let fuzz = Fuzz::build(seconds)?;
    // As many at once as there are processors: each uses little more than one.
    let queue = Mutex::new(chosen.iter());
    let found = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("because nobody panics").next();
                    let Some(target) = next else { return };
                    if let Err(said) = fuzz.target(target) {
                        say(&said);
                        found.lock().expect("because nobody panics").push(*target);
                    }
                }
            });
        }
    });
    let found = found.into_inner().expect("because nobody panics");
    if found.is_empty() { Ok(()) } else { Err(format!("finds in {}", found.join(", "))) }
}

struct Fuzz {
    bin: PathBuf,
    dir: PathBuf,
    seconds: u32,
}

impl Fuzz {
    fn build(seconds: u32) -> Result<Self> {
        let dir = target().join("fuzz");
        // Named, so that the flags are not for what runs while it is built.
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let mut build = cargo();
        // Its lock file follows when a crate of the tree names another one.
        build.args(["build", "--quiet", "--manifest-path", "tests/fuzz/Cargo.toml"]);
        build.args(["--target", &triple, "--target-dir"]).arg(&dir).env("RUSTFLAGS", FLAGS);
        run::run("building what fuzzes", &mut build, Duration::from_mins(30))?;
        let fuzz = Self { bin: dir.join(triple).join("debug"), dir, seconds };
        for folder in ["corpus", "finds"] {
            let path = fuzz.dir.join(folder);
            fs::create_dir_all(&path)
                .map_err(|error| format!("cannot make '{}': {error}", path.display()))?;
        }
        let mut seeds = Command::new(fuzz.bin.join("seeds"));
        run::run("seeds", seeds.arg(fuzz.dir.join("corpus")), Duration::from_mins(1))?;
        Ok(fuzz)
    }

    /// Feeds one target until the time is over; fails with what was found.
    fn target(&self, name: &str) -> Result {
        let log = self.dir.join(format!("{name}.log"));
        let file = fs::File::create(&log)
            .map_err(|error| format!("cannot make '{}': {error}", log.display()))?;
        let finds = self.dir.join("finds").join(format!("{name}-"));
        let mut fuzzer = Command::new(self.bin.join(name));
        fuzzer
            .arg(self.dir.join("corpus").join(name))
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-timeout={PATIENCE}"))
            .arg(format!("-rss_limit_mb={MEMORY}"))
            .arg(format!("-artifact_prefix={}", finds.display()))
            .args(["-max_len=65536", "-print_final_stats=1", "-use_value_profile=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        let limit = Duration::from_secs(u64::from(self.seconds) + 120);
        let status = run::status(&mut fuzzer, limit)?;
        let said = fs::read_to_string(&log).unwrap_or_default();
        if status.success() {
            let inputs = after(&said, "stat::number_of_executed_units:");
            let reached = after(&said, "cov:");
            say(&format!(
                "{name:<10} {inputs:>9} inputs in {} s, {reached} branches reached, nothing found",
                self.seconds
            ));
            return Ok(());
        }
        Err(self.find(name, &said, &log))
    }

    /// Says what was found, and how to see it again.
    fn find(&self, name: &str, said: &str, log: &Path) -> String {
        let words = said
            .lines()
            .skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR"))
            .take(6)
            .collect::<Vec<_>>()
            .join("\n");
        let input = after(said, "Test unit written to");
        format!(
            "{name}: a find\n{words}\nsee '{}'; again: {} {input}",
            log.display(),
            self.bin.join(name).display()
        )
    }
}

/// Returns the word after the last of these.
fn after<'a>(text: &'a str, what: &str) -> &'a str {
    let rest = text.rsplit_once(what).map_or("", |(_, rest)| rest);
    rest.split_whitespace().next().unwrap_or("?")
}
