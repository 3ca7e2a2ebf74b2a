//! Serves the files of a VM that does not run, read from its disks.
//!
//! Other programs start it, in the jail, where it sees no file. Over the socket that is its stdin it gets the disks,
//! open for reading, and then streams, on which it answers as the guest's agent would. Writes nothing.

use banger_cli::Out;
use banger_doc::{Error, Result};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use std::{io::stdin, os::fd::AsFd, process::ExitCode};

/// Serve the files of a VM that does not run
///
/// Started by the programs that look into a VM: 'banger workspace', 'banger vm cp', 'banger vm delete'. Takes the
/// disks, and whom to answer, from the socket that is its stdin.
#[derive(clap::Parser)]
#[command(name = "banger-vm-read", version)]
struct Args {}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(Args {}: Args, _: &mut Out) -> Result<()> {
    let stdin = stdin();
    if getsockopt(&stdin.as_fd(), sockopt::SockType) != Ok(SockType::SeqPacket) {
        return Err(Error::usage("stdin is no socket that disks come from")
            .hint("'banger workspace status VM' and 'banger vm cp VM:PATH .' look into a VM"));
    }
    banger_offline::serve(stdin.as_fd())
}
