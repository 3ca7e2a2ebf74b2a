//! Says what the host lacks, and the command that mends it. Reads the host, the configuration and
//! the state; writes nothing.

mod choice;
mod host;
mod remedy;
mod stored;

use banger_cli::Out;
use banger_doc::{Check, Kind, Outcome, Result};
use std::process::ExitCode;

/// Check what this host offers, and say how to mend what is missing
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
        out.put(check, |check| {
            let mut words = format!("{}  {}: {}", check.outcome, check.name, check.message);
            if let Some(remedy) = &check.remedy {
                words.push_str("\n      ");
                words.push_str(remedy);
            }
            words
        })?;
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
