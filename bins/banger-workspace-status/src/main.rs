//! Says what host and guest have that the other lacks, and what would be lost with the VM.
//!
//! Reads the guest's files through the VM's channel, the host's repository, and the record in
//! `vms/NAME/workspace/`; with `--record` it writes what it found there, as `vm-stop` has it do.

use banger_cli::Out;
use banger_doc::{Change, Error, Name, Result, Work, WorkspaceStatus};
use banger_state::{State, VmFolder, place};
use banger_workspace::{at_stop, files_of, read, record_stop, stake, status};
use std::{fmt::Write as _, process::ExitCode};

/// Say what host and guest have that the other lacks
///
/// Of a VM that does not run, what was found when it was stopped.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-workspace-status", version)]
struct Args {
    /// The VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// Fail with status 4 if the VM holds work that was not exported, or if that is not known
    #[arg(long)]
    check: bool,
    /// Write down what the VM holds, for the time after its stop
    #[arg(long, conflicts_with = "check")]
    record: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let vm = State::open()?.vm(&args.vm)?;
    if args.check {
        return stake(&vm)?.refuse(args.vm.as_str());
    }
    if args.record {
        vm.must_run()?;
        return record_stop(&vm).map(drop);
    }
    let found = look(&vm)?;
    found.notes.iter().for_each(|note| out.note(&format!("note: {note}")));
    out.put(&found, said)
}

fn look(vm: &VmFolder) -> Result<WorkspaceStatus> {
    let dir = vm.join(place::VM_WORKSPACE);
    let record = read(&dir)?.ok_or_else(|| {
        Error::not_found(format!("VM '{}' has no workspace", vm.name()))
            .hint(format!("'banger workspace prepare {}' puts a repository into it", vm.name()))
    })?;
    if vm.status()?.is_live() {
        vm.must_run()?;
        status(&dir, Some(&files_of(vm)), None)
    } else {
        status(&dir, None, at_stop(vm, &record)?)
    }
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
