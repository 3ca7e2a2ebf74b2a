//! Holds VMs still: their guests' processors stand, their memory stays.
//!
//! Writes `wanted.json` and waits until the supervisor answers in `running.json`.

use banger_cli::Out;
use banger_doc::{Context, Desire, Error, Name, Refused, Result, Status, View, Wanted};
use banger_state::{State, VmFolder, Watch};
use std::{process::ExitCode, time::Duration};

/// How long a supervisor may take to answer.
const LIMIT: Duration = Duration::from_secs(20);

/// Hold VMs still
///
/// A paused VM keeps its memory and its connections; 'banger vm resume' lets it run on.
#[derive(clap::Parser)]
#[command(name = "banger-vm-pause", version)]
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
        |name| pause(&state.vm(name)?),
        |view| format!("{}: {}", view.vm.name, view.status),
    )
}

fn pause(folder: &VmFolder) -> Result<View> {
    let name = folder.name();
    let watch = Watch::new(folder)?;
    let before = refused(&folder.view()?);
    match folder.status()? {
        // One that boots is held still as well, once its VMM runs it.
        Status::Running | Status::Starting => folder.ask(&Wanted::new(Desire::Paused))?,
        Status::Paused => return folder.view(),
        status => {
            return Err(Error::conflict(format!("VM '{name}' is {status}"))
                .hint(format!("'banger vm start {name}' starts it")));
        }
    }
    let look = || -> Result<Option<View>> {
        let view = folder.view()?;
        let refused = refused(&view).filter(|refused| before.as_ref() != Some(refused));
        if let Some(refused) = refused {
            // Or the next request of anybody's would be for a pause again.
            folder.ask(&Wanted::new(Desire::Running))?;
            return Err(Error::from(refused))
                .with_context(|| format!("VM '{name}' cannot be paused"));
        }
        match view.status {
            Status::Paused => Ok(Some(view)),
            status if !status.is_live() => {
                Err(Error::failed(format!("VM '{name}' ended instead of being paused"))
                    .hint(format!("'banger vm show {name}' tells how it ended")))
            }
            _ => Ok(None),
        }
    };
    watch.until(LIMIT, look)?.ok_or_else(|| {
        Error::failed(format!("VM '{name}' is not paused after {} s", LIMIT.as_secs()))
            .hint(format!("'banger vm show {name}' tells how it stands"))
    })
}

fn refused(view: &View) -> Option<Refused> {
    view.running.as_ref()?.refused_for(Desire::Paused).cloned()
}
