//! Waits until VMs have booted, or have ended. Reads only.

use banger_cli::Out;
use banger_doc::{Error, Mark, Name, Result, Status, View};
use banger_stages::Stages;
use banger_state::{State, VmFolder, Watch};
use std::{fmt, process::ExitCode, str::FromStr, time::Duration};

/// Wait until VMs have booted or stopped
#[derive(clap::Parser)]
#[command(name = "banger-vm-wait", version)]
struct Args {
    /// Names of the VMs
    #[arg(value_name = "VM", required = true)]
    vms: Vec<Name>,
    /// What to wait for: agent (it answers), booted (its init has finished what comes before logins) or
    /// stopped
    #[arg(long = "for", value_name = "STATE", default_value_t = Goal::Mark(Mark::Booted))]
    goal: Goal,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    timeout: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Goal {
    Mark(Mark),
    Stopped,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open_read_only()?;
    let limit = Duration::from_secs(args.timeout);
    let stages = Stages::new(out, false);
    let act = |name: &Name| {
        let folder = state.vm(name)?;
        let line = stages.line(name);
        line.enter(match args.goal {
            Goal::Mark(Mark::Agent) => "waiting for its agent",
            Goal::Mark(Mark::Booted) => "booting",
            Goal::Stopped => "waiting until it stops",
        });
        wait(&folder, args.goal, limit)
    };
    out.each(&args.vms, act, |_| String::new())
}

fn wait(folder: &VmFolder, goal: Goal, limit: Duration) -> Result<View> {
    let name = folder.name();
    let look = || -> Result<Option<View>> {
        let view = folder.view()?;
        let running = view.running.as_ref();
        match (goal, view.status) {
            (Goal::Mark(mark), Status::Running) if running.is_some_and(|r| r.has_reached(mark)) => {
                Ok(Some(view))
            }
            (Goal::Mark(_), Status::Paused) => {
                Err(Error::conflict(format!("VM '{name}' is paused, so it gets no further"))
                    .hint(format!("'banger vm resume {name}' lets it run on")))
            }
            (Goal::Stopped, status) if !status.is_live() => Ok(Some(view)),
            (Goal::Mark(_), status) if !status.is_live() => {
                Err(Error::conflict(format!("VM '{name}' is {status}, so it will not come up"))
                    .hint(format!("'banger vm start {name}' starts it")))
            }
            _ => Ok(None),
        }
    };
    if let Some(view) = Watch::new(folder)?.until(limit, look)? {
        return Ok(view);
    }
    let s = limit.as_secs();
    let running = folder.running().ok().flatten().filter(|running| running.agent_ms.is_some());
    Err(match (goal, running) {
        (Goal::Stopped, _) => Error::failed(format!("VM '{name}' is not stopped after {s} s")),
        (Goal::Mark(Mark::Booted), Some(running)) => {
            let waits = running.waits_in_words();
            Error::failed(format!("VM '{name}' has not finished booting after {s} s{waits}"))
        }
        _ => Error::failed(format!("the agent of VM '{name}' does not answer after {s} s")),
    }
    .hint(format!("'banger vm show {name}' tells how it stands")))
}

impl FromStr for Goal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "stopped" => Ok(Self::Stopped),
            mark => mark
                .parse()
                .map(Self::Mark)
                .map_err(|_| Error::usage(format!("'{text}' is none of agent, booted, stopped"))),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark(mark) => mark.fmt(f),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}
