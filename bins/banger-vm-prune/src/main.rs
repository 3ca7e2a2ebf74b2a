//! Deletes every VM that does not run. Reads the shelf of VMs, runs `banger-vm-delete`.

use banger_cli::{Out, Program, note};
use banger_doc::{Error, Kind, Removed, Result, View};
use banger_state::State;
use std::{
    io::{BufRead, IsTerminal, Write},
    process::ExitCode,
};

/// Delete every VM that does not run
///
/// What is on their disks is lost. Asks first, unless --force, and leaves VMs alone that hold work
/// nobody exported, unless --force.
#[derive(clap::Parser)]
#[command(name = "banger-vm-prune", version)]
struct Args {
    /// Do not ask, and delete work that was not exported
    #[arg(long, short)]
    force: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let views = candidates()?;
    if views.is_empty() {
        out.note("no VM to delete");
        return Ok(());
    }
    if !args.force && !agreed(&views)? {
        out.note("nothing was deleted");
        return Ok(());
    }
    // A VM that was started meanwhile is refused there, and said.
    let removed: Vec<Removed> = Program::new("banger-vm-delete")?
        .args(args.force.then_some("--lose-work"))
        .args(views.iter().map(|view| view.vm.name.as_str()))
        .documents()?;
    removed.iter().try_for_each(|one| out.put(one, |one| format!("deleted VM '{}'", one.name)))
}

fn candidates() -> Result<Vec<View>> {
    let state = match State::open_read_only() {
        Ok(state) => state,
        Err(error) if error.kind() == Kind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut views = Vec::new();
    for name in state.vms().names()? {
        match state.vm(&name).and_then(|folder| folder.view()) {
            Ok(view) if !view.status.is_live() => views.push(view),
            Err(error) if error.kind() != Kind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(views)
}

/// Shows what would go and asks. The question goes to stderr, so stdout keeps to documents.
fn agreed(views: &[View]) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage(format!(
            "{} VMs would be deleted, and nobody is there to ask",
            views.len()
        ))
        .hint("'banger vm prune --force' deletes them without asking"));
    }
    let width = views.iter().map(|view| view.vm.name.as_str().len()).max().unwrap_or(0);
    for view in views {
        note(&format!(
            "{:<width$}  {:<8} {}",
            view.vm.name,
            view.status.to_string(),
            view.vm.image
        ));
    }
    let _ = write!(std::io::stderr(), "Delete these {} VMs and their disks? [y/N] ", views.len());
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
