//! Ports of the host that lead into a VM, running or not.

use crate::Args;
use banger_doc::{Error, HostPorts, Publish, Result};
use banger_lease::Leases;
use banger_state::{State, VmFolder, Watch, place, process_of, rewrite_document};
use std::time::{Duration, Instant};

/// How long a supervisor may take to open and close ports.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a VM may be locked before its supervisor says a word.
const SILENCE: Duration = Duration::from_secs(1);

/// What is not to be published any more.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unpublish {
    Port(u16),
    All,
}

/// Reads `--unpublish`.
pub(crate) fn parse_unpublish(text: &str) -> Result<Unpublish> {
    match text {
        "all" => Ok(Unpublish::All),
        _ => {
            text.parse().ok().filter(|port| *port > 0).map(Unpublish::Port).ok_or_else(|| {
                Error::usage(format!("'{text}' is no port, 1 to 65535, and not 'all'"))
            })
        }
    }
}

/// Leases what is asked for, writes it down, and has a supervisor that lives do it. What cannot be done
/// changes nothing.
pub(crate) fn change(state: &State, folder: &VmFolder, args: &Args) -> Result<()> {
    let turn = folder.edit_lock()?;
    let before = folder.spec()?;
    let id = folder.vm()?.id;
    let wanted = after(&before.ports, args)?;
    let mut leases = Leases::open(state)?;
    let mut spec = before.clone();
    spec.ports = leases.take(folder.name(), &id, &wanted)?;
    if spec.ports == before.ports {
        return Ok(());
    }
    let path = folder.join(place::VM_SPEC);
    rewrite_document(&path, &spec)?;
    let watch = Watch::new(folder)?;
    if !folder.is_live()? {
        return Ok(());
    }
    folder.ask_ports(&turn, &spec.ports)?;
    let done = wait(folder, &watch, &spec.ports);
    if done.is_err() && folder.is_live()? {
        rewrite_document(&path, &before)?;
        folder.ask_ports(&turn, &before.ports)?;
        leases.take(folder.name(), &id, &before.ports)?;
    }
    done
}

/// Waits until the supervisor has done it, or the VM is down: then the next start does.
fn wait(folder: &VmFolder, watch: &Watch, wanted: &HostPorts) -> Result<()> {
    let name = folder.name();
    let mut heard = Instant::now();
    let answer = watch.until(LIMIT, || {
        let running = folder.running()?;
        if !folder.is_live()? {
            return Ok(Some(Vec::new()));
        }
        let supervisor = running.as_ref().map(|running| running.supervisor);
        if supervisor.is_some_and(|process| process_of(process.pid) == Some(process)) {
            heard = Instant::now();
        } else if heard.elapsed() > SILENCE {
            // Another program has the lock, such as one that deletes the VM.
            return Ok(Some(Vec::new()));
        }
        Ok(running.filter(|running| running.ports == *wanted).map(|running| running.forwards))
    })?;
    let forwards = answer.ok_or_else(|| {
        Error::failed(format!(
            "the supervisor of VM '{name}' did not answer within {} s",
            LIMIT.as_secs()
        ))
        .hint(format!("'{}' may say why", folder.join(place::VM_LOG).display()))
    })?;
    let problem = forwards
        .iter()
        .filter(|forward| forward.published)
        .find_map(|forward| forward.problem.as_ref().map(|why| (forward.host_port, why)));
    match problem {
        Some((port, why)) => {
            Err(Error::conflict(format!("cannot publish port {port} of this host: {why}"))
                .hint("nothing was changed; choose another port of the host"))
        }
        None => Ok(()),
    }
}

/// Returns what is wanted afterwards.
fn after(before: &HostPorts, args: &Args) -> Result<HostPorts> {
    let mut publish: Vec<Publish> = before.publish.clone();
    for one in &args.unpublish {
        let count = publish.len();
        match one {
            Unpublish::All => publish.clear(),
            Unpublish::Port(port) => {
                publish.retain(|there| there.host_port != *port);
                if publish.len() == count {
                    return Err(Error::not_found(format!("port {port} is not published"))
                        .hint("'banger vm show' lists what is"));
                }
            }
        }
    }
    publish.extend(args.publish.iter().cloned());
    publish.sort();
    publish.dedup();
    let auto = args.ports.unwrap_or(before.auto);
    let ports = HostPorts { publish, auto, loopback: before.loopback.filter(|_| auto) };
    ports.check()?;
    Ok(ports)
}
