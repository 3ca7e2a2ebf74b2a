//! Says what the host lacks, and the command that mends it. Reads the host, the configuration and
//! the state; writes nothing.

mod choice;
mod host;
mod remedy;
mod stored;

use banger_cli::{Colour, Out, paint};
use banger_doc::{Check, Kind, Outcome, Result};
use std::process::ExitCode;

/// Check this host, and say how to mend what is missing
///
/// Exits with status 5 if a check fails; warnings do not count.
#[derive(clap::Parser)]
#[command(name = "banger-doctor", version)]
struct Args {}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(_: Args, out: &mut Out) -> Result<ExitCode> {
    let mut checks = host::checks();
    checks.extend(choice::checks());
    checks.extend(stored::checks());
    for check in &checks {
        if out.is_json() {
            out.put(check, |_| String::new())?;
            continue;
        }
        let colour = match check.outcome {
            Outcome::Pass => Colour::Green,
            Outcome::Warn => Colour::Yellow,
            Outcome::Fail => Colour::Red,
        };
        let outcome = paint(colour, &check.outcome.to_string());
        out.paragraph(&format!("{outcome}  {}: {}", check.name, check.message), 6)?;
        if let Some(remedy) = &check.remedy {
            out.paragraph(&format!("      {remedy}"), 6)?;
        }
    }
    let failed = checks.iter().any(|check| check.outcome == Outcome::Fail);
    Ok(if failed { ExitCode::from(Kind::Unavailable.status()) } else { ExitCode::SUCCESS })
}

fn pass(name: &str, message: impl Into<String>) -> Check {
    Check { name: name.into(), outcome: Outcome::Pass, message: message.into(), remedy: None }
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
