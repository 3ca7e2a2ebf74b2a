//! Prints a VM's serial console, as bytes. Reads only.

mod follow;

use banger_cli::Out;
use banger_doc::{Context, Error, Name, Result};
use banger_state::{State, place};
use std::{fs::File, io::ErrorKind, io::Read, process::ExitCode};

/// Print what a VM's guest said on its console
///
/// Kernel messages, the init's, and whatever else the guest writes to its serial port. The log of
/// one boot is at most 4 MiB; a longer one lacks its middle.
#[derive(clap::Parser)]
#[command(name = "banger-vm-logs", version)]
struct Args {
    /// Name of the VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// Go on until the VM ends
    #[arg(long, short)]
    follow: bool,
    /// Which boot: 0 is the last one, 1 the one before
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    boot: u8,
}

fn main() -> ExitCode {
    banger_cli::main_raw(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let folder = State::open_read_only()?.vm(&args.vm)?;
    if args.follow {
        if args.boot != 0 {
            return Err(Error::usage("only the last boot can be followed")
                .hint("leave out '--follow' or '--boot'"));
        }
        return follow::follow(&folder, out);
    }
    let place =
        if args.boot == 0 { place::VM_CONSOLE.into() } else { format!("{}.1", place::VM_CONSOLE) };
    let path = folder.join(&place);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::not_found(format!("VM '{}' has no log of that boot", args.vm))
                .hint(format!("'banger vm show {}' tells how it stands", args.vm)));
        }
        Err(error) => return Err(error).context(format!("cannot open '{}'", path.display())),
    };
    let mut buffer = [0; 8 << 10];
    loop {
        match file.read(&mut buffer).with_context(|| format!("cannot read '{}'", path.display()))? {
            0 => return Ok(()),
            n => out.bytes(&buffer[..n])?,
        }
    }
}
