//! Creates a VM, starts it, and goes into it.
//!
//! Runs `banger-vm-create` and `banger-vm-start`, with a path `banger-workspace-prepare`, then becomes
//! `banger-vm-exec`; with `--rm` runs it and then `banger-vm-delete`. Reads and writes nothing
//! itself.

mod session;
mod workspace;

use banger_cli::{Out, Program, is_shell, runs_on};
use banger_config::Config;
use banger_doc::{Error, Kind, Mark, Name, NetMode, Result, View};
use banger_stages::Times;
use std::{ffi::OsString, io::IsTerminal, process::ExitCode};

/// Create a VM, start it, and run a command or a shell in it
///
/// With a path, the repository or directory there goes into the VM first, and the command runs in
/// it. Without a command, a shell. The status is the command's; 125 if banger itself failed.
#[derive(clap::Parser)]
#[command(name = "banger-vm-run", version)]
struct Args {
    #[command(flatten)]
    workspace: workspace::Words,
    /// Name of the new VM [default: one is made up]
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Name of an image, or what 'banger image pull' can pull [default: debian-bookworm]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Name of a kernel [default: the image's, else generic-6.12]
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<Name>,
    /// Whose the guest, the workspace and the command are: user, uid, user:group or uid:gid [default: the
    /// image's, else root]
    #[arg(long, short, value_name = "USER", value_parser = banger_doc::parse_user)]
    user: Option<String>,
    /// Set a variable for the command; without a value, to the one it has here; may be repeated
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Virtual processors, 1 to 32
    #[arg(long, aliases = ["cpus", "cpu", "vcpus"], value_name = "COUNT")]
    vcpu: Option<String>,
    /// Memory, such as 512M or 2G
    #[arg(long, short, alias = "mem", value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Size of the disk at the user's home, such as 20G
    #[arg(long, alias = "disk", value_name = "SIZE", allow_hyphen_values = true)]
    disk_size: Option<String>,
    /// Size of the disk for changes to the image
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    overlay_size: Option<String>,
    /// Network: user or none
    #[arg(long, alias = "network", value_name = "MODE")]
    net: Option<String>,
    /// Let the guest reach services on this host's loopback, under its gateway's address
    #[arg(long)]
    allow_host: bool,
    /// Port of this host that leads to one of the guest, HOST:GUEST or ADDRESS:HOST:GUEST; may be repeated
    #[arg(long, short, value_name = "PORTS")]
    publish: Vec<String>,
    /// Whether what listens in the guest appears on a loopback address of this host: auto or none
    #[arg(long, value_name = "MODE")]
    ports: Option<String>,
    /// Program that plays the machine: auto, firecracker or qemu
    #[arg(long, value_name = "VMM")]
    vmm: Option<String>,
    /// How far to wait for the guest: agent (it answers) or booted (its init has finished what comes before
    /// logins)
    #[arg(long = "wait", value_name = "MARK", default_value_t = Mark::Booted)]
    mark: Mark,
    /// What runs as the guest's first program: auto, image or minimal
    #[arg(long, value_name = "INIT")]
    init: Option<String>,
    /// How long the guest may take, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
    /// Let the kernel tell all it does, and show the console on stderr meanwhile
    #[arg(long)]
    console: bool,
    /// Delete the VM afterwards; one that never came up is kept
    #[arg(long, conflicts_with = "detach")]
    rm: bool,
    /// Leave it running and go on
    #[arg(long, short, conflicts_with = "command")]
    detach: bool,
    /// Give the command a terminal, also when this is not run from one
    #[arg(long, short)]
    tty: bool,
    /// Accepted, since others want it: stdin is always passed on
    #[arg(long, short, hide = true)]
    interactive: bool,
    /// The directory the command, or the shell, starts in [default: the workspace, else the image's]
    #[arg(long, short, value_name = "DIR", conflicts_with = "detach")]
    workdir: Option<String>,
    /// Command to run in the VM, and its words
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    banger_cli::main_raw(run)
}

fn run(args: Args, out: &mut Out) -> Result<ExitCode> {
    if args.workspace.dry_run {
        return Err(args.workspace.become_dry_run(args.name.as_ref()));
    }
    check_env(&args)?;
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if args.command.is_empty() && !args.detach && !interactive {
        return Err(Error::usage("a shell needs a terminal, and there is none")
            .hint("name a command after '--', or use '--detach'"));
    }
    let tools = args.workspace.check(
        args.name.as_ref(),
        args.command.is_empty(),
        has_no_network(args.net.as_deref())?,
        out,
    )?;
    let mut times = Times::begin();
    let created = create(&args, out.is_quiet())?;
    times.part("pull");
    let name = &created.vm.name;
    session::notice_interrupts()?;
    let view = match start(&args, name, out.is_quiet()) {
        // Whoever interrupts gave the VM up; one that does not come up is kept.
        Err(_) if session::interrupted() => return session::give_up(name, args.rm),
        // Nor does anybody want what this host cannot run: it never ran.
        Err(error) if error.kind() == Kind::Unavailable => {
            let _ = session::delete(name);
            return Err(error);
        }
        other => other?,
    };
    times.part("boot");
    let workspace = args.workspace.prepare(name, out)?;
    times.part("workspace");
    if let Some(workspace) = workspace.filter(|_| tools)
        && args.workspace.may_install(&workspace, out)
    {
        let dir = &workspace.guest_path;
        // A command finds them in place.
        let waits = args.detach || !args.command.is_empty();
        if let Err(error) = workspace::install_tools(name, dir, &args.env, waits) {
            if session::interrupted() {
                return session::give_up(name, args.rm);
            }
            if !args.rm {
                return Err(error);
            }
            session::delete(name)?;
            return Err(error.hint("without '--rm' the VM stays, with mise's log in it"));
        }
    }
    if !args.rm {
        times.say(name, out);
    }
    if args.detach {
        out.put(&view, |view| format!("VM '{}' is running", view.vm.name))?;
        return Ok(ExitCode::SUCCESS);
    }
    let words: Vec<_> = args.command.iter().map(|word| word.to_string_lossy()).collect();
    // Who works in a shell is told when he leaves it.
    if !args.rm && out.is_live() && !is_shell(&words) {
        out.note(&runs_on(name, "exec"));
    }
    let dir = args.workdir.as_deref();
    let inside = session::Session::new(name, dir, &args.env, args.tty, &args.command)?;
    if !args.rm {
        return Err(inside.become_it());
    }
    let status = inside.run_then_delete(&mut times)?;
    times.say(name, out);
    Ok(status)
}

/// Refuses before anything is made what nothing could be done with.
fn check_env(args: &Args) -> Result<()> {
    for entry in &args.env {
        let name = entry.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(Error::usage(format!("'{entry}' names no variable")));
        }
        if args.detach && !args.workspace.is_given() {
            return Err(Error::usage(format!("nothing is run that could get '{name}'"))
                .hint("'banger vm exec --env NAME=VALUE VM -- COMMAND' runs a command with it"));
        }
    }
    Ok(())
}

