//! Pulls a kernel by its name in the catalog. Runs the distribution's package client, which checks
//! the signatures, then `banger-kernel-import`, which writes `kernels/NAME`.

mod apt;
mod catalog;

use apt::Apt;
use banger_cli::{Out, Program, interrupt};
use banger_doc::{Error, Kernel, Kind, Name, Result};
use banger_stages::Stages;
use banger_state::{Lock, State};
use std::{process::ExitCode, time::Duration};

/// How long another pull of the same kernel is waited for; itself it is bounded by less.
const OTHER_PULL: Duration = Duration::from_secs(400);

/// Pull a kernel from the catalog
///
/// One that is here already is left as it is.
#[derive(clap::Parser)]
#[command(name = "banger-kernel-pull", version)]
struct Args {
    /// Name of the kernel in the catalog
    #[arg(value_name = "KERNEL", default_value = "generic-6.12")]
    name: Name,
    /// Pull it again, in place of the one that is here
    #[arg(long)]
    force: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let shelf = State::open()?.kernels();
    let entry = match catalog::find(&args.name) {
        Err(error) if error.kind() == Kind::NotFound && shelf.has(&args.name) && !args.force => {
            None
        }
        found => Some(found?),
    };
    let kernel = match entry {
        Some(entry) if args.force || !shelf.has(&args.name) => {
            let lock = shelf.folder(&args.name).with_file_name(format!(".pull-{}", args.name));
            let _lock = Lock::exclusive(&lock, OTHER_PULL, &format!("kernel '{}'", args.name))?;
            if shelf.has(&args.name) && !args.force {
                // Somebody else pulled it while we waited.
                shelf.get(&args.name)?
            } else {
                pull(&args, &entry, out)?
            }
        }
        _ => shelf.get(&args.name)?,
    };
    out.put(&kernel, |kernel| format!("kernel '{}' is Linux {}", kernel.name, kernel.release))
}

fn pull(args: &Args, entry: &catalog::Entry, out: &Out) -> Result<Kernel> {
    interrupt::watch()?;
    let (apt, package) = find(entry, out)?;
    out.note(&format!("downloading the package '{package}'"));
    let line = Stages::new(out, false).line(&args.name);
    line.enter("downloading its package");
    let download = apt.download(&package)?;
    line.enter("unpacking its package");
    let mut import = Program::new("banger-kernel-import")?
        .arg(args.name.as_str())
        .arg("--quiet")
        .arg("--deb")
        .arg(&download.file)
        .args(["--source", &format!("package:{package}")]);
    if args.force {
        import = import.arg("--force");
    }
    let kernel = import.documents()?.pop();
    drop(line);
    kernel.ok_or_else(|| Error::failed("'banger-kernel-import' said nothing"))
}

/// Finds the package in the host's lists, else in fresh ones.
fn find(entry: &catalog::Entry, out: &Out) -> Result<(Apt, String)> {
    let apt = Apt::of_the_host();
    match apt.newest(&entry.begin, &entry.end) {
        Err(error) if error.kind() == Kind::NotFound => {}
        found => return Ok((apt, found?)),
    }
    out.note("the host's list of packages has no such kernel; fetching a fresh list");
    let apt = Apt::with_fresh_lists()?;
    let package = apt.newest(&entry.begin, &entry.end)?;
    Ok((apt, package))
}
