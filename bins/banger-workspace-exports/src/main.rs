//! Lists, prints and removes the copies of what was exported. Reads `exports/` in the state directory,
//! and removes from it what it is told to; `banger-workspace-export` writes there. With `--print` its
//! stdout is what was exported.

use banger_cli::{Out, Screen, ago, human_bytes};
use banger_doc::{Context, Error, ExportCopy, Kind, Name, Removed, Result};
use banger_state::{State, clock_s};
use std::{
    fs::File,
    io::{ErrorKind, Write},
    process::ExitCode,
};

/// Show the copies of what was exported
///
/// Each 'banger workspace export' leaves a copy of the patch that it brings out, which stays when the VM
/// goes: so a patch that was only printed, or got lost on its way, is there to be had again. Old ones go, and
/// the oldest where all take too much room; the newest stays.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-workspace-exports", version)]
struct Args {
    /// Only those of this VM, which may be gone
    #[arg(value_name = "VM", conflicts_with_all = ["print", "delete"])]
    vm: Option<Name>,
    /// Print what was exported once more
    #[arg(long, value_name = "EXPORT", conflicts_with = "delete")]
    print: Option<Name>,
    /// Remove this copy; may be repeated
    #[arg(long, value_name = "EXPORT")]
    delete: Vec<Name>,
}

fn main() -> ExitCode {
    // As the one who asks for it sees it: bytes of a patch are nobody's document.
    let prints = std::env::args_os()
        .any(|word| word == "--print" || word.as_encoded_bytes().starts_with(b"--print="));
    if prints { banger_cli::main_raw(run) } else { banger_cli::main(run) }
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = match State::open_read_only() {
        Ok(state) => state,
        Err(error) if error.kind() == Kind::NotFound => match named(&args) {
            Some(name) => return Err(absent(name)),
            None => return list(out, &[]),
        },
        Err(error) => return Err(error),
    };
    if let Some(name) = &args.print {
        return print(&state, name);
    }
    if !args.delete.is_empty() {
        let words = |removed: &Removed| format!("removed the export '{}'", removed.name);
        return out.each(&args.delete, |name| remove(&state, name), words);
    }
    let (mut copies, failure) = state.all_exports()?;
    copies.retain(|copy| args.vm.as_ref().is_none_or(|vm| copy.vm == *vm));
    // One that cannot be read does not hide the others.
    list(out, &copies).and(failure.map_or(Ok(()), Err))
}

/// Returns the copy that somebody names.
fn named(args: &Args) -> Option<&Name> {
    args.print.as_ref().or(args.delete.first())
}

fn absent(name: &Name) -> Error {
    Error::not_found(format!("no export '{name}'"))
        .hint("'banger workspace exports' shows what is there")
}

fn print(state: &State, name: &Name) -> Result<()> {
    let copy = ExportCopy { name: name.clone(), ..state.exports().get(name)? };
    let path = state.exported(&copy);
    let said = || format!("cannot read '{}'", path.display());
    let mut file = File::open(&path).with_context(said)?;
    let mut stdout = std::io::stdout().lock();
    let copied = Screen::of_text().copy(&mut file, &mut stdout).and_then(|()| stdout.flush());
    match copied {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.with_context(|| format!("cannot print '{}'", path.display())),
    }
}

fn remove(state: &State, name: &Name) -> Result<Removed> {
    let freed_bytes = state.remove_export(name)?;
    Ok(Removed { what: "export".into(), name: name.to_string(), freed_bytes, dry_run: false })
}

const HEAD: &[&str] = &["EXPORT", "VM", "WHEN", "SIZE", "FILES", "AGAINST", "WORKSPACE"];

fn list(out: &mut Out, copies: &[ExportCopy]) -> Result<()> {
    let now_s = clock_s();
    out.table(copies, HEAD, |copy| row(copy, now_s))?;
    if copies.is_empty() {
        out.suggest("no exports; 'banger workspace export VM' brings work out and keeps a copy");
    }
    Ok(())
}

fn row(copy: &ExportCopy, now_s: u64) -> Vec<String> {
    let against = copy
        .base_commit
        .as_deref()
        .map_or("what went in", |commit| commit.get(..12).unwrap_or(commit));
    vec![
        copy.name.to_string(),
        copy.vm.to_string(),
        ago(now_s.saturating_sub(copy.unix_ms / 1000)),
        human_bytes(copy.size_bytes),
        copy.files.to_string(),
        against.to_owned(),
        copy.guest_path.clone(),
    ]
}
