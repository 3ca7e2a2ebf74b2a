//! Throws broken input at what reads hostile input. See `README.md`.

mod mutate;
mod targets;

use mutate::Random;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};
use targets::{TARGETS, Target};

/// An input that takes longer than this is a find.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(said) => {
            eprintln!("{said}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    let usage = format!(
        "usage: banger-fuzz TARGET [--seconds N] [--seed N] [FILE...]\ntargets: {}",
        names.join(" ")
    );
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or(&usage)?;
    let target = TARGETS.iter().find(|target| target.name == name).ok_or(&usage)?;
    let (mut seconds, mut seed, mut files) = (20, None, Vec::new());
    while let Some(argument) = arguments.next() {
        let mut number =
            || arguments.next().and_then(|n| n.parse().ok()).ok_or_else(|| usage.clone());
        match argument.as_str() {
            "--seconds" => seconds = number()?,
            "--seed" => seed = Some(number()?),
            _ => files.push(argument),
        }
    }
    for file in &files {
        let input =
            std::fs::read(file).map_err(|error| format!("cannot read '{file}': {error}"))?;
        try_one(target, &input)?;
        println!("{file}: nothing found");
    }
    if !files.is_empty() {
        return Ok(());
    }
    let seed = seed.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64)
    });
    fuzz(target, Duration::from_secs(seconds), seed)
}

fn fuzz(target: &Target, time: Duration, seed: u64) -> Result<(), String> {
    let mut random = Random(seed | 1);
    let seeds = (target.seeds)();
    for seed in &seeds {
        try_one(target, seed)?;
    }
    let start = Instant::now();
    let mut count = 0u64;
    while start.elapsed() < time {
        let input = (target.mutate)(&seeds, &mut random);
        try_one(target, &input).map_err(|said| format!("{said}\nseed {seed}, input {count}"))?;
        count += 1;
    }
    println!("{}: {count} inputs in {} s, seed {seed}, nothing found", target.name, time.as_secs());
    Ok(())
}

/// Feeds one input; a find is kept in a file.
fn try_one(target: &Target, input: &[u8]) -> Result<(), String> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Relaxed) + 1;
    let path = format!("find-{}-{number}", target.name);
    let start = Instant::now();
    let done = std::sync::mpsc::channel::<()>();
    let found = std::thread::scope(|scope| {
        let (sender, receiver) = done;
        let waiting = &path;
        scope.spawn(move || {
            // Whoever hangs cannot be stopped: the process ends, the input stays.
            if receiver.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = std::fs::write(waiting, input);
                eprintln!("an input takes more than {PATIENCE:?}: see '{waiting}'");
                std::process::exit(1);
            }
        });
        let found = catch_unwind(AssertUnwindSafe(|| (target.feed)(input)));
        drop(sender);
        found
    });
    let what = match found {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(said)) => said,
        Err(_) => "it panicked".to_owned(),
    };
    std::fs::write(&path, input).map_err(|error| format!("cannot write '{path}': {error}"))?;
    Err(format!("{what} after {:?}: see '{path}'", start.elapsed()))
}
