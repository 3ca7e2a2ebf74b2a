//! Shows VMs: what they are, how they stand, how their last run ended. Reads only.

mod page;

use banger_cli::Out;
use banger_doc::{Name, Result};
use banger_state::State;
use std::process::ExitCode;

/// Show VMs
#[derive(clap::Parser)]
#[command(name = "banger-vm-show", version)]
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
    out.each(&args.vms, |name| state.vm(name)?.view(), page::words)
}
