//! Removes what nothing owns: folders half made or half removed, temporary files, things of a run
//! that ended without its supervisor. Touches nothing outside the state directory but control groups
//! named for its VMs, and nothing a living program holds a lock on.

use banger_cli::{Out, human_bytes};
use banger_doc::{Context, Document, Removed, Result, Vm};
use banger_state::{Room, Shelf, State, VmFolder, place};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Remove what killed programs left behind
///
/// VMs, images and kernels stay; 'banger vm prune' and 'banger image prune' are for those.
#[derive(clap::Parser)]
#[command(name = "banger-gc", version)]
struct Args {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open()?;
    let mut removed = Vec::new();
    let sweep = Sweep { root: state.root().to_owned(), dry_run: args.dry_run };
    sweep.shelf(&state.images(), &mut removed)?;
    sweep.shelf(&state.kernels(), &mut removed)?;
    sweep.shelf(&state.vms(), &mut removed)?;
    for name in state.vms().names()? {
        // A folder that vanished meanwhile was somebody else's to remove.
        if let Ok(vm) = state.vm(&name) {
            sweep.ended_run(&vm, &mut removed)?;
        }
    }
    for dir in [state.root().to_owned(), state.path(place::SSH)] {
        sweep.temporary_files(&dir, &mut removed)?;
    }
    for document in &removed {
        out.put(document, |removed| {
            let verb = if removed.dry_run { "would free" } else { "freed" };
            format!(
                "{verb} {} of {} '{}'",
                human_bytes(removed.freed_bytes),
                removed.what,
                removed.name
            )
        })?;
    }
    if removed.is_empty() {
        out.note("nothing to remove");
    }
    Ok(())
}

struct Sweep {
    root: PathBuf,
    dry_run: bool,
}

impl Sweep {
    /// Removes what a shelf lists as litter, and temporary files in its objects' folders.
    fn shelf<D: Document>(&self, shelf: &Shelf<D>, removed: &mut Vec<Removed>) -> Result<()> {
        let _lock = shelf.lock()?;
        for path in shelf.litter()? {
            self.remove("litter", &path, removed)?;
        }
        for name in shelf.names()? {
            self.temporary_files(&shelf.folder(&name), removed)?;
        }
        Ok(())
    }

    /// Removes the sockets and the initramfs of a run whose supervisor is gone.
    fn ended_run(&self, vm: &VmFolder, removed: &mut Vec<Removed>) -> Result<()> {
        let Some(_lock) = vm.try_lock()? else { return Ok(()) };
        let run = vm.join(place::VM_RUN);
        for entry in fs::read_dir(&run).into_iter().flatten().flatten() {
            self.remove("socket", &entry.path(), removed)?;
        }
        self.control_groups(&vm.vm()?, removed)
    }

    /// Removes the control groups that a root's VM was in, outside the state directory as they are:
    /// their name is the VM's identity.
    fn control_groups(&self, vm: &Vm, removed: &mut Vec<Removed>) -> Result<()> {
        for group in banger_machine::groups(&vm.id) {
            removed.push(Removed {
                what: "control group".into(),
                name: group.display().to_string(),
                freed_bytes: 0,
                dry_run: self.dry_run,
            });
        }
        if self.dry_run { Ok(()) } else { banger_machine::forget(&vm.id) }
    }

    /// Removes temporary files of writers that are gone: `.NAME.PID`.
    fn temporary_files(&self, dir: &Path, removed: &mut Vec<Removed>) -> Result<()> {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let writer = name
                .to_str()
                .and_then(|name| name.strip_prefix('.')?.rsplit_once('.')?.1.parse::<u32>().ok());
            if let Some(pid) = writer
                && !Path::new(&format!("/proc/{pid}")).exists()
            {
                self.remove("litter", &entry.path(), removed)?;
            }
        }
        Ok(())
    }

    fn remove(&self, what: &str, path: &Path, removed: &mut Vec<Removed>) -> Result<()> {
        let freed_bytes = Room::of(path).allocated;
        if !self.dry_run {
            let done = if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
            done.with_context(|| format!("cannot remove '{}'", path.display()))?;
        }
        let name = path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
        removed.push(Removed { what: what.into(), name, freed_bytes, dry_run: self.dry_run });
        Ok(())
    }
}
