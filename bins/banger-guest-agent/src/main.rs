//! The agent as a program of its own, on this machine instead of in a guest
//! (`docs/agent-protocol.md`). In a guest it is a process of `banger-guest-init`.

use banger_doc::{Error, Result};
use std::{io::Write, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "banger-guest-agent: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut device, mut document) = (None, None);
    let mut words = std::env::args_os().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().map(PathBuf::from);
        match word.to_str() {
            Some("--device") if value.is_some() => device = value,
            Some("--guest") if value.is_some() => document = value,
            _ => {
                return Err(Error::usage(format!(
                    "'{}' is none of --device PATH, --guest PATH",
                    word.to_string_lossy()
                )));
            }
        }
    }
    let device = device.ok_or_else(|| Error::usage("'--device PATH' says where to serve"))?;
    banger_agent::serve_socket(&device, document.and_then(|path| banger_agent::read_guest(&path)))
}
