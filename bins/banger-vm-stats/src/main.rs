//! Says what VMs use: processor, memory, disk, network. Reads the documents of VMs, `/proc` for
//! their VMM and supervisor, and asks each guest's agent over `run/channel.sock`. Writes nothing.

mod measure;

use banger_cli::{Out, human_bytes, note};
use banger_doc::{Document, Error, Kind, Name, Result, Stats};
use banger_state::State;
use measure::Sample;
use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// Between the two measurements that one answer needs.
const MOMENT: Duration = Duration::from_millis(500);
/// Clears a terminal and goes to its first line (console_codes(4)).
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

/// Show what VMs use: processor, memory, disk, network
///
/// Without names, VMs that run. Of one that does not run there is only the disk to show.
#[derive(clap::Parser)]
#[command(name = "banger-vm-stats", version)]
struct Args {
    /// Names of the VMs
    #[arg(value_name = "VM")]
    vms: Vec<Name>,
    /// Go on and on, until interrupted
    #[arg(long, short)]
    watch: bool,
    /// With --watch: how often to look, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2, requires = "watch", value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = match State::open_read_only() {
        Ok(state) => state,
        Err(error) if error.kind() == Kind::NotFound && args.vms.is_empty() && !args.watch => {
            return show(out, Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut before = look(&state, &args.vms)?;
    thread::sleep(MOMENT);
    loop {
        let begun = Instant::now();
        let now = look(&state, &args.vms)?;
        let (mut all, mut failures) = (Vec::new(), Vec::new());
        for (name, sample) in &now {
            match sample {
                Ok(sample) => {
                    let earlier = before.iter().find(|(other, _)| other == name);
                    let earlier = earlier.and_then(|(_, sample)| sample.as_ref().ok());
                    all.push(sample.since(earlier));
                }
                Err(error) => failures.push(error),
            }
        }
        if args.watch && !out.is_json() {
            out.bytes(CLEAR)?;
        }
        if !all.is_empty() || failures.is_empty() {
            show(out, all)?;
        }
        if !args.watch || !failures.is_empty() {
            return fail(out, now);
        }
        if !out.is_heard() {
            return Ok(());
        }
        before = now;
        thread::sleep(Duration::from_secs(args.interval).saturating_sub(begun.elapsed()));
    }
}

/// Measures all VMs at once; without names, those that run.
fn look(state: &State, names: &[Name]) -> Result<Vec<(Name, Result<Sample>)>> {
    let mut wanted: Vec<Name> = Vec::new();
    for name in names {
        if !wanted.contains(name) {
            wanted.push(name.clone());
        }
    }
    if names.is_empty() {
        let runs = |name: &Name| state.vm(name).and_then(|vm| vm.is_live()).unwrap_or(false);
        wanted = state.vms().names()?.into_iter().filter(runs).collect();
    }
    Ok(thread::scope(|scope| {
        let threads: Vec<_> =
            wanted.iter().map(|name| scope.spawn(move || measure::take(state, name))).collect();
        let answers = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Error::failed("a thread panicked")))
        });
        // One that was deleted meanwhile is of no interest, unless it was asked for.
        wanted
            .iter()
            .cloned()
            .zip(answers)
            .filter(|(_, answer)| {
                let gone = answer.as_ref().is_err_and(|error| error.kind() == Kind::NotFound);
                !(gone && names.is_empty())
            })
            .collect()
    }))
}

fn show(out: &mut Out, all: Vec<Stats>) -> Result<()> {
    let head = [
        "NAME",
        "STATUS",
        "CPU",
        "MEMORY",
        "GUEST",
        "DISK",
        "IN",
        "OUT",
        "SHARED",
        "APPARENT",
        "SUPERVISOR",
    ];
    out.table(&all, &head, |stats| {
        let (host, guest, network) = (&stats.host, &stats.guest, &stats.network);
        let bytes = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), human_bytes);
        vec![
            stats.vm.to_string(),
            stats.status.to_string(),
            host.as_ref().map_or("-".into(), |host| format!("{:.1}%", host.cpu_percent)),
            host.as_ref().map_or("-".into(), |host| {
                let (used, given) = (host.vmm_memory_bytes, host.given_memory_bytes);
                format!("{} / {}", human_bytes(used), human_bytes(given))
            }),
            guest.as_ref().map_or("-".into(), |guest| {
                let (used, total) = (guest.memory_used_bytes, guest.memory_total_bytes);
                format!("{} / {}", human_bytes(used), human_bytes(total))
            }),
            human_bytes(stats.disk.exclusive_bytes),
            bytes(network.as_ref().map(|network| network.received_bytes)),
            bytes(network.as_ref().map(|network| network.sent_bytes)),
            human_bytes(stats.disk.shared_bytes),
            human_bytes(stats.disk.apparent_bytes),
            bytes(host.as_ref().map(|host| host.supervisor_memory_bytes)),
        ]
    })
}

/// Says every failure, and returns the first.
fn fail(out: &mut Out, answers: Vec<(Name, Result<Sample>)>) -> Result<()> {
    let mut failures = answers.into_iter().filter_map(|(_, answer)| answer.err());
    let first = failures.next();
    for other in failures {
        note(&format!("error: {}", other.chain()));
        if out.is_json() {
            out.line(&other.report().to_line())?;
        }
    }
    first.map_or(Ok(()), Err)
}
