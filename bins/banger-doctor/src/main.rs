//! Says what the host lacks, and the command that mends it. Reads the host, the configuration and
//! the state; writes nothing.

mod choice;
mod host;
mod image;
mod remedy;
mod stored;
mod verdict;

use banger_cli::{Colour, Out, paint};
use banger_doc::{Check, Kind, Outcome, Result};
use std::process::ExitCode;

/// Where what a setting is set to begins.
const SETTING: usize = 26;

/// Check this host, and say how to mend what is missing
///
/// Shows the settings in force, and ends with whether VMs run here, and how. Exits with status 5 if a check fails; warnings do not count.
#[derive(clap::Parser)]
#[command(name = "banger-doctor", version)]
struct Args {}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(_: Args, out: &mut Out) -> Result<ExitCode> {
    let mut checks = host::checks();
    checks.extend(image::checks());
    checks.extend(choice::checks());
    checks.extend(stored::checks());
    for check in &checks {
        out.put(check, |_| String::new())?;
        if out.is_json() {
            continue;
        }
        let outcome = paint(colour(check.outcome), &check.outcome.to_string());
        out.paragraph(&format!("{outcome}  {}: {}", check.name, check.message), 6)?;
        if let Some(remedy) = &check.remedy {
            out.paragraph(&format!("      {remedy}"), 6)?;
        }
    }
    let settings = choice::settings();
    if !out.is_json() && !settings.is_empty() {
        out.line("\nsettings:")?;
    }
    for setting in &settings {
        out.put(setting, |_| String::new())?;
        if !out.is_json() {
            let line = format!("      {:<20}{}", setting.name, setting.message);
            out.paragraph(&line, SETTING)?;
        }
    }
    if !out.is_json() {
        let (worst, words) = verdict::of(&checks);
        out.paragraph(&format!("\n{}", paint(colour(worst), &words)), 6)?;
    }
    let failed = checks.iter().any(|check| check.outcome == Outcome::Fail);
    Ok(if failed { ExitCode::from(Kind::Unavailable.status()) } else { ExitCode::SUCCESS })
}

fn colour(outcome: Outcome) -> Colour {
    match outcome {
        Outcome::Pass => Colour::Green,
        Outcome::Warn => Colour::Yellow,
        Outcome::Fail => Colour::Red,
        Outcome::Info => Colour::Faint,
    }
}

fn pass(name: &str, message: impl Into<String>) -> Check {
    Check { name: name.into(), outcome: Outcome::Pass, message: message.into(), remedy: None }
}

fn info(name: &str, message: impl Into<String>) -> Check {
    Check { name: name.into(), outcome: Outcome::Info, message: message.into(), remedy: None }
}

fn warn(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check {
        name: name.into(),
        outcome: Outcome::Warn,
        message: message.into(),
        remedy: Some(remedy.into()),
    }
}

fn fail(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check {
        name: name.into(),
        outcome: Outcome::Fail,
        message: message.into(),
        remedy: Some(remedy.into()),
    }
}
