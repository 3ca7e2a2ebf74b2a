//! Connects ssh to the ssh server of a VM, as ssh's `ProxyCommand`.
//!
//! Copies between its standard streams and port 22 of the guest, through the VM's channel. With
//! `--known-host` prints the host key the VM was given when it was made, as ssh's
//! `KnownHostsCommand`. Writes nothing.

use banger_cli::{Out, note};
use banger_doc::{Context, Error, Name, Result};
use banger_ssh::{LIMIT, SUFFIX, known_host, reach};
use banger_state::State;
use std::{
    fs::File,
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    process::ExitCode,
    thread,
};

/// Bytes carried at a time.
const BLOCK: usize = 64 << 10;

/// Connect ssh to the ssh server of a VM
///
/// Run by ssh: 'banger ssh-config' prints the lines that tell it to.
#[derive(clap::Parser)]
#[command(name = "banger-ssh-proxy", version)]
struct Args {
    /// Name of the VM, with or without '.vm'
    #[arg(value_name = "VM")]
    vm: String,
    /// Print the VM's host key for ssh, and do not connect
    #[arg(long)]
    known_host: bool,
}

fn main() -> ExitCode {
    banger_cli::main_raw(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    // As ssh writes a host whose port is another than 22.
    let host = args.vm.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
    let host = host.filter(|(_, port)| port.parse::<u16>().is_ok());
    let host = host.map_or(args.vm.as_str(), |(host, _)| host);
    let name: Name = host.strip_suffix(SUFFIX).unwrap_or(host).parse()?;
    let folder = State::open_read_only()?.vm(&name)?;
    if args.known_host {
        // ssh may look for it under another name or with a port: whatever it calls this VM, this is its key.
        let line = known_host(&folder)?;
        let key = line.split_once(' ').map_or(line.as_str(), |(_, key)| key);
        return out.line(&format!("* {key}"));
    }
    let quiet = out.is_quiet();
    let stream = reach(&folder, LIMIT, || {
        if !quiet {
            note(&format!("waiting for the ssh server of '{name}'"));
        }
    })?;
    carry(&stream).with_context(|| format!("the connection to '{name}' broke"))
}

/// Carries bytes both ways until the guest has said all; half-close is kept.
fn carry(stream: &UnixStream) -> Result<()> {
    // Not `std::io::stdout`, which looks for line ends.
    let raw = |fd: io::Result<std::os::fd::OwnedFd>| fd.map(File::from);
    let stdin = raw(io::stdin().as_fd().try_clone_to_owned()).context("cannot read stdin")?;
    let stdout = raw(io::stdout().as_fd().try_clone_to_owned()).context("cannot write stdout")?;
    let to_guest = stream.try_clone().context("cannot copy a socket")?;
    // Not waited for: ssh may keep stdin open after the guest has closed.
    thread::Builder::new()
        .spawn(move || {
            let _ = copy(stdin, &to_guest);
            let _ = to_guest.shutdown(Shutdown::Write);
        })
        .map_err(|error| Error::failed("cannot start a thread").because(error))?;
    match copy(stream, stdout) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot carry on"),
    }
}

fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(size) => to.write_all(&block[..size])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
