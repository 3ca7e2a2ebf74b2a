//! Creates a VM.
//!
//! Reads the image's and the kernel's record, running `banger-image-pull` or `banger-kernel-pull`
//! where one is missing. Writes the VM's folder: its record, its spec, two empty disks. Then runs
//! `banger-vm-start`, unless told not to.

mod names;
mod parts;
mod room;
mod size;

use banger_cli::{Out, Program, interrupt, is_called};
use banger_config::{Config, Size};
use banger_doc::{
    Context, Error, Image, Init, Kind, Mark, Name, NetMode, Publish, Removed, Result, Spec, Status,
    View, Vm, Vmm, parse_ports,
};
use banger_lease::Leases;
use banger_stages::Times;
use banger_state::{Staged, State, clock_s, place, write_document};
use std::{fs::File, path::Path, process::ExitCode};

/// Create a VM from an image and start it
///
/// A missing image or kernel is pulled first.
#[derive(clap::Parser)]
#[command(name = "banger-vm-create", version)]
struct Args {
    /// Name of the new VM [default: one is made up]
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Name of an image, or what 'banger image pull' can pull [default: debian-bookworm]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Name of a kernel [default: the image's, else generic-6.12]
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<Name>,
    /// Virtual processors, 1 to 32 [default: a quarter of the host's, 1 to 4]
    #[arg(long, aliases = ["cpus", "cpu", "vcpus"], value_name = "COUNT")]
    vcpu: Option<u32>,
    /// Memory, such as 512M or 2G [default: an eighth of the host's, at most 8G]
    #[arg(long, short, alias = "mem", value_name = "SIZE", allow_hyphen_values = true,
        value_parser = banger_config::limits::typed_memory)]
    memory: Option<Size>,
    /// The guest's user: user, uid, user:group or uid:gid [default: the image's, else root]
    #[arg(long, short, value_name = "USER", value_parser = banger_doc::parse_user)]
    user: Option<String>,
    /// Size of the disk at the user's home, such as 20G; it takes what is used of it [default: 8G]
    #[arg(long, alias = "disk", value_name = "SIZE", allow_hyphen_values = true)]
    disk_size: Option<Size>,
    /// Size of the disk for changes to the image; it takes what is used of it [default: 8G]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    overlay_size: Option<Size>,
    /// Network: user or none [default: user]
    #[arg(long, alias = "network", value_name = "MODE")]
    net: Option<NetMode>,
    /// Let the guest reach services on this host's loopback, under its gateway's address
    #[arg(long)]
    allow_host: bool,
    /// Port of this host that leads to one of the guest, HOST:GUEST or ADDRESS:HOST:GUEST; may be repeated
    #[arg(long, short, value_name = "PORTS")]
    publish: Vec<Publish>,
    /// Whether what listens in the guest appears on a loopback address of this host: auto or none
    #[arg(long, value_name = "MODE", value_parser = parse_ports)]
    ports: Option<bool>,
    /// Program that plays the machine: auto, firecracker or qemu [default: auto]
    #[arg(long, value_name = "VMM")]
    vmm: Option<Vmm>,
    /// What runs as the guest's first program: auto, image or minimal [default: auto]
    #[arg(long, value_name = "INIT")]
    init: Option<Init>,
    /// Create only
    #[arg(long)]
    no_start: bool,
    /// How far to wait for the guest: agent (it answers) or booted (its init has finished what comes before
    /// logins)
    #[arg(long = "wait", value_name = "MARK", default_value_t = Mark::Booted, conflicts_with = "no_start")]
    mark: Mark,
    /// How long the guest may take, in seconds [default: 90 to its agent's answer, emulated 300, then 300]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
    /// Let the kernel tell all it does, and show the console on stderr meanwhile
    #[arg(long, conflicts_with = "no_start")]
    console: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let config = Config::load()?;
    let spec = size::spec(&args, &config)?;
    if let Some(name) = args.name.as_ref().filter(|name| !name.is_label()) {
        return Err(Error::usage(format!("'{name}' is not a name for a VM: it has a '.'"))
            .hint("the VM's name is its host name; use a-z, 0-9 and '-'"));
    }
    let state = State::open()?;
    if let Some(name) = args.name.as_ref().filter(|name| state.vms().has(name)) {
        return Err(Error::conflict(format!("VM '{name}' exists")).hint(format!(
            "choose another name, or 'banger vm stop {name}' and 'banger vm delete {name}' first"
        )));
    }
    let quiet = out.is_quiet();
    let mut times = Times::begin();
    let image = parts::image(&state, args.image.as_deref().unwrap_or(config.image()), quiet)?;
    times.part("image");
    let kernel = args
        .kernel
        .clone()
        .or_else(|| image.kernel.clone())
        .or_else(|| config.default_kernel.clone());
    let kernel = parts::kernel(&state, kernel, quiet)?;
    if kernel.architecture != image.architecture {
        return Err(Error::failed(format!(
            "image '{}' is for {}, kernel '{}' for {}",
            image.name, image.architecture, kernel.name, kernel.architecture
        ))
        .hint("choose a kernel of the image's architecture with '--kernel'"));
    }
    times.part("kernel");
    let made = publish(&state, args.name.as_ref(), &spec, &image, &kernel.name)?;
    if args.no_start {
        return out.put(&made, |view| format!("created VM '{}'", view.vm.name));
    }
    let name = made.vm.name;
    if !is_called() {
        interrupt::watch()?;
        interrupt::say(Some(format!(
            "VM '{name}' comes up all the same; 'banger vm wait {name}' waits for it, 'banger vm stop {name}' ends it"
        )));
    }
    let mut start = Program::new("banger-vm-start")?.args(quiet.then_some("--quiet"));
    start = start.args(args.console.then_some("--console"));
    start = start.args(args.mark.option());
    if let Some(timeout) = args.timeout {
        start = start.arg("--timeout").arg(timeout.to_string());
    }
    let views = start.arg(name.as_str()).documents::<View>().inspect_err(|error| {
        // What this host cannot run nobody wants: it never ran, and nothing is on its disks.
        if error.kind() == Kind::Unavailable {
            let delete = Program::new("banger-vm-delete");
            let _ =
                delete.and_then(|it| it.args(["--quiet", name.as_str()]).documents::<Removed>());
        }
    })?;
    times.part("boot");
    times.say(&name, out);
    // Whoever watches was told by the other program.
    let words = if out.is_live() { String::new() } else { format!("VM '{name}' is ready") };
    views.iter().try_for_each(|view| out.put(view, |_| words.clone()))
}

