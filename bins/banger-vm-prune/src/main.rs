//! Deletes every VM that does not run. Reads the shelf of VMs, runs `banger-vm-delete`.

use banger_cli::{Out, Program, human_bytes, note};
use banger_doc::{Error, Kind, Removed, Result, View};
use banger_state::{Room, State};
use std::{
    io::{BufRead, IsTerminal, Read, Write},
    path::Path,
    process::ExitCode,
};

/// Delete every VM that does not run
///
/// What is on their disks is lost. Asks first, unless --force, and leaves VMs alone that hold work
/// nobody exported, unless --lose-work.
#[derive(clap::Parser)]
#[command(name = "banger-vm-prune", version)]
struct Args {
    /// Accepted, since others want it: all that do not run are deleted
    #[arg(long, short, hide = true)]
    all: bool,
    /// Do not ask
    #[arg(long, short)]
    force: bool,
    /// Delete work that was not exported too
    #[arg(long)]
    lose_work: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    // One whose record cannot be read stays, and does not keep the others.
    let (views, damaged) = candidates()?;
    if views.is_empty() {
        out.note("no VM to delete");
        return damaged.map_or(Ok(()), Err);
    }
    if !args.force && !agreed(&views)? {
        out.note("nothing was deleted");
        return Ok(());
    }
    // A VM that was started meanwhile is refused there, and said.
    let (removed, error) = Program::new("banger-vm-delete")?
        .args(args.lose_work.then_some("--lose-work"))
        .args(views.iter().map(|view| view.vm.name.as_str()))
        .answer::<Removed>()?;
    removed.iter().try_for_each(|one| out.put(one, |one| format!("deleted VM '{}'", one.name)))?;
    error.or(damaged).map_or(Ok(()), Err)
}

/// Returns what would go, and the error of one that cannot be looked at.
fn candidates() -> Result<(Vec<View>, Option<Error>)> {
    let (mut views, mut damaged) = (Vec::new(), None);
    let state = match State::open_read_only() {
        Ok(state) => state,
        Err(error) if error.kind() == Kind::NotFound => return Ok((views, damaged)),
        Err(error) => return Err(error),
    };
    for name in state.vms().names()? {
        match state.vm(&name).and_then(|folder| folder.view()) {
            Ok(view) if !view.status.is_live() => views.push(view),
            Err(error) if error.kind() != Kind::NotFound => {
                damaged.get_or_insert(error);
            }
            _ => {}
        }
    }
    Ok((views, damaged))
}

/// Shows what would go and asks. Both go to stderr, so stdout keeps to documents.
fn agreed(views: &[View]) -> Result<bool> {
    let (count, they) = match views.len() {
        1 => ("1 VM".to_owned(), "its disks"),
        many => (format!("{many} VMs"), "their disks"),
    };
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage(format!("{count} would be deleted, and nobody is there to ask"))
            .hint("'banger vm prune --force' deletes without asking; VMs with work that was not exported stay"));
    }
    let rows = views.iter().map(|view| {
        let room = Room::of(Path::new(&view.folder)).allocated;
        [
            view.vm.name.to_string(),
            view.status.to_string(),
            view.vm.image.to_string(),
            human_bytes(room),
        ]
    });
    let head = ["NAME", "STATUS", "IMAGE", "DISK"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for [name, status, image, disk] in &rows {
        let [a, b, c] = widths;
        note(&format!("{name:<a$}  {status:<b$}  {image:<c$}  {disk}"));
    }
    let _ = write!(std::io::stderr(), "Delete {count} and {they}? [y/N] ");
    let mut answer = String::new();
    let _ = std::io::stdin().lock().take(64).read_line(&mut answer);
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
