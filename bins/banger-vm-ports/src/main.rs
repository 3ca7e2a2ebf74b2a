//! Shows what listens in VMs, and which ports of the host lead there. Asks each VM's agent over
//! `run/channel.sock`; needs no ssh and no network in the guest. Reads only.

use banger_channel::control;
use banger_cli::{Out, note};
use banger_doc::{Context, Document, Error, Forward, Kind, Name, Port, Result, shows};
use banger_state::{State, place};
use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    thread,
    time::Duration,
};

/// How long an agent may take to answer.
const LIMIT: Duration = Duration::from_secs(15);
const HEAD: &[&str] = &["VM", "PROTOCOL", "ADDRESS", "PORT", "PID", "PROCESS", "HOST"];
/// Longest name of a process that is shown; the kernel keeps 15 bytes.
const NAME_CHARS: usize = 32;

/// Show what listens in running VMs, and where on this host
#[derive(clap::Parser)]
#[command(name = "banger-vm-ports", version)]
struct Args {
    /// Names of the VMs [default: all that run]
    #[arg(value_name = "VM")]
    vms: Vec<Name>,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = match State::open_read_only() {
        // Before the first run nothing runs.
        Err(error) if error.kind() == Kind::NotFound && args.vms.is_empty() => {
            return out.table(&[], HEAD, row);
        }
        state => state?,
    };
    let running = if args.vms.is_empty() { running(&state)? } else { Vec::new() };
    let mut names: Vec<&Name> = running.iter().collect();
    for name in &args.vms {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let answers: Vec<Result<Vec<Port>>> = thread::scope(|scope| {
        let state = &state;
        let threads: Vec<_> =
            names.iter().map(|name| scope.spawn(move || listening(state, name))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(Error::failed("a thread panicked"))))
            .collect()
    });
    let (mut ports, mut failures) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(found) => ports.extend(found),
            Err(error) => failures.push(error),
        }
    }
    if !ports.is_empty() || failures.is_empty() {
        out.table(&ports, HEAD, row)?;
    }
    let mut failures = failures.into_iter();
    let first = failures.next();
    for other in failures {
        note(&format!("error: {}", other.chain()));
        if out.is_json() {
            out.line(&other.report().to_line())?;
        }
    }
    first.map_or(Ok(()), Err)
}

/// Returns the VMs whose guests can be asked.
fn running(state: &State) -> Result<Vec<Name>> {
    let mut names = state.vms().names()?;
    let runs = |name: &Name| state.vm(name).and_then(|folder| folder.must_run()).is_ok();
    names.retain(runs);
    Ok(names)
}

/// Asks one VM. What the guest says is checked before anybody sees it.
fn listening(state: &State, name: &Name) -> Result<Vec<Port>> {
    let folder = state.vm(name)?;
    folder.must_run()?;
    let (_dir, channel) = folder.short_path(place::VM_CHANNEL)?;
    let said = control::ports(&channel, LIMIT)
        .with_context(|| format!("cannot ask VM '{name}' what listens in it"))
        .map_err(|error| error.or_hint(format!("'banger vm logs {name}' shows its console")))?;
    let forwards = folder.running()?.map(|running| running.forwards).unwrap_or_default();
    let mut ports: Vec<Port> = said.into_iter().filter_map(|port| checked(name, port)).collect();
    for forward in forwards {
        lead(&mut ports, name, forward);
    }
    Ok(ports)
}

/// Adds a port of the host to what it leads to. Of several listeners of one number it is the one that
/// `localhost` reaches.
fn lead(ports: &mut Vec<Port>, vm: &Name, forward: Forward) {
    let nearness = |address: IpAddr| match address {
        IpAddr::V4(four) if four.is_loopback() => 0,
        _ if address.is_unspecified() => 1,
        _ if address.is_loopback() => 2,
        _ => 3,
    };
    let reached = ports
        .iter_mut()
        .filter(|port| port.protocol == "tcp" && port.port == forward.guest_port)
        .min_by_key(|port| port.address.map_or(4, nearness));
    match reached {
        Some(port) => port.forwards.push(forward),
        None => ports.push(Port {
            vm: vm.clone(),
            protocol: "tcp".into(),
            address: None,
            port: forward.guest_port,
            pid: None,
            process: None,
            forwards: vec![forward],
        }),
    }
}

fn checked(vm: &Name, said: control::Port) -> Option<Port> {
    let clean = |text: String| text.chars().filter(|c| shows(*c)).take(NAME_CHARS).collect();
    Some(Port {
        vm: vm.clone(),
        protocol: Some(said.protocol).filter(|protocol| ["tcp", "udp"].contains(&&**protocol))?,
        address: Some(said.address.parse().ok()?),
        port: said.port,
        pid: said.pid,
        process: said.process.map(clean),
        forwards: Vec::new(),
    })
}

fn row(port: &Port) -> Vec<String> {
    vec![
        port.vm.to_string(),
        port.protocol.clone(),
        port.address.map(|address| address.to_string()).unwrap_or_default(),
        port.port.to_string(),
        port.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        port.process.clone().unwrap_or_default(),
        port.forwards.iter().map(place).collect::<Vec<_>>().join(", "),
    ]
}

fn place(forward: &Forward) -> String {
    let place = SocketAddr::new(forward.address, forward.host_port);
    match (&forward.problem, &forward.note) {
        (Some(why), _) => format!("{place} (not there: {why})"),
        (None, Some(why)) => format!("{place} ({why})"),
        (None, None) => place.to_string(),
    }
}
