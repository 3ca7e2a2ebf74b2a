//! Stops VMs in order: their guests shut down, their disks come to rest.
//!
//! Runs `banger-workspace-status` for a VM with a workspace, so that it is known afterwards what it
//! holds. Writes `wanted.json` and waits until the supervisor has let go of the VM's lock.

use banger_cli::{Out, Program, note};
use banger_doc::{Desire, Error, Name, Result, Status, View, Wanted, WorkspaceStatus};
use banger_state::{State, VmFolder, Watch, place};
use std::{process::ExitCode, time::Duration};

/// What comes after the guest's own time: the last insistence, and checking the disks.
const AFTER: Duration = Duration::from_secs(200);

/// Stop VMs in order
///
/// A VM that does not run is left as it is. A guest that does not shut down in time is killed.
#[derive(clap::Parser)]
#[command(name = "banger-vm-stop", version)]
struct Args {
    /// Names of the VMs
    #[arg(value_name = "VM", required = true)]
    vms: Vec<Name>,
    /// How long a guest may take to shut down, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open_read_only()?;
    let grace = Duration::from_secs(args.timeout);
    out.each(&args.vms, |name| stop(&state.vm(name)?, grace), words)
}

fn stop(folder: &VmFolder, grace: Duration) -> Result<View> {
    let watch = Watch::new(folder)?;
    if folder.is_live()? {
        write_down_work(folder);
        let grace_ms = grace.as_millis() as u64;
        folder.ask(&Wanted { grace_ms, ..Wanted::new(Desire::Stopped) })?;
        if !watch.until_gone(folder, grace + AFTER)? {
            let name = folder.name();
            return Err(Error::failed(format!("VM '{name}' does not stop"))
                .hint(format!("'banger vm kill {name}' ends it at once")));
        }
    }
    folder.view()
}

/// Has it written down what the guest holds that was not exported. A guest that cannot be asked is
/// stopped all the same; then deleting it takes `--lose-work`.
fn write_down_work(folder: &VmFolder) {
    let has_workspace = folder.join(place::VM_WORKSPACE_DOCUMENT).exists();
    if !has_workspace || !matches!(folder.status(), Ok(Status::Running)) {
        return;
    }
    let written = Program::new("banger-workspace-status").and_then(|program| {
        program.args(["--record", folder.name().as_str()]).documents::<WorkspaceStatus>()
    });
    if let Err(error) = written {
        note(&format!("note: cannot tell what VM '{}' holds: {}", folder.name(), error.chain()));
    }
}

fn words(view: &View) -> String {
    let how = view.last_exit.as_ref().map_or("it was never started", |exit| &exit.message);
    format!("{}: {how}", view.vm.name)
}
