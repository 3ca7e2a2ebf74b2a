//! Ports of this machine that lead to others of it through an agent and its channel, as ports of a host lead
//! into a guest: `published AGENT FROM TO` starts the program AGENT, listens on FROM and leads to TO
//! until its stdin ends.

use banger_channel::{bridge, relay::Relay};
use banger_doc::{Context, Error, Result};
use std::{
    io::Read,
    net::TcpListener,
    os::unix::net::UnixListener,
    process::{Command, ExitCode, Stdio},
    thread,
};

/// Connections at once.
const MOST: usize = 64;

#[expect(clippy::print_stderr, reason = "an example is for a person")]
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> = words.collect();
    let [agent, from, to] = &words[..] else {
        return Err(Error::usage("usage: published AGENT FROM TO"));
    };
    let from: u16 = from.parse().context("FROM is a number")?;
    let dir = tempfile::tempdir().context("cannot make a directory")?;
    let (port, channel) = (dir.path().join("port"), dir.path().join("channel"));
    // The two ends of what is a serial port in a VM.
    let device = UnixListener::bind(&port).context("cannot listen for the agent")?;
    let mut agent = Command::new(agent)
        .arg("--device")
        .arg(&port)
        .stdin(Stdio::null())
        .spawn()
        .context("cannot run the agent")?;
    let (device, _) = device.accept().context("the agent does not come")?;
    let clients = UnixListener::bind(&channel).context("cannot listen for clients")?;
    thread::spawn(move || bridge::run(clients, bridge::Device::Port(device)));
    let relay = Relay::start(&channel, MOST)?;
    let listener = TcpListener::bind(("127.0.0.1", from)).context("cannot open the port")?;
    relay.listen(1, listener, format!("tcp localhost:{to}"));
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let _ = agent.kill();
    let _ = agent.wait();
    Ok(())
}
