//! Starts VMs.
//!
//! Writes `wanted.json`, starts `banger-vm-supervise` apart from this program, and waits for
//! `running.json` to say that the guest has booted. The VM does not depend on this program.

mod starting;
mod told;

use banger_cli::{Out, interrupt, is_called};
use banger_doc::{Mark, Name, Result};
use banger_stages::Stages;
use banger_state::State;
use std::{process::ExitCode, time::Duration};

/// Start VMs and wait until they are ready
///
/// A guest that does not come up in time is kept running, for 'banger vm logs'. Ctrl-C ends the
/// waiting; what was begun comes up all the same.
#[derive(clap::Parser)]
#[command(name = "banger-vm-start", version)]
struct Args {
    /// Names of the VMs
    #[arg(value_name = "VM", required = true)]
    vms: Vec<Name>,
    /// How far to wait for the guest: agent (it answers) or booted (its init has finished what comes before
    /// logins)
    #[arg(long = "wait", value_name = "MARK", default_value_t = Mark::Booted)]
    mark: Mark,
    /// How long a guest may take, in seconds [default: 90 to its agent's answer, emulated 300, then 300]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
    /// Let the kernel tell all it does, and show the console on stderr meanwhile
    #[arg(long)]
    console: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open_read_only()?;
    let stages = Stages::new(out, args.console);
    let limit = args.timeout.map(Duration::from_secs);
    interrupt::watch()?;
    if !is_called() {
        let names: Vec<&str> = args.vms.iter().map(Name::as_str).collect();
        let names = names.join(" ");
        interrupt::say(Some(format!(
            "what was begun comes up all the same; 'banger vm wait {names}' waits for it, 'banger vm kill {names}' ends it"
        )));
    }
    let told = told::Told::read(&state);
    let how = starting::How { limit, mark: args.mark, console: args.console, told: &told };
    out.each(
        &args.vms,
        |name| starting::start(&state, &state.vm(name)?, &how, &stages),
        |_| String::new(),
    )
}
