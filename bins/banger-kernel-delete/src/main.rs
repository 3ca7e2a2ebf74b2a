//! Deletes kernels no VM uses. Reads `vms/*/vm.json`; removes `kernels/NAME`.

use banger_cli::Out;
use banger_doc::{Error, Kernel, Name, Result};
use banger_state::State;
use std::process::ExitCode;

/// Delete kernels no VM uses
#[derive(clap::Parser)]
#[command(name = "banger-kernel-delete", version)]
struct Args {
    /// Names of the kernels
    #[arg(value_name = "KERNEL", required = true)]
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
        |kernel| format!("deleted kernel '{}'", kernel.name),
    )
}

fn delete(state: &State, name: &Name) -> Result<Kernel> {
    let kernel = state.kernels().get(name)?;
    let vms = state.vms();
    // VMs are created under the lock that is held during the check; the shelf of VMs is locked after
    // that of kernels, never before.
    state.kernels().remove(name, |_| {
        let uses = |vm: &Name| vms.get(vm).is_ok_and(|vm| vm.kernel == *name);
        let users: Vec<String> =
            vms.names()?.iter().filter(|vm| uses(vm)).map(ToString::to_string).collect();
        if users.is_empty() {
            return Ok(());
        }
        let words = users.join(" ");
        Err(Error::conflict(format!("kernel '{name}' is used by '{}'", users.join("', '"))).hint(
            format!(
                "'banger vm stop {words}', then 'banger vm delete {words}', deletes what uses it"
            ),
        ))
    })?;
    Ok(kernel)
}
