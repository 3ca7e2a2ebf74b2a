//! Shows kernels. Reads `kernels/NAME/kernel.json`; writes nothing.

use banger_cli::{Out, human_bytes};
use banger_doc::{Kernel, Name, Result};
use banger_state::State;
use std::process::ExitCode;

/// Show kernels
#[derive(clap::Parser)]
#[command(name = "banger-kernel-show", version)]
struct Args {
    /// Names of the kernels
    #[arg(value_name = "KERNEL", required = true)]
    names: Vec<Name>,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let shelf = State::open_read_only()?.kernels();
    out.each(&args.names, |name| shelf.get(name), words)
}

fn words(kernel: &Kernel) -> String {
    let modules = if kernel.has_modules { "on their own disk" } else { "none" };
    format!(
        "name       {}\nrelease    {}\nprocessor  {}\nsource     {}\nsize       {}\nsha256     {}\nmodules    {modules}\nboots with {}",
        kernel.name,
        kernel.release,
        kernel.architecture,
        kernel.source,
        human_bytes(kernel.size_bytes),
        kernel.sha256,
        if kernel.boot_modules.is_empty() {
            "what is built in".into()
        } else {
            kernel.boot_modules.join(" ")
        },
    )
}
