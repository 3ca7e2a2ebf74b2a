//! Stops VMs in order: their guests shut down, their disks come to rest.
//!
//! Writes `wanted.json` and waits until the supervisor has let go of the VM's lock.

use banger_cli::{Out, interrupt, is_called};
use banger_doc::{Desire, Error, Name, Reason, Result, View, Wanted};
use banger_stages::Stages;
use banger_state::{State, VmFolder, Watch, process_of};
use std::{
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// What comes after the guest's own time: the last insistence, and checking the disks.
const AFTER: Duration = Duration::from_secs(200);

/// Stop VMs in order
///
/// A VM that does not run is left as it is. A guest that does not shut down in time is killed.
#[derive(clap::Parser)]
#[command(name = "banger-vm-stop", version)]
struct Args {
    /// Names of the VMs
    #[arg(value_name = "VM", required_unless_present = "all")]
    vms: Vec<Name>,
    /// All VMs that run
    #[arg(long, short, conflicts_with = "vms")]
    all: bool,
    /// How long a guest may take to shut down, in seconds
    #[arg(long, short, alias = "time", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open_read_only()?;
    let grace = Duration::from_secs(args.timeout);
    let vms = if args.all { running(&state)? } else { args.vms };
    interrupt::watch()?;
    if let (false, [first, ..]) = (is_called(), vms.as_slice()) {
        let more = if vms.len() > 1 { " and the others" } else { "" };
        interrupt::say(Some(format!(
            "'{first}'{more} may stop all the same; 'banger vm wait --for stopped {first}' waits for it"
        )));
    }
    let stages = Stages::new(out, false);
    let took = Mutex::new(Vec::new());
    let act = |name: &Name| {
        let (view, time) = stop(&state.vm(name)?, grace, &stages)?;
        let mut took = took.lock().unwrap_or_else(PoisonError::into_inner);
        took.extend(time.map(|time| (name.clone(), time)));
        Ok(view)
    };
    out.each(&vms, act, |view| {
        let took = took.lock().unwrap_or_else(PoisonError::into_inner);
        let time = took.iter().find(|(name, _)| *name == view.vm.name).map(|(_, time)| *time);
        words(view, time)
    })
}

/// Returns the VMs that run.
fn running(state: &State) -> Result<Vec<Name>> {
    let mut names = state.vms().names()?;
    // One that goes meanwhile needs no stop.
    names.retain(|name| state.vm(name).and_then(|folder| folder.is_live()).unwrap_or(false));
    Ok(names)
}

/// Returns also how long it took, unless it did not run.
fn stop(folder: &VmFolder, grace: Duration, stages: &Stages) -> Result<(View, Option<Duration>)> {
    let watch = Watch::new(folder)?;
    if !folder.is_live()? {
        return Ok((folder.view()?, None));
    }
    let line = stages.line(folder.name());
    let grace_ms = grace.as_millis() as u64;
    folder.ask(&Wanted { grace_ms, ..Wanted::new(Desire::Stopped) })?;
    line.enter("shutting down");
    let mut vmm = None;
    let gone = watch.until(grace + AFTER, || {
        if !folder.is_live()? {
            return Ok(Some(()));
        }
        let running = folder.running()?.and_then(|running| running.vmm_process);
        vmm = running.or(vmm);
        // The supervisor lives on for what comes after its VMM.
        if vmm.is_some_and(|vmm| process_of(vmm.pid) != Some(vmm)) {
            line.enter("checking its disks");
        }
        Ok(None)
    })?;
    if gone.is_none() {
        let name = folder.name();
        return Err(Error::failed(format!("VM '{name}' does not stop"))
            .hint(format!("'banger vm kill {name}' ends it at once")));
    }
    let view = folder.view()?;
    // Whoever called it prints nothing of this.
    if is_called() {
        line.done("stopped");
    }
    Ok((view, Some(line.took())))
}

fn words(view: &View, took: Option<Duration>) -> String {
    let how = match (&view.last_exit, took) {
        (None, _) => "it was never started".into(),
        (Some(exit), Some(took)) if exit.reason == Reason::Stopped => {
            format!("stopped in {:.1}s", took.as_secs_f32())
        }
        (Some(exit), _) => exit.message.clone(),
    };
    format!("{}: {how}", view.vm.name)
}
