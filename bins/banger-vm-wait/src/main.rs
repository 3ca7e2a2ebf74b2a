//! Waits until VMs are ready, or have ended. Reads only.

use banger_cli::Out;
use banger_doc::{Error, Name, Result, Status, View};
use banger_state::{State, VmFolder, Watch};
use std::{fmt, process::ExitCode, str::FromStr, time::Duration};

/// Wait until VMs are ready or stopped
#[derive(clap::Parser)]
#[command(name = "banger-vm-wait", version)]
struct Args {
    /// Names of the VMs
    #[arg(value_name = "VM", required = true)]
    vms: Vec<Name>,
    /// What to wait for: ready or stopped
    #[arg(long = "for", value_name = "STATE", default_value_t = Goal::Ready)]
    goal: Goal,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    timeout: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Goal {
    Ready,
    Stopped,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open_read_only()?;
    let limit = Duration::from_secs(args.timeout);
    out.each(&args.vms, |name| wait(&state.vm(name)?, args.goal, limit), |_| String::new())
}

fn wait(folder: &VmFolder, goal: Goal, limit: Duration) -> Result<View> {
    let name = folder.name();
    let look = || -> Result<Option<View>> {
        let view = folder.view()?;
        match (goal, view.status) {
            (Goal::Ready, Status::Running) => Ok(Some(view)),
            (Goal::Stopped, status) if !status.is_live() => Ok(Some(view)),
            (Goal::Ready, status) if !status.is_live() => {
                Err(Error::conflict(format!("VM '{name}' is {status}, so it will not be ready"))
                    .hint(format!("'banger vm start {name}' starts it")))
            }
            _ => Ok(None),
        }
    };
    Watch::new(folder)?.until(limit, look)?.ok_or_else(|| {
        Error::failed(format!("VM '{name}' is not {goal} after {} s", limit.as_secs()))
            .hint(format!("'banger vm show {name}' tells how it stands"))
    })
}

impl FromStr for Goal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "ready" => Ok(Self::Ready),
            "stopped" => Ok(Self::Stopped),
            _ => Err(Error::usage(format!("'{text}' is none of ready, stopped"))),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Stopped => "stopped",
        })
    }
}
