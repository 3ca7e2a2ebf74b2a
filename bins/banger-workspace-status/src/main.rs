//! Says what host and guest have that the other lacks, and what would be lost with the VM.
//!
//! Reads the guest's files, through the VM's channel or from the disks of one that does not run, the host's
//! repository, and the record in `vms/NAME/workspace/`.

use banger_cli::Out;
use banger_config::Config;
use banger_doc::{Change, Error, Name, Result, Work, WorkspaceStatus};
use banger_state::{State, VmFolder, place};
use banger_workspace::{budget, files_of, or_more_time, read, stake, status};
use std::{fmt::Write as _, process::ExitCode, time::Duration};

/// Say what host and guest have that the other lacks
///
/// The disks of a VM that does not run are read.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-workspace-status", version)]
struct Args {
    /// The VM
    #[arg(value_name = "VM")]
    vm: Name,
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
    if args.check {
        return stake(&vm, args.timeout)?.refuse(args.vm.as_str());
    }
    let found = look(&vm, args.timeout)?;
    found.notes.iter().for_each(|note| out.note(&format!("note: {note}")));
    out.put(&found, said)
}

fn look(vm: &VmFolder, time: Duration) -> Result<WorkspaceStatus> {
    let dir = vm.join(place::VM_WORKSPACE);
    if read(&dir)?.is_none() {
        return Err(Error::not_found(format!("VM '{}' has no workspace", vm.name()))
            .hint(format!("'banger workspace prepare {}' puts a repository into it", vm.name())));
    }
    let configured = Config::load()?.git_dirs();
    let is_live = vm.status()?.is_live();
    if is_live {
        vm.must_run()?;
    }
    let budget = budget(vm, time)?;
    status(&dir, &files_of(vm, budget.clone()), is_live, &configured)
        .map_err(|error| or_more_time(error, &budget))
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
