//! Stops and starts VMs: runs `banger-vm-stop`, then `banger-vm-start`.

use banger_cli::{Out, Program, interrupt};
use banger_doc::{Error, Mark, Name, Result, View};
use std::process::ExitCode;

/// Stop VMs in order and start them again
#[derive(clap::Parser)]
#[command(name = "banger-vm-restart", version)]
struct Args {
    /// Names of the VMs
    #[arg(value_name = "VM", required = true)]
    vms: Vec<Name>,
    /// How long a guest may take to shut down, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// How far to wait for the guest: agent (it answers) or booted (its init has finished what comes before
    /// logins)
    #[arg(long = "wait", value_name = "MARK", default_value_t = Mark::Booted)]
    mark: Mark,
    /// Let the kernel tell all it does, and show the console on stderr meanwhile
    #[arg(long)]
    console: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let quiet = out.is_quiet();
    interrupt::watch()?;
    interrupt::say(Some(
        "what was begun goes on all the same; 'banger vm list' tells how VMs stand, \
         'banger vm start VM' starts one that is stopped"
            .into(),
    ));
    let act = |name: &Name| {
        let timeout = args.timeout.to_string();
        view("banger-vm-stop", &["--timeout", &timeout], name, quiet)?;
        let wait = args.mark.option();
        let console = args.console.then_some("--console");
        let options: Vec<&str> = wait.as_deref().into_iter().chain(console).collect();
        view("banger-vm-start", &options, name, quiet)
    };
    out.each(&args.vms, act, |_| String::new())
}

fn view(program: &str, options: &[&str], name: &Name, quiet: bool) -> Result<View> {
    Program::new(program)?
        .args(quiet.then_some("--quiet"))
        .args(options)
        .arg(name.as_str())
        .documents()?
        .pop()
        .ok_or_else(|| Error::failed(format!("'{program}' said nothing of '{name}'")))
}
