//! Lists kernels. Reads `kernels/`; writes nothing.

use banger_cli::{Out, human_bytes};
use banger_doc::{Kernel, Kind, Result};
use banger_state::State;
use std::process::ExitCode;

/// List kernels
#[derive(clap::Parser)]
#[command(name = "banger-kernel-list", version)]
struct Args {}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(_: Args, out: &mut Out) -> Result<()> {
    let shelf = match State::open_read_only() {
        Ok(state) => state.kernels(),
        Err(error) if error.kind() == Kind::NotFound => return out.table(&[], HEAD, row),
        Err(error) => return Err(error),
    };
    let mut kernels = Vec::new();
    for name in shelf.names()? {
        match shelf.get(&name) {
            Ok(kernel) => kernels.push(kernel),
            // Deleted since its name was read.
            Err(_) if !shelf.has(&name) => {}
            Err(error) => return Err(error),
        }
    }
    out.table(&kernels, HEAD, row)
}

const HEAD: &[&str] = &["NAME", "RELEASE", "PROCESSOR", "SIZE", "SOURCE"];

fn row(kernel: &Kernel) -> Vec<String> {
    vec![
        kernel.name.to_string(),
        kernel.release.clone(),
        kernel.architecture.clone(),
        human_bytes(kernel.size_bytes),
        kernel.source.clone(),
    ]
}
