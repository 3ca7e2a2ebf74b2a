//! Prints what a guest changed since it was prepared, as a patch for `git apply` or as mails for `git am`.
//!
//! Reads the guest's files, through the VM's channel or from the disks of one that does not run, and leaves
//! them, their index and references
//! untouched; keeps a copy of the patch in `exports/`, writes the patch and, with `--output` or
//! `--mark`, into `vms/NAME/workspaces/ID/` that it was handed over. Without `--output` its stdout is the
//! patch, also on failure.

mod output;

use banger_cli::{Out, Screen, interrupt, note};
use banger_config::Config;
use banger_doc::{
    Context, Document, Error, ExportCopy, ExportForm, Kind, Name, Result, WorkspaceExport,
};
use banger_state::{State, clock_ms};
use banger_workspace::{Export, Want, budget, files_of, folder, or_more_time};
use std::{
    io::{ErrorKind, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

/// Print what a guest changed, as a patch
///
/// The patch holds what the guest did since it was prepared: commits, edits, new files that no rule ignores,
/// deletions and modes, binary files too. 'git apply --allow-empty' puts it onto the checkout that was
/// prepared, as it lies there; it takes that option to be content where nothing changed. Printing the patch
/// does not count as bringing it out, since nobody can tell what became of it; a copy of it is kept, which
/// 'banger workspace exports' shows.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-workspace-export", version)]
struct Args {
    /// The VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// Write the patch to this file, which appears whole
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Print how much changed in each file instead of the patch; nothing counts as exported by it
    #[arg(long, conflicts_with = "output")]
    stat: bool,
    /// Make mails for 'git am' in place of one patch: the guest's commits with their messages, authors and
    /// dates, and last what is not committed
    #[arg(long, conflicts_with = "stat")]
    commits: bool,
    /// Say that what is printed is kept elsewhere, so that it counts as exported
    #[arg(long, conflicts_with_all = ["output", "stat"])]
    mark: bool,
    /// Which workspace, by its place in the guest; needed if the VM has several
    #[arg(long, value_name = "DIR")]
    guest_path: Option<String>,
    /// The commit that the patch is to apply to, or 'prepared' for the one that was prepared, instead of
    /// what went in
    #[arg(long, value_name = "COMMIT")]
    base_commit: Option<String>,
    /// How long the guest may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
}

fn main() -> ExitCode {
    banger_cli::main_raw(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let config = Config::load()?;
    let state = State::open()?;
    let vm = state.vm(&args.vm)?;
    let dir = folder(&vm, args.guest_path.as_deref())?;
    if let Some(path) = &args.output {
        output::check(path)?;
    }
    let want = Want {
        base_commit: args.base_commit,
        stat: args.stat,
        commits: args.commits,
        configured: config.git_dirs(),
    };
    let form = if args.commits { ExportForm::Mbox } else { ExportForm::Patch };
    let budget = budget(&vm, Duration::from_secs(args.timeout))?;
    let files = files_of(&vm, budget.clone());
    let made = Export::make(&dir, &files, &want);
    let mut export = made.map_err(|error| or_more_time(error, &budget))?;
    export.notes.iter().for_each(|text| out.note(&format!("note: {text}")));
    // Before anybody can see a byte of it: whatever becomes of those, this one is there.
    let is_kept = !args.stat && export.size_bytes > 0;
    let copy = is_kept.then(|| keep(&state, &args.vm, &export, form)).transpose()?;
    if is_kept && let Err(error) = prune(&state, &config) {
        out.note(&format!("note: {}", error.chain()));
    }
    let Some(path) = args.output else {
        print(&mut export, args.mark).map_err(|error| and_the_copy(error, copy.as_ref()))?;
        if args.mark {
            return export.done();
        }
        if let Some(copy) = &copy {
            out.note(&does_not_count(copy));
        }
        return Ok(());
    };
    // Until it is there whole, something lies beside it: an interrupt waits.
    interrupt::watch()?;
    let written = interrupt::settle(|| output::write(&path, &mut export.patch));
    written.map_err(|error| and_the_copy(error, copy.as_ref()))?;
    let document = WorkspaceExport {
        output: path.display().to_string(),
        form,
        size_bytes: export.size_bytes,
        base_commit: export.base_commit.clone(),
        copy: copy.map(|copy| copy.name),
        changes: export.changes.clone(),
        notes: export.notes.clone(),
    };
    export.done()?;
    if std::io::stdout().is_terminal() && !out.is_json() {
        let (count, s) =
            (document.changes.len(), if document.changes.len() == 1 { "" } else { "s" });
        note(&format!("{count} changed file{s} in '{}'", document.output));
        return Ok(());
    }
    out.line(&document.to_line())
}

/// Keeps a copy of an export where it outlives the VM.
fn keep(state: &State, vm: &Name, export: &Export, form: ExportForm) -> Result<ExportCopy> {
    let copy = ExportCopy {
        name: vm.clone(),
        vm: vm.clone(),
        guest_path: export.guest_path.clone(),
        host_path: export.host_path.clone(),
        form,
        base_commit: export.base_commit.clone(),
        size_bytes: export.size_bytes,
        files: export.changes.len() as u64,
        unix_ms: clock_ms(),
    };
    state.keep_export(copy, &export.patch)
}

/// Removes the copies that are older, or take more room, than is wanted.
fn prune(state: &State, config: &Config) -> Result<()> {
    let keep = config.exports;
    for (copy, _) in state.surplus_exports(keep.age(), keep.room(), clock_ms())? {
        match state.remove_export(&copy.name) {
            Err(error) if error.kind() == Kind::NotFound => {}
            other => drop(other?),
        }
    }
    Ok(())
}

/// Prints what was exported. A reader that goes away is an error only where all of it has to arrive.
fn print(export: &mut Export, whole: bool) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let copied =
        Screen::of_text().copy(&mut export.patch, &mut stdout).and_then(|()| stdout.flush());
    match copied {
        Err(error) if error.kind() == ErrorKind::BrokenPipe && !whole => Ok(()),
        other => other.context("cannot write the patch to stdout"),
    }
}

/// Says where the copy of an export lies that did not get to where it was to go.
fn and_the_copy(error: Error, copy: Option<&ExportCopy>) -> Error {
    let Some(copy) = copy else { return error };
    let hint = format!("'{}' prints its copy", printed(copy));
    let hint = error.hint_text().map_or_else(|| hint.clone(), |more| format!("{more}; {hint}"));
    error.hint(hint)
}

fn does_not_count(copy: &ExportCopy) -> String {
    let vm = &copy.vm;
    format!(
        "note: printing does not count as bringing it out; 'banger workspace apply {vm}', '--output FILE' or \
         '--mark' does. '{}' prints it again, from a copy",
        printed(copy)
    )
}

fn printed(copy: &ExportCopy) -> String {
    format!("banger workspace exports --print {}", copy.name)
}
