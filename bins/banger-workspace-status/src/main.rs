//! Says what host and guest have that the other lacks, and what would be lost with the VM.
//!
//! Reads the guest's files, through the VM's channel or from the disks of one that does not run, the host's
//! repository, and the records in `vms/NAME/workspaces/`.

use banger_cli::{Out, note};
use banger_config::Config;
use banger_doc::{Change, Name, Result, Work, WorkspaceStatus, visible};
use banger_state::State;
use banger_workspace::{budget, files_of, folder, or_more_time, records, stake, status};
use std::{fmt::Write as _, process::ExitCode, time::Duration};

/// Say what host and guest have that the other lacks
///
/// Of each workspace; the disks of a VM that does not run are read.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-workspace-status", version)]
struct Args {
    /// The VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// Only the workspace at this place in the guest
    #[arg(long, value_name = "DIR")]
    guest_path: Option<String>,
    /// Fail with status 4 if the VM holds work that was not exported, or if that is not known
    #[arg(long)]
    check: bool,
    /// How long the guest may take to be looked at, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    timeout: Duration,
}

/// Reads a time of at most a day.
fn seconds(word: &str) -> Result<Duration, String> {
    let seconds: f64 = word.parse().map_err(|_| "give a number of seconds".to_owned())?;
    let is_sane = (0.1..=86400.0).contains(&seconds);
    is_sane.then(|| Duration::from_secs_f64(seconds)).ok_or_else(|| "give 0.1 to 86400".to_owned())
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let vm = State::open()?.vm(&args.vm)?;
    let asked = args.guest_path.as_deref();
    if args.check {
        return stake(&vm, asked, args.timeout)?.refuse(args.vm.as_str());
    }
    let mut all = records(&vm)?;
    if asked.is_some() || all.is_empty() {
        let one = folder(&vm, asked)?;
        all.retain(|(dir, _)| *dir == one);
    }
    let is_live = vm.status()?.is_live();
    if is_live {
        vm.must_run()?;
    }
    let budget = budget(&vm, args.timeout)?;
    let files = files_of(&vm, budget.clone());
    let configured = Config::load()?.git_dirs();
    let is_one = all.len() == 1;
    let mut failures = Vec::new();
    for (dir, _) in &all {
        let found = match status(dir, &files, is_live, &configured) {
            Ok(found) => found,
            // What is not known of one keeps nobody from the others.
            Err(error) => {
                failures.push(or_more_time(error, &budget));
                continue;
            }
        };
        let of = |note: &String| {
            if is_one {
                format!("note: {note}")
            } else {
                format!("note: '{}': {note}", found.guest_path)
            }
        };
        found.notes.iter().for_each(|note| out.note(&of(note)));
        out.put(&found, |found| if is_one { said(found) } else { said_of(found) })?;
    }
    let mut failures = failures.into_iter();
    let first = failures.next();
    failures.for_each(|other| note(&format!("error: {}", other.chain())));
    first.map_or(Ok(()), Err)
}

/// Says of one of several workspaces which it is, then what is said of one.
fn said_of(found: &WorkspaceStatus) -> String {
    let lines: Vec<String> = said(found).lines().map(|line| format!("  {line}")).collect();
    format!("{}\n{}", visible(&found.guest_path, 4096), lines.join("\n"))
}

fn said(found: &WorkspaceStatus) -> String {
    let mut text = String::new();
    let mut part = |title: &str, changes: &[Change]| {
        if !changes.is_empty() {
            let _ = writeln!(text, "{title}:");
        }
        for change in changes {
            let _ = writeln!(text, "  {:<8}  {}", change.how, change.path.escape_debug());
        }
    };
    part("the guest has", &found.guest_changes);
    part("the host has", &found.host_changes);
    if !found.is_known {
        text.push_str("it is not known what the guest holds");
    } else if found.unexported.is_empty() {
        text.push_str("nothing in the guest would be lost");
    } else {
        let _ = write!(text, "not exported: {}", Work::list(&found.unexported));
    }
    text
}
