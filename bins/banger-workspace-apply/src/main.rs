//! Puts what a guest changed onto the host's checkout, as edits of its files; the index stays as it is.
//!
//! Reads the guest's files, through the VM's channel or from the disks of one that does not run. Decides
//! about every file first, then writes to the checkout, and into `vms/NAME/workspaces/ID/` what it got.

use banger_cli::{Out, interrupt};
use banger_config::Config;
use banger_doc::{Name, Result, WorkspaceApply};
use banger_state::State;
use banger_workspace::{Apply, Onto, budget, files_of, folder_of, or_more_time, refusal};
use std::{fmt::Write as _, path::PathBuf, process::ExitCode, time::Duration};

/// Put what a guest changed onto a checkout of the host's
///
/// Commits, edits, new files that no rule ignores, deletions, modes and links become edits of the
/// checkout's files; its index and branches stay as they are. What both sides changed is merged.
/// Where that cannot be done, nothing is changed at all, and every path in conflict is named.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-workspace-apply", version)]
struct Args {
    /// The VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// The checkout, or a directory in it; the one that the workspace came from otherwise
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// Which workspace, by its place in the guest, if the VM has several [default: the one that was prepared from
    /// PATH]
    #[arg(long, value_name = "DIR")]
    guest_path: Option<String>,
    /// Say what would happen and change nothing; fail with status 4 if anything is in conflict
    #[arg(long)]
    check: bool,
    /// How long the guest may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let vm = State::open()?.vm(&args.vm)?;
    let dir = folder_of(&vm, args.guest_path.as_deref(), args.path.as_deref())?;
    let onto = Onto { path: args.path, configured: Config::load()?.git_dirs() };
    let budget = budget(&vm, Duration::from_secs(args.timeout))?;
    let files = files_of(&vm, budget.clone());
    let apply = Apply::make(&dir, &files, &onto);
    let apply = apply.map_err(|error| or_more_time(error, &budget))?;
    let done = if args.check {
        apply.plan()
    } else {
        // An interrupt waits until nothing lies ready on the host: it ends what prepares, or comes after the rest.
        interrupt::watch()?;
        interrupt::settle(|| apply.run(&interrupt::came))?
    };
    done.notes.iter().for_each(|note| out.note(&format!("note: {note}")));
    out.put(&done, said)?;
    if done.conflicts.is_empty() { Ok(()) } else { Err(refusal(args.vm.as_str(), &done)) }
}

fn said(done: &WorkspaceApply) -> String {
    let mut text = String::new();
    for conflict in &done.conflicts {
        let _ = writeln!(text, "{}", conflict.words);
        text.push_str(conflict.hunks.as_deref().unwrap_or_default());
    }
    if done.conflicts.is_empty() {
        if !done.is_applied {
            for change in &done.changes {
                let _ = writeln!(text, "  {:<8}  {}", change.how, change.path.escape_debug());
            }
        }
        text.push_str(&sum(done));
    }
    text.trim_end().to_owned()
}

/// Says in one line what changed where.
fn sum(done: &WorkspaceApply) -> String {
    let (count, root) = (done.changes.len(), &done.host_path);
    if count == 0 {
        return format!("nothing to change in '{root}': what the guest did is there");
    }
    let parts = ["modified", "added", "deleted"].map(|how| {
        let count = done.changes.iter().filter(|change| change.how == how).count();
        (count > 0).then(|| format!("{count} {how}"))
    });
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let s = if count == 1 { "" } else { "s" };
    let would = if done.is_applied { "changed" } else { "would change" };
    let merged = match done.merged.len() {
        0 => String::new(),
        count => format!("; {count} merged with what the host changed"),
    };
    format!("{count} file{s} {would} in '{root}': {}{merged}", parts.join(", "))
}