/// Makes the VM's folder and lets everybody see it, under the given or a made-up name. Returns the
/// VM as it was then: somebody else may delete it the moment it is seen.
fn publish(
    state: &State,
    name: Option<&Name>,
    spec: &Spec,
    image: &Image,
    kernel: &Name,
) -> Result<View> {
    let random = parts::Random::read()?;
    for attempt in 0..100 {
        let chosen = match name {
            Some(name) => name.clone(),
            None => names::made_up(&random, attempt),
        };
        match add(state, &chosen, &random, spec, image, kernel) {
            Err(error) if error.kind() == Kind::Conflict && name.is_none() => {}
            other => return other,
        }
    }
    Err(Error::conflict("every name that was made up is taken").hint("choose one with '--name'"))
}

fn add(
    state: &State,
    name: &Name,
    random: &parts::Random,
    spec: &Spec,
    image: &Image,
    kernel: &Name,
) -> Result<View> {
    let vms = state.vms();
    let staged = vms.begin(name)?;
    let id = random.id();
    let mut spec = spec.clone();
    if !spec.ports.is_empty() {
        spec.ports = Leases::open(state)?.take(name, &id, &spec.ports)?;
    }
    finish(state, name, random, spec, image, kernel, staged).inspect_err(|_| {
        // What stays in spite of this belongs to a VM that is not there: anybody may take it.
        let _ = banger_lease::release(state, &id);
    })
}

fn finish(
    state: &State,
    name: &Name,
    random: &parts::Random,
    spec: Spec,
    image: &Image,
    kernel: &Name,
    staged: Staged,
) -> Result<View> {
    write_document(&staged.path().join(place::VM_SPEC), &spec)?;
    disk(&staged.path().join(place::VM_OVERLAY), spec.overlay_bytes, random.overlay, "overlay")?;
    disk(&staged.path().join(place::VM_WORK), spec.disk_bytes, random.work, "work")?;
    room::check(
        image,
        &state.base_disk(image),
        &spec,
        &staged.path().join(place::VM_WORK),
        &staged.path().join(place::VM_OVERLAY),
    )?;
    // A host without an ssh client has VMs all the same; the supervisor says what is missing.
    match banger_ssh::make_host_key(staged.path(), name) {
        Err(error) if error.kind() != Kind::Unavailable => return Err(error),
        _ => {}
    }
    let vm = Vm {
        name: name.clone(),
        id: random.id(),
        image: image.name.clone(),
        kernel: kernel.clone(),
        mac: random.mac(),
        created_unix_s: clock_s(),
    };
    // Under these locks nobody deletes what the new VM needs; whoever comes later sees the VM.
    let images = state.images();
    let kernels = state.kernels();
    let _images = images.lock()?;
    let _kernels = kernels.lock()?;
    images.must_exist(&image.name)?;
    kernels.must_exist(kernel)?;
    state.vms().publish(name, staged, &vm)?;
    Ok(View {
        status: Status::Created,
        vm,
        spec,
        folder: state.vms().folder(name).display().to_string(),
        running: None,
        last_exit: None,
    })
}

fn disk(path: &Path, size_bytes: u64, uuid: [u8; 16], label: &str) -> Result<()> {
    let make = || -> Result<()> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .context("cannot make the file")?;
        banger_ext4::write_empty(&file, size_bytes, uuid, label)
    };
    make().with_context(|| format!("cannot make the disk '{}'", path.display()))
}
