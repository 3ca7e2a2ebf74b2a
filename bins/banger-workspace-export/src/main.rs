//! Prints what a guest changed since it was prepared, as a patch for `git apply`.
//!
//! Reads the guest's files through the VM's channel and leaves them, their index and references
//! untouched; writes the patch and, with `--output` or `--mark`, into `vms/NAME/workspaces/ID/` that it was
//! handed over. Without `--output` its stdout is the patch, also on failure.

use banger_cli::{Out, Screen, note};
use banger_config::Config;
use banger_doc::{Context, Document, Name, Result, WorkspaceExport};
use banger_state::State;
use banger_workspace::{Export, Want, budget, files_of, folder, or_more_time};
use std::{
    fs::{self, File},
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Print what a guest changed, as a patch
///
/// The patch holds commits, edits, new files that no rule ignores, deletions and modes, binary files
/// too. `git apply --allow-empty` on a clean checkout of the commit that was prepared gives exactly
/// the guest's files; it takes that option to be content where nothing changed. Printing the patch
/// does not count as exporting it: nobody can tell what became of it.
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
    /// Say that what is printed is kept elsewhere, so that it counts as exported
    #[arg(long, conflicts_with_all = ["output", "stat"])]
    mark: bool,
    /// Which workspace, by its place in the guest; needed if the VM has several
    #[arg(long, value_name = "DIR")]
    guest_path: Option<String>,
    /// The commit that the patch is to apply to, instead of the one that was prepared
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
    let vm = State::open()?.vm(&args.vm)?;
    let dir = folder(&vm, args.guest_path.as_deref())?;
    vm.must_run()?;
    let want = Want {
        base_commit: args.base_commit,
        stat: args.stat,
        configured: Config::load()?.git_dirs(),
    };
    let budget = budget(&vm, Duration::from_secs(args.timeout))?;
    let files = files_of(&vm, budget.clone());
    let made = Export::make(&dir, &files, &want);
    let mut export = made.map_err(|error| or_more_time(error, &budget))?;
    export.notes.iter().for_each(|text| out.note(&format!("note: {text}")));
    let Some(output) = args.output else {
        let mut stdout = std::io::stdout().lock();
        let copied =
            Screen::of_text().copy(&mut export.patch, &mut stdout).and_then(|()| stdout.flush());
        copied.context("cannot write the patch to stdout")?;
        if args.mark {
            return export.done();
        }
        if !args.stat && export.size_bytes > 0 {
            out.note("note: a patch that is printed does not count as exported; '--output FILE' or '--mark' does");
        }
        return Ok(());
    };
    write_whole(&output, &mut export.patch)?;
    let document = WorkspaceExport {
        output: output.display().to_string(),
        size_bytes: export.size_bytes,
        base_commit: export.base_commit.clone(),
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

/// Writes beside the file and renames, so that a patch is there whole or not at all.
fn write_whole(path: &Path, patch: &mut File) -> Result<()> {
    let said = || format!("cannot write '{}'", path.display());
    let mut temporary = path.to_owned();
    temporary.as_mut_os_string().push(format!(".{}.tmp", std::process::id()));
    let mut write = || -> std::io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(&temporary)?;
        std::io::copy(patch, &mut file)?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(said)
}
