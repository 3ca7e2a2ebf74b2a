//! Deletes VMs, disks and all.
//!
//! Takes the VM's lock, so no start comes between, and removes its folder whole. With `--force` asks
//! the supervisor of a running one to end first.

use banger_cli::Out;
use banger_doc::{Desire, Error, Name, Removed, Result, Wanted};
use banger_state::{Lock, State, VmFolder, Watch};
use std::{fs, os::unix::fs::MetadataExt, process::ExitCode, time::Duration};

/// How long a killed VM may take to end; its disks are checked in that time.
const END: Duration = Duration::from_secs(170);

/// Delete VMs and their disks
///
/// What is on the disks is lost. A running VM is refused without --force.
#[derive(clap::Parser)]
#[command(name = "banger-vm-delete", version)]
struct Args {
    /// Names of the VMs
    #[arg(value_name = "VM", required = true)]
    vms: Vec<Name>,
    /// Kill VMs that run
    #[arg(long, short)]
    force: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open_read_only()?;
    let words = |removed: &Removed| format!("deleted VM '{}'", removed.name);
    out.each(&args.vms, |name| delete(&state, name, args.force), words)
}

fn delete(state: &State, name: &Name, force: bool) -> Result<Removed> {
    let folder = state.vm(name)?;
    // Held until the folder is gone: whoever waits to start this VM then finds it deleted.
    let _lock = lock(&folder, force)?;
    let freed_bytes = allocated(&folder);
    state.vms().remove(name, |_| Ok(()))?;
    Ok(Removed { what: "vm".into(), name: name.to_string(), freed_bytes, dry_run: false })
}

fn lock(folder: &VmFolder, force: bool) -> Result<Lock> {
    let name = folder.name();
    // Somebody may start it again between its end and the lock.
    for _ in 0..3 {
        if let Some(lock) = folder.try_lock()? {
            return Ok(lock);
        }
        if !force {
            return Err(Error::conflict(format!("VM '{name}' is running")).hint(format!(
                "'banger vm stop {name}' first, or 'banger vm delete --force {name}'"
            )));
        }
        let watch = Watch::new(folder)?;
        folder.ask(&Wanted::new(Desire::Killed))?;
        watch.until_gone(folder, END)?;
    }
    Err(Error::conflict(format!("VM '{name}' does not end, or is started again and again"))
        .hint(format!("'banger vm show {name}' tells how it stands")))
}

/// Returns what the VM takes on disk; its files may be sparse.
fn allocated(folder: &VmFolder) -> u64 {
    let entries = fs::read_dir(folder.path()).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.blocks() * 512)).sum()
}
