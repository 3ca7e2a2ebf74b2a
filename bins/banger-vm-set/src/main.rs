//! Changes the spec of VMs that do not run, and ports of those that do.
//!
//! Replaces `spec.json` whole under the VM's lock, and lengthens disk files; the guest grows its
//! file systems when it next boots. Ports are leased in `leases.db`; of a VM that runs they are asked
//! for in `wanted.json`, and `running.json` says what became of it.

mod ports;

use banger_cli::{Out, human_bytes};
use banger_config::{Size, limits};
use banger_doc::{
    Context, Error, Init, Name, NetMode, Publish, Result, Spec, View, Vmm, parse_ports,
};
use banger_state::{State, VmFolder, place, rewrite_document};
use std::{fmt::Write, fs::File, path::PathBuf, process::ExitCode};

/// Change VMs: size, network, VMM, init, ports
///
/// What is not named stays. Ports change at once, also while a VM runs; all else only while it does
/// not. Disks only grow: the guest's file system follows at the next boot.
#[derive(clap::Parser)]
#[command(name = "banger-vm-set", version)]
struct Args {
    /// Names of the VMs
    #[arg(value_name = "VM", required = true)]
    vms: Vec<Name>,
    /// Virtual processors, 1 to 32
    #[arg(long, aliases = ["cpus", "cpu", "vcpus"], value_name = "COUNT")]
    vcpu: Option<u32>,
    /// Memory, such as 512M or 2G
    #[arg(long, short, alias = "mem", value_name = "SIZE", allow_hyphen_values = true,
        value_parser = banger_config::limits::typed_memory)]
    memory: Option<Size>,
    /// Size of the disk at the user's home, such as 20G; no less than it has
    #[arg(long, alias = "disk", value_name = "SIZE", allow_hyphen_values = true)]
    disk_size: Option<Size>,
    /// Size of the disk for changes to the image; no less than it has
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    overlay_size: Option<Size>,
    /// Network: user or none
    #[arg(long, alias = "network", value_name = "MODE")]
    net: Option<NetMode>,
    /// Program that plays the machine: auto, firecracker or qemu
    #[arg(long, value_name = "VMM")]
    vmm: Option<Vmm>,
    /// What runs as the guest's first program: auto, image or minimal
    #[arg(long, value_name = "INIT")]
    init: Option<Init>,
    /// Let the guest reach services on this host's loopback, under its gateway's address
    #[arg(long, conflicts_with = "no_allow_host")]
    allow_host: bool,
    /// Keep this host's loopback shut to the guest
    #[arg(long)]
    no_allow_host: bool,
    /// Port of this host that leads to one of the guest, HOST:GUEST or ADDRESS:HOST:GUEST; may be repeated
    #[arg(long, short, value_name = "PORTS")]
    publish: Vec<Publish>,
    /// Port of this host that leads to the guest no more, or 'all'; may be repeated
    #[arg(long, value_name = "HOST-PORT", value_parser = ports::parse_unpublish)]
    unpublish: Vec<ports::Unpublish>,
    /// Whether what listens in the guest appears on a loopback address of this host: auto or none
    #[arg(long, value_name = "MODE", value_parser = parse_ports)]
    ports: Option<bool>,
}

impl Args {
    /// Says whether something is named that a VM that runs cannot change.
    fn needs_stop(&self) -> bool {
        let Self { vcpu, memory, disk_size, overlay_size, net, vmm, init, .. } = self;
        vcpu.is_some()
            || memory.is_some()
            || disk_size.is_some()
            || overlay_size.is_some()
            || net.is_some()
            || vmm.is_some()
            || init.is_some()
            || self.allow_host
            || self.no_allow_host
    }

    /// Says whether ports are named.
    fn names_ports(&self) -> bool {
        !self.publish.is_empty() || !self.unpublish.is_empty() || self.ports.is_some()
    }
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    check(&args)?;
    let state = State::open_read_only()?;
    out.each(&args.vms, |name| set(&state, &state.vm(name)?, &args), words)
}

