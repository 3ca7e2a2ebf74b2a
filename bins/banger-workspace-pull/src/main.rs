//! Brings a guest's commits, and its uncommitted work as one, into the repository that was prepared.
//!
//! Reads the guest's files through the VM's channel; writes objects, `refs/remotes/VM/` and `refs/banger/VM/`
//! of the host's repository, once a remote in its settings, and into `vms/NAME/workspaces/` and `kept/` what
//! then counts as brought out.

use banger_cli::Out;
use banger_config::Config;
use banger_doc::{Error, Name, PulledRef, Result, WorkspacePull, shell_word, visible};
use banger_state::State;
use banger_workspace::{Keeper, Offer, budget, files_of, folder, folders, or_more_time, read};
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// How many references are named to a person.
const NAMED: usize = 10;

/// Bring a guest's commits and edits to the host
///
/// Branches of the guest become branches of a remote that is called as the VM is, 'web/main', and uncommitted
/// work 'web/wip', which 'git stash apply' takes. No file, index or branch of the host's changes.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-workspace-pull", version)]
struct Args {
    /// The VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// The repository, or a path inside it [default: the one that was prepared]
    #[arg(value_name = "PATH", value_hint = clap::ValueHint::DirPath)]
    path: Option<PathBuf>,
    /// Which workspace, by its place in the guest; needed if the VM has several
    #[arg(long, value_name = "DIR")]
    guest_path: Option<String>,
    /// How long the guest may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open()?;
    let vm = state.vm(&args.vm)?;
    let dir = folder(&vm, args.guest_path.as_deref())?;
    let record = read(&dir)?
        .ok_or_else(|| Error::not_found(format!("VM '{}' has no workspace there", args.vm)))?;
    let path = args.path.unwrap_or_else(|| record.host_path.clone().into());
    let mut trusted = Config::load()?.git_dirs();
    trusted.extend(record.trusted_git_dirs.iter().map(PathBuf::from).filter(|dir| dir.is_dir()));
    let budget = budget(&vm, Duration::from_secs(args.timeout))?;
    let files = files_of(&vm, budget.clone());
    let keeper = Keeper::of(&state, &vm)?;
    // One of several is named.
    let url = match folders(&vm)?.len() {
        1 => format!("banger::{}", args.vm),
        _ => format!("banger::{}:{}", args.vm, record.guest_path),
    };
    let pulled = Offer::make(&dir, &files)
        .and_then(|mut offer| offer.pull(&path, &trusted, &keeper, &url))
        .map_err(|error| or_more_time(error, &budget))?;
    pulled.notes.iter().for_each(|note| out.note(&format!("note: {note}")));
    out.put(&pulled, said)
}

fn said(pulled: &WorkspacePull) -> String {
    let line = |changed: &PulledRef| match changed.after {
        Some(_) if Some(&changed.name) == pulled.wip.as_ref() => {
            format!("{}: uncommitted work", visible(&changed.name, 200))
        }
        _ => moved(changed),
    };
    let mut lines: Vec<String> = pulled.changed.iter().take(NAMED).map(line).collect();
    if pulled.changed.len() > NAMED {
        lines.push(format!("and {} more", pulled.changed.len() - NAMED));
    }
    let is_branch = |changed: &&PulledRef| {
        changed.after.is_some() && Some(&changed.name) != pulled.wip.as_ref()
    };
    let branch = pulled.changed.iter().filter(is_branch).find(|changed| changed.commits != Some(0));
    let log = branch.map(|branch| {
        format!(
            "'git log ..{}' shows what is new, 'git merge {}' merges it",
            shell_word(&branch.name),
            shell_word(&branch.name)
        )
    });
    let wip = pulled
        .wip
        .as_ref()
        .map(|wip| format!("'git stash apply {}' brings in what is uncommitted", shell_word(wip)));
    let next: Vec<String> = log.into_iter().chain(wip).collect();
    lines.push(match (lines.is_empty(), next.is_empty()) {
        (true, true) => {
            format!("'{}' has all that {} has", visible(&pulled.host_path, 200), pulled.vm)
        }
        (false, true) => format!("it is all in '{}'", visible(&pulled.host_path, 200)),
        _ => next.join("; "),
    });
    lines.join("\n")
}

fn moved(changed: &PulledRef) -> String {
    let name = visible(&changed.name, 200);
    match (&changed.before, &changed.after, changed.commits) {
        (_, None, _) => format!("{name}: gone, the guest has no such thing any more"),
        (None, _, None) => format!("{name}: new"),
        (_, _, None) => format!("{name}: moved"),
        (before, _, Some(count)) => {
            let s = if count == 1 { "" } else { "s" };
            let is_new = if before.is_none() { "new, " } else { "" };
            format!("{name}: {is_new}{count} commit{s} that the host did not have")
        }
    }
}