/// Says whether the VM is to have no network, by the command line or else by the configuration.
fn has_no_network(asked: Option<&str>) -> Result<bool> {
    match asked {
        Some(mode) => Ok(mode == "none"),
        None => Ok(Config::load()?.net == Some(NetMode::None)),
    }
}

/// Creates the VM.
fn create(args: &Args, quiet: bool) -> Result<View> {
    let mut create = Program::new("banger-vm-create")?.args(quiet.then_some("--quiet"));
    for (option, value) in [
        ("--name", args.name.as_ref().map(Name::as_str)),
        ("--image", args.image.as_deref()),
        ("--kernel", args.kernel.as_ref().map(Name::as_str)),
        ("--user", args.user.as_deref()),
        ("--vcpu", args.vcpu.as_deref()),
        ("--memory", args.memory.as_deref()),
        ("--disk-size", args.disk_size.as_deref()),
        ("--overlay-size", args.overlay_size.as_deref()),
        ("--net", args.net.as_deref()),
        ("--vmm", args.vmm.as_deref()),
        ("--init", args.init.as_deref()),
        ("--ports", args.ports.as_deref()),
    ] {
        if let Some(value) = value {
            create = create.arg(format!("{option}={value}"));
        }
    }
    create = create.args(args.allow_host.then_some("--allow-host"));
    create = create.args(args.publish.iter().map(|ports| format!("--publish={ports}")));
    one(create.arg("--no-start")).map_err(|error| {
        // The person called this program, not the one that it calls.
        let hint =
            error.hint_text().map(|hint| hint.replace("'banger vm create ", "'banger vm run "));
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

fn start(args: &Args, name: &Name, quiet: bool) -> Result<View> {
    let mut start = Program::new("banger-vm-start")?.args(quiet.then_some("--quiet"));
    start = start.args(args.console.then_some("--console"));
    start = start.args(args.mark.option());
    if let Some(timeout) = &args.timeout {
        start = start.arg("--timeout").arg(timeout.to_string());
    }
    one(start.arg(name.as_str()))
}

fn one(program: Program) -> Result<View> {
    program.documents()?.pop().ok_or_else(|| Error::failed("a program said nothing of the new VM"))
}