/// Refuses what no VM can have before any is touched.
fn check(args: &Args) -> Result<()> {
    if !args.needs_stop() && !args.names_ports() {
        return Err(Error::usage("nothing to set")
            .hint("name what to change, such as '--memory 2G'; 'banger vm set --help' lists it"));
    }
    args.vcpu.map(limits::vcpu).transpose()?;
    args.memory.map(limits::memory).transpose()?;
    Ok(())
}

fn set(state: &State, folder: &VmFolder, args: &Args) -> Result<View> {
    let name = folder.name();
    if !args.needs_stop() {
        ports::change(state, folder, args)?;
        return folder.view();
    }
    let Some(lock) = folder.try_lock()? else {
        let runs = Error::conflict(format!("VM '{name}' runs"))
            .hint(format!("'banger vm stop {name}' stops it; then set, then start it again"));
        return Err(folder.why_locked(runs));
    };
    let mut spec: Spec = folder.spec()?;
    if let Some(count) = args.vcpu {
        spec.vcpu = count;
    }
    if let Some(memory) = args.memory {
        spec.memory_mib = memory.mib();
    }
    if let Some(net) = args.net {
        spec.net = net;
    }
    if let Some(vmm) = args.vmm {
        spec.vmm = vmm;
    }
    if let Some(init) = args.init {
        spec.init = init;
    }
    // Both are looked at before either grows.
    let open = |size, place, option| Growth::open(folder.join(place), size, option);
    let work = args.disk_size.map(|size| open(size, place::VM_WORK, "--disk-size"));
    let overlay = args.overlay_size.map(|size| open(size, place::VM_OVERLAY, "--overlay-size"));
    let (work, overlay) = (work.transpose()?, overlay.transpose()?);
    if let Some(work) = work {
        spec.disk_bytes = work.grow()?;
    }
    if let Some(overlay) = overlay {
        spec.overlay_bytes = overlay.grow()?;
    }
    if args.allow_host || args.no_allow_host {
        spec.allow_host = args.allow_host;
    }
    rewrite_document(&folder.join(place::VM_SPEC), &spec)?;
    if args.names_ports() {
        ports::change(state, folder, args)?;
    }
    // Held, it would look like a supervisor's.
    drop(lock);
    folder.view()
}

/// A disk that is to grow, and may.
struct Growth {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Growth {
    fn open(path: PathBuf, size: Size, option: &str) -> Result<Self> {
        let bytes = limits::disk_bytes(size.bytes(), option)?;
        let file = File::options()
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open the disk '{}'", path.display()))?;
        let now = file
            .metadata()
            .with_context(|| format!("cannot look at the disk '{}'", path.display()))?
            .len();
        if bytes < now {
            return Err(Error::usage(format!("'{option}' is less than the disk has"))
                .hint(format!("it has {}; disks only grow", human_bytes(now))));
        }
        Ok(Self { path, file, bytes })
    }

    /// Lengthens the file. One that is longer than its file system is a valid disk, so a crash before
    /// the spec is replaced loses nothing.
    fn grow(self) -> Result<u64> {
        self.file
            .set_len(self.bytes)
            .and_then(|()| self.file.sync_all())
            .with_context(|| format!("cannot grow the disk '{}'", self.path.display()))?;
        Ok(self.bytes)
    }
}

fn words(view: &View) -> String {
    let spec = &view.spec;
    let mut more = String::new();
    if !spec.init.is_auto() {
        let _ = write!(more, ", init {}", spec.init);
    }
    for one in &spec.ports.publish {
        let _ = write!(more, ", publishes {one}");
    }
    if let Some(loopback) = spec.ports.loopback {
        let _ = write!(more, ", its ports on {loopback}");
    }
    format!(
        "{}: {} vcpu, {} MiB, disk {}, overlay {}, net {}, vmm {}{more}",
        view.vm.name,
        spec.vcpu,
        spec.memory_mib,
        human_bytes(spec.disk_bytes),
        human_bytes(spec.overlay_bytes),
        spec.net,
        spec.vmm
    )
}
