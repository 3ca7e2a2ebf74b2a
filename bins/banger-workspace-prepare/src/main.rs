//! Puts a repository or a directory into a running VM.
//!
//! Reads the host's repository without changing a byte of it; writes the guest's files through the
//! VM's channel and the record in `vms/NAME/workspace/`.

use banger_cli::Out;
use banger_doc::{Name, Result, Workspace, WorkspaceMode, WorkspacePlan};
use banger_state::{State, place};
use banger_workspace::{GUEST_PATH, Wish, dry_run, files_of, prepare};
use std::{path::PathBuf, process::ExitCode};

/// Put a repository or a directory into a running VM
///
/// Tracked files go as they lie on the host, local edits and the state of the index included;
/// ignored files never go. A second prepare sends only what changed, and refuses to overwrite work
/// of the guest that was not exported.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-workspace-prepare", version)]
struct Args {
    /// The VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// The repository or directory, or a path inside a repository
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// Where it goes in the guest
    #[arg(long, value_name = "DIR", default_value = GUEST_PATH)]
    guest_path: String,
    /// How much of a repository goes: `shallow`, the last commits; `full_copy`, all of it with
    /// submodules
    #[arg(long, value_name = "MODE", default_value_t)]
    mode: WorkspaceMode,
    /// Make a branch of this name in the guest, and only there
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// What that branch begins at, instead of HEAD with the local edits
    #[arg(long, value_name = "REF", requires = "branch")]
    from: Option<String>,
    /// Take untracked files along that no rule ignores
    #[arg(long)]
    include_untracked: bool,
    /// Print what would go, and touch nothing; the VM need not run
    #[arg(long)]
    dry_run: bool,
    /// Overwrite work of the guest; move files aside that banger did not put there
    #[arg(short, long)]
    force: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let wish = Wish {
        path: args.path,
        guest_path: args.guest_path,
        mode: args.mode,
        branch: args.branch,
        from: args.from,
        include_untracked: args.include_untracked,
        force: args.force,
    };
    if args.dry_run {
        let plan = dry_run(&wish)?;
        plan.notes.iter().for_each(|note| out.note(&format!("note: {note}")));
        return out.put(&plan, listed);
    }
    let vm = State::open()?.vm(&args.vm)?;
    vm.must_run()?;
    let workspace = prepare(&vm.join(place::VM_WORKSPACE), &files_of(&vm), &wish)?;
    workspace.notes.iter().for_each(|note| out.note(&format!("note: {note}")));
    out.put(&workspace, |workspace| said(&args.vm, workspace))
}

fn listed(plan: &WorkspacePlan) -> String {
    let mut lines: Vec<String> =
        plan.files.iter().map(|path| path.escape_debug().to_string()).collect();
    lines.push(format!(
        "{} files, {}, would go to '{}' ({})",
        plan.files.len(),
        banger_cli::human_bytes(plan.size_bytes),
        plan.guest_path,
        plan.mode
    ));
    lines.join("\n")
}

fn said(vm: &Name, workspace: &Workspace) -> String {
    format!("{vm}: {} files are in '{}'", workspace.files, workspace.guest_path)
}
