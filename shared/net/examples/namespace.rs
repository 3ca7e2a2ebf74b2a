//! Makes a network namespace as a VM has one. `namespace N` makes N, one after the other, and prints for
//! each how many microseconds it took; `namespace -- COMMAND...` makes one with its way out and runs a
//! command in there.

use banger_doc::{Context, Error, Result};
use banger_net::{Network, Options, Plan, RunAs, Tools, WAY_OUT};
use std::{
    os::fd::AsFd,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

/// How long the namespace may take, and `pasta` after it.
const LIMIT: Duration = Duration::from_secs(10);

#[expect(clippy::print_stderr, reason = "an example is for a person")]
fn main() -> ExitCode {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> = words.collect();
    let done = match &words[..] {
        [dashes, command @ ..] if dashes == "--" && !command.is_empty() => inside(command),
        [number] => number.parse().context("give a number").and_then(time),
        _ => Err(Error::usage("usage: namespace N | namespace -- COMMAND...")),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{}", error.chain());
        ExitCode::FAILURE
    })
}

fn make() -> Result<Network> {
    let run_as = RunAs::needed(None).map_err(Error::failed)?;
    let tools = Tools::find(run_as, None).map_err(Error::failed)?;
    let options = Options { run_as, ..Options::default() };
    Network::make(tools, Plan::new(), options, Instant::now() + LIMIT)
}

#[expect(clippy::print_stdout, reason = "an example is for a person")]
fn time(rounds: u32) -> Result<ExitCode> {
    for _ in 0..rounds {
        let begun = Instant::now();
        let network = make()?;
        println!("{}", begun.elapsed().as_micros());
        drop(network);
    }
    Ok(ExitCode::SUCCESS)
}

fn inside(words: &[String]) -> Result<ExitCode> {
    let mut network = make()?;
    network.lead_out(std::io::stderr().as_fd())?;
    let mut look = Command::new("ip");
    look.args(["-o", "-4", "addr", "show", "dev", WAY_OUT]);
    network.enter(&mut look);
    let end = Instant::now() + LIMIT;
    while !look.output().is_ok_and(|said| !said.stdout.is_empty()) {
        if Instant::now() > end {
            return Err(Error::failed("there is no way out: has this host a network?"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    network.enter(&mut command);
    let status = command.status().with_context(|| format!("cannot run '{}'", words[0]))?;
    Ok(ExitCode::from(status.code().unwrap_or(1) as u8))
}
