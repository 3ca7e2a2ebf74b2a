//! Lists VMs. Reads the documents of each; takes no lock, writes nothing.

use banger_cli::{Colour, Out, ago, human_bytes, note, paint};
use banger_doc::{Kind, Name, Result, Status, View};
use banger_state::{State, clock_s};
use std::{process::ExitCode, thread};

/// List VMs
#[derive(clap::Parser)]
#[command(name = "banger-vm-list", version)]
struct Args {
    /// Only those that run
    #[arg(long)]
    running: bool,
    /// Accepted, since others want it: all are listed
    #[arg(long, short, hide = true, conflicts_with = "running")]
    all: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let answers = match State::open_read_only() {
        Ok(state) => looked_at(&state, &state.vms().names()?),
        // Nothing was ever made here, so there is nothing to list.
        Err(error) if error.kind() == Kind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut views = Vec::new();
    let mut failure = None;
    for answer in answers {
        match answer {
            Ok(view) => views.push(view),
            // Deleted a moment ago.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => {
                note(&format!("error: {}", error.chain()));
                failure.get_or_insert(error);
            }
        }
    }
    views.retain(|view| !args.running || view.status.is_live());
    table(out, &views)?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    if views.is_empty() {
        out.suggest(if args.running {
            "no VM runs; 'banger vm list' lists all"
        } else {
            "no VMs; 'banger vm run' makes one"
        });
    }
    Ok(())
}

/// Looks at every VM, on as many processors as there are: a thousand take files enough.
fn looked_at(state: &State, names: &[Name]) -> Vec<Result<View>> {
    let look = |name: &Name| state.vm(name).and_then(|folder| folder.view());
    let workers = thread::available_parallelism().map_or(1, Into::into).min(8);
    let share = names.len().div_ceil(workers).max(50);
    if names.len() <= share {
        return names.iter().map(look).collect();
    }
    thread::scope(|scope| {
        let shares: Vec<_> = names
            .chunks(share)
            .map(|names| scope.spawn(move || names.iter().map(look).collect::<Vec<_>>()))
            .collect();
        shares
            .into_iter()
            .flat_map(|share| share.join().expect("because looking at a VM does not panic"))
            .collect()
    })
}

fn table(out: &mut Out, views: &[View]) -> Result<()> {
    let now = clock_s();
    let head = ["NAME", "STATUS", "IMAGE", "VCPU", "MEMORY", "DISK", "CREATED"];
    out.table(views, &head, |view| {
        vec![
            view.vm.name.to_string(),
            status(view.status),
            view.vm.image.to_string(),
            view.spec.vcpu.to_string(),
            human_bytes(view.spec.memory_mib << 20),
            human_bytes(view.spec.disk_bytes),
            ago(now.saturating_sub(view.vm.created_unix_s)),
        ]
    })
}

fn status(status: Status) -> String {
    let colour = match status {
        Status::Running => Colour::Green,
        Status::Starting | Status::Paused | Status::Stopping => Colour::Yellow,
        Status::Error => Colour::Red,
        Status::Created | Status::Stopped => Colour::Faint,
    };
    paint(colour, &status.to_string())
}
