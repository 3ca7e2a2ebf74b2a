//! Puts commits of the host's repository into a guest's.
//!
//! Reads the host's repository without changing a byte of it; writes objects and references of the guest's
//! repository, and the files of the branch that is checked out there, through the VM's channel, and into
//! `vms/NAME/workspaces/` what the guest then was given.

use banger_cli::Out;
use banger_config::Config;
use banger_doc::{Context, Error, Name, PushedRef, Result, WorkspacePush, visible};
use banger_state::State;
use banger_workspace::{Offer, Push, branch_of, budget, files_of, folder, or_more_time, read};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Put commits of the host's repository into a guest's
///
/// Objects go first, then references. A branch of the guest's moves forward alone unless '+' stands before it,
/// and one that is checked out there only if none of its files is changed, which then go along.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-workspace-push", version)]
struct Args {
    /// The VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// What goes where, as for 'git push': BRANCH, SRC:BRANCH, +SRC:BRANCH, :BRANCH [default: the current
    /// branch to its name]
    #[arg(value_name = "REFSPEC")]
    refspecs: Vec<String>,
    /// The repository, or a path inside it [default: the one that was prepared]
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::DirPath)]
    path: Option<PathBuf>,
    /// Say what would be done, and touch nothing
    #[arg(long)]
    dry_run: bool,
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
    let wanted: Vec<Push> =
        args.refspecs.iter().map(|text| Push::parse(text)).collect::<Result<_>>()?;
    let vm = State::open()?.vm(&args.vm)?;
    vm.must_run()?;
    let dir = folder(&vm, args.guest_path.as_deref())?;
    let record = read(&dir)?
        .ok_or_else(|| Error::not_found(format!("VM '{}' has no workspace there", args.vm)))?;
    let path = args.path.unwrap_or_else(|| record.host_path.clone().into());
    let mut trusted = Config::load()?.git_dirs();
    trusted.extend(record.trusted_git_dirs.iter().map(PathBuf::from).filter(|dir| dir.is_dir()));
    let wanted = if wanted.is_empty() { vec![current(&path, &trusted)?] } else { wanted };
    let budget = budget(&vm, Duration::from_secs(args.timeout))?;
    let files = files_of(&vm, budget.clone());
    let mut offer = Offer::make(&dir, &files).map_err(|error| or_more_time(error, &budget))?;
    let files = offer.writing(files);
    let done = offer
        .push(&files, &path, &trusted, &wanted, args.dry_run)
        .map_err(|error| or_more_time(error, &budget))?;
    let mut refused = Vec::new();
    let mut references = Vec::new();
    for (push, done) in wanted.iter().zip(done) {
        match done {
            Ok(done) => references.push(done),
            Err(why) => refused.push(format!("'{}': {why}", visible(&push.to, 200))),
        }
    }
    let host_path = path.canonicalize().context("cannot look at the repository")?;
    let host_path = host_path.display().to_string();
    let document =
        WorkspacePush { vm: args.vm.to_string(), host_path, references, notes: Vec::new() };
    if !document.references.is_empty() {
        out.put(&document, |document| {
            let lines: Vec<String> = document.references.iter().map(said).collect();
            lines.join("\n")
        })?;
    }
    if refused.is_empty() {
        return Ok(());
    }
    Err(Error::conflict(format!("VM '{}' did not take {}", args.vm, refused.join(", ")))
        .hint(format!("'banger workspace pull {}' shows what the guest has", args.vm)))
}

/// Returns the current branch as what is pushed to its name.
fn current(path: &Path, trusted: &[PathBuf]) -> Result<Push> {
    let branch = branch_of(path, trusted)?.ok_or_else(|| {
        Error::usage(format!("'{}' is on no branch", path.display()))
            .hint("'HEAD:BRANCH' says which branch of the guest's it goes to")
    })?;
    Ok(Push { from: Some(branch.clone()), to: branch, force: false })
}

fn said(done: &PushedRef) -> String {
    let name = visible(done.name.trim_start_matches("refs/heads/"), 200);
    match (&done.before, &done.after) {
        (before, after) if before == after => format!("{name}: as it was"),
        (_, None) => format!("{name}: deleted in the guest"),
        (None, _) => format!("{name}: new in the guest"),
        _ => format!("{name}: moved in the guest"),
    }
}
