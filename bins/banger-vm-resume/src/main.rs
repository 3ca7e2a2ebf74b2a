//! Lets paused VMs run on.
//!
//! Writes `wanted.json` and waits until the supervisor answers in `running.json`.

use banger_cli::Out;
use banger_doc::{Context, Desire, Error, Name, Refused, Result, Status, View, Wanted};
use banger_state::{State, VmFolder, Watch};
use std::{process::ExitCode, time::Duration};

/// How long a supervisor may take to answer.
const LIMIT: Duration = Duration::from_secs(20);

/// Let paused VMs run on
///
/// The guest's clock is set at once; a VM that runs is left as it is.
#[derive(clap::Parser)]
#[command(name = "banger-vm-resume", version)]
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
    out.each(
        &args.vms,
        |name| resume(&state.vm(name)?),
        |view| format!("{}: {}", view.vm.name, view.status),
    )
}

fn resume(folder: &VmFolder) -> Result<View> {
    let name = folder.name();
    let watch = Watch::new(folder)?;
    let before = refused(&folder.view()?);
    match folder.status()? {
        Status::Paused => folder.ask(&Wanted::new(Desire::Running))?,
        Status::Running => return folder.view(),
        Status::Starting => {
            return Err(Error::conflict(format!("VM '{name}' is starting, and not paused"))
                .hint(format!("'banger vm wait {name}' waits until it is ready")));
        }
        status => {
            return Err(Error::conflict(format!("VM '{name}' is {status}"))
                .hint(format!("'banger vm start {name}' starts it")));
        }
    }
    let look = || -> Result<Option<View>> {
        let view = folder.view()?;
        let refused = refused(&view).filter(|refused| before.as_ref() != Some(refused));
        if let Some(refused) = refused {
            return Err(Error::from(refused))
                .with_context(|| format!("VM '{name}' cannot be resumed"));
        }
        match view.status {
            // One that was paused while it booted goes on booting.
            Status::Running | Status::Starting => Ok(Some(view)),
            status if !status.is_live() => {
                Err(Error::failed(format!("VM '{name}' ended instead of being running"))
                    .hint(format!("'banger vm show {name}' tells how it ended")))
            }
            _ => Ok(None),
        }
    };
    watch.until(LIMIT, look)?.ok_or_else(|| {
        Error::failed(format!("VM '{name}' is not running after {} s", LIMIT.as_secs()))
            .hint(format!("'banger vm show {name}' tells how it stands"))
    })
}

fn refused(view: &View) -> Option<Refused> {
    view.running.as_ref()?.refused_for(Desire::Running).cloned()
}
