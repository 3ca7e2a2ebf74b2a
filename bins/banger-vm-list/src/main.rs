//! Lists VMs. Reads the documents of each; takes no lock, writes nothing.

use banger_cli::{Out, human_bytes, note};
use banger_doc::{Kind, Result, View};
use banger_state::{State, clock_s};
use std::process::ExitCode;

/// List VMs
#[derive(clap::Parser)]
#[command(name = "banger-vm-list", version)]
struct Args {
    /// Only those that run
    #[arg(long)]
    running: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = match State::open_read_only() {
        Ok(state) => state,
        // Nothing was ever made here, so there is nothing to list.
        Err(error) if error.kind() == Kind::NotFound => return table(out, &[]),
        Err(error) => return Err(error),
    };
    let mut views = Vec::new();
    let mut failure = None;
    for name in state.vms().names()? {
        match state.vm(&name).and_then(|folder| folder.view()) {
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
    failure.map_or(Ok(()), Err)
}

fn table(out: &mut Out, views: &[View]) -> Result<()> {
    let now = clock_s();
    let head = ["NAME", "STATUS", "IMAGE", "VCPU", "MEMORY", "DISK", "CREATED"];
    out.table(views, &head, |view| {
        vec![
            view.vm.name.to_string(),
            view.status.to_string(),
            view.vm.image.to_string(),
            view.spec.vcpu.to_string(),
            human_bytes(view.spec.memory_mib << 20),
            human_bytes(view.spec.disk_bytes),
            age(now.saturating_sub(view.vm.created_unix_s)),
        ]
    })
}

/// Puts a time that has passed into words: `5 minutes ago`.
fn age(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}
