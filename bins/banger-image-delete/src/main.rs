//! Deletes images no VM uses. Reads `vms/*/vm.json`; removes `images/NAME`. Files that were only
//! registered stay.

use banger_cli::{Out, human_bytes};
use banger_doc::{Error, Name, Removed, Result};
use banger_image::{freed_bytes, users};
use banger_state::State;
use std::process::ExitCode;

/// Delete images no VM uses
///
/// The files of a registered image are left where they are.
#[derive(clap::Parser)]
#[command(name = "banger-image-delete", version)]
struct Args {
    /// Names of the images
    #[arg(value_name = "IMAGE", required = true)]
    names: Vec<Name>,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open()?;
    out.each(
        &args.names,
        |name| delete(&state, name),
        |gone| format!("deleted image '{}', freed {}", gone.name, human_bytes(gone.freed_bytes)),
    )
}

fn delete(state: &State, name: &Name) -> Result<Removed> {
    let images = state.images();
    let freed_bytes = freed_bytes(&images.folder(name));
    // VMs are created under the lock that is held during the check.
    images.remove(name, |_| match users(state, name)? {
        None => Ok(()),
        Some(users) => {
            let words = users.replace(['\'', ','], "");
            Err(Error::conflict(format!("image '{name}' is used by {users}")).hint(format!(
                "'banger vm stop {words}', then 'banger vm delete {words}', deletes what uses it"
            )))
        }
    })?;
    Ok(Removed { what: "image".into(), name: name.to_string(), freed_bytes, dry_run: false })
}
