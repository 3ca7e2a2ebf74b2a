//! Ends VMs at once, as pulling the plug does.
//!
//! Writes `wanted.json` and waits until the supervisor has let go of the VM's lock. A supervisor
//! that does not obey is killed itself, and everything of the VM with it.

use banger_cli::Out;
use banger_doc::{Desire, Error, Name, Process, Result, View, Wanted};
use banger_state::{State, VmFolder, Watch, process_of};
use nix::{
    sys::signal::{Signal, kill as send},
    unistd::Pid,
};
use std::{process::ExitCode, time::Duration};

/// How long a supervisor may take to obey; the disks are checked in that time.
const OBEY: Duration = Duration::from_secs(150);
/// How long the kernel may take to end everything.
const VANISH: Duration = Duration::from_secs(20);

/// End VMs at once, without shutting their guests down
///
/// What a guest has not brought to its disks is lost. A VM that does not run is left as it is.
#[derive(clap::Parser)]
#[command(name = "banger-vm-kill", version)]
struct Args {
    /// Names of the VMs
    #[arg(value_name = "VM", required = true)]
    vms: Vec<Name>,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open_read_only()?;
    out.each(&args.vms, |name| kill(&state.vm(name)?), words)
}

fn kill(folder: &VmFolder) -> Result<View> {
    let watch = Watch::new(folder)?;
    if folder.is_live()? {
        let supervisor = folder.running()?.map(|running| running.supervisor);
        folder.ask(&Wanted::new(Desire::Killed))?;
        if !watch.until_gone(folder, OBEY)? {
            end(supervisor);
            if !watch.until_gone(folder, VANISH)? {
                return Err(Error::failed(format!("VM '{}' does not end", folder.name()))
                    .hint("'banger doctor' checks the host"));
            }
        }
    }
    folder.view()
}

/// Kills the supervisor, if the number still means the same process.
fn end(supervisor: Option<Process>) {
    if let Some(process) = supervisor.filter(|process| process_of(process.pid) == Some(*process)) {
        let _ = send(Pid::from_raw(process.pid as i32), Signal::SIGKILL);
    }
}

fn words(view: &View) -> String {
    let how = view.last_exit.as_ref().map_or("it does not run", |exit| &exit.message);
    format!("{}: {how}", view.vm.name)
}
