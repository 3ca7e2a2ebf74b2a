//! Shows kernels. Reads `kernels/NAME/kernel.json`; writes nothing.

use banger_cli::{Out, Page, human_bytes};
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
    let boots_with = match kernel.boot_modules.as_slice() {
        [] => "what is built in".to_owned(),
        modules => modules.join(" "),
    };
    let mut page = Page::default();
    page.row("name", kernel.name.as_str());
    page.row("release", &kernel.release);
    page.row("processor", &kernel.architecture);
    page.row("source", &kernel.source);
    page.row("size", human_bytes(kernel.size_bytes));
    page.row("sha256", &kernel.sha256);
    page.row("modules", modules);
    page.row("boots with", boots_with);
    page.words()
}
