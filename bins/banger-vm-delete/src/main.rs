//! Deletes VMs, disks and all.
//!
//! Runs `banger-workspace-status` for a VM with workspaces, and leaves one alone that holds work
//! nobody exported. Takes the VM's lock, so no start comes between, and removes its folder whole, after
//! what a killed apply of its work left lying ready in a checkout: nobody knows of that afterwards.
//! With `--force` asks the supervisor of a running one to end first.

use banger_cli::{Out, Program, note};
use banger_doc::{Desire, Error, Name, Removed, Result, Wanted};
use banger_state::{Lock, Room, State, VmFolder, Watch};
use banger_workspace::clear_ready;
use std::{process::ExitCode, time::Duration};

/// How long a guest may take to say what it holds; what is not known then may be work.
const LOOK: Duration = Duration::from_secs(30);
/// How long a killed VM may take to end; its disks are checked in that time.
const END: Duration = Duration::from_secs(170);

/// Delete VMs and their disks
///
/// What is on the disks is lost. A VM that runs is refused without --force, one that holds work
/// nobody exported without --lose-work.
#[derive(clap::Parser)]
#[command(name = "banger-vm-delete", version)]
struct Args {
    /// Names of the VMs
    #[arg(value_name = "VM", required = true)]
    vms: Vec<Name>,
    /// End VMs that run; one that holds work that was not exported stays all the same
    #[arg(long, short)]
    force: bool,
    /// Delete work that was not exported
    #[arg(long)]
    lose_work: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open_read_only()?;
    let words = |removed: &Removed| format!("deleted VM '{}'", removed.name);
    let act = |name: &Name| delete(&state, name, args.force, !args.lose_work);
    out.each(&args.vms, act, words)
}

fn delete(state: &State, name: &Name, force: bool, keeps_work: bool) -> Result<Removed> {
    let folder = state.vm(name)?;
    if keeps_work && !folder.workspaces()?.is_empty() {
        // One that runs and ends meanwhile would go without anybody having looked at its work.
        if !force && folder.try_lock()?.is_none() {
            return Err(runs(&folder));
        }
        let status = Program::new("banger-workspace-status")?;
        let seconds = LOOK.as_secs().to_string();
        status
            .args(["--quiet", "--check", "--timeout", &seconds, name.as_str()])
            .limit(LOOK + Duration::from_secs(5))
            .documents::<Removed>()
            .map_err(|error| {
                error.or_hint(format!(
                    "'banger workspace status {name}' takes longer to look at its work"
                ))
            })?;
    }
    // Held until the folder is gone: whoever waits to start this VM then finds it deleted.
    let _lock = lock(&folder, force)?;
    tidy_checkouts(&folder);
    let freed_bytes = Room::of(folder.path()).allocated;
    if let Ok(vm) = folder.vm() {
        // What a killed supervisor left of a root's VM; an empty group keeps no VM from going.
        let _ = banger_machine::forget(&vm.id);
    }
    let id = folder.vm().ok().map(|vm| vm.id);
    let removed = state.vms().remove(name, |_| Ok(()));
    // After it: another VM may have its ports and its address only once it is gone. It is where its name
    // is gone, also if some of its files could not be removed.
    let is_there = |id: &String| state.vms().get(name).is_ok_and(|vm| vm.id == *id);
    let released = match id.filter(|id| removed.is_ok() || !is_there(id)) {
        Some(id) => banger_lease::release(state, &id),
        None => Ok(()),
    };
    removed.and(released)?;
    Ok(Removed { what: "vm".into(), name: name.to_string(), freed_bytes, dry_run: false })
}

/// Removes what killed applies left lying ready on the host. What cannot go there keeps no VM from going.
fn tidy_checkouts(folder: &VmFolder) {
    for workspace in folder.workspaces().unwrap_or_default() {
        // Whoever is at work there tidies up after itself.
        let Ok(_lock) = Lock::exclusive_dir(&workspace, Duration::ZERO, "the workspace") else {
            continue;
        };
        if let Err(error) = clear_ready(&workspace, false) {
            note(&format!("note: {}", error.chain()));
        }
    }
}

fn lock(folder: &VmFolder, force: bool) -> Result<Lock> {
    let name = folder.name();
    // Somebody may start it again between its end and the lock.
    for _ in 0..3 {
        if let Some(lock) = folder.try_lock()? {
            return Ok(lock);
        }
        if !force {
            return Err(runs(folder));
        }
        let watch = Watch::new(folder)?;
        folder.ask(&Wanted::new(Desire::Killed))?;
        watch.until_gone(folder, END)?;
    }
    let goes_on =
        Error::conflict(format!("VM '{name}' does not end, or is started again and again"))
            .hint(format!("'banger vm show {name}' tells how it stands"));
    Err(folder.why_locked(goes_on))
}

fn runs(folder: &VmFolder) -> Error {
    let name = folder.name();
    let runs = Error::conflict(format!("VM '{name}' is running"))
        .hint(format!("'banger vm stop {name}' first, or 'banger vm delete --force {name}'"));
    folder.why_locked(runs)
}
