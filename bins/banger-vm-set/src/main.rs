//! Changes the spec of VMs that do not run.
//!
//! Replaces `spec.json` whole under the VM's lock, and lengthens disk files; the guest grows its
//! file systems when it next boots.

use banger_cli::{Out, human_bytes};
use banger_config::{Size, limits};
use banger_doc::{Context, Error, Name, NetMode, Result, Spec, View, Vmm};
use banger_state::{State, VmFolder, place, rewrite_document};
use std::{fs::File, path::Path, process::ExitCode};

/// Change VMs that do not run: processors, memory, disks, network, VMM
///
/// What is not named stays. Disks only grow: the guest's file system follows at the next boot.
#[derive(clap::Parser)]
#[command(name = "banger-vm-set", version)]
struct Args {
    /// Names of the VMs
    #[arg(value_name = "VM", required = true)]
    vms: Vec<Name>,
    /// Virtual processors, 1 to 32
    #[arg(long, value_name = "COUNT")]
    vcpu: Option<u32>,
    /// Memory, such as 512M or 2G
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<Size>,
    /// Size of the disk at /root, such as 20G; no less than it has
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    disk_size: Option<Size>,
    /// Size of the disk for changes to the image; no less than it has
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    overlay_size: Option<Size>,
    /// Network: user, nat or none
    #[arg(long, value_name = "MODE")]
    net: Option<NetMode>,
    /// Program that plays the machine: auto, firecracker or qemu
    #[arg(long, value_name = "VMM")]
    vmm: Option<Vmm>,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    check(&args)?;
    let state = State::open_read_only()?;
    out.each(&args.vms, |name| set(&state.vm(name)?, &args), words)
}

/// Refuses what no VM can have before any is touched.
fn check(args: &Args) -> Result<()> {
    let Args { vcpu, memory, disk_size, overlay_size, net, vmm, .. } = args;
    if vcpu.is_none()
        && memory.is_none()
        && disk_size.is_none()
        && overlay_size.is_none()
        && net.is_none()
        && vmm.is_none()
    {
        return Err(Error::usage("nothing to set")
            .hint("name what to change, such as '--memory 2G'; 'banger vm set --help' lists it"));
    }
    vcpu.map(limits::vcpu).transpose()?;
    memory.map(|size| limits::memory_mib(size.mib())).transpose()?;
    Ok(())
}

fn set(folder: &VmFolder, args: &Args) -> Result<View> {
    let name = folder.name();
    let Some(_lock) = folder.try_lock()? else {
        return Err(Error::conflict(format!("VM '{name}' runs"))
            .hint(format!("'banger vm stop {name}' stops it; then set, then start it again")));
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
    if let Some(size) = args.disk_size {
        spec.disk_bytes = grow(&folder.join(place::VM_WORK), size, "--disk-size")?;
    }
    if let Some(size) = args.overlay_size {
        spec.overlay_bytes = grow(&folder.join(place::VM_OVERLAY), size, "--overlay-size")?;
    }
    rewrite_document(&folder.join(place::VM_SPEC), &spec)?;
    folder.view()
}

/// Lengthens a disk's file. A file that is longer than its file system is a valid disk, so a crash
/// before the spec is replaced loses nothing.
fn grow(path: &Path, size: Size, option: &str) -> Result<u64> {
    let bytes = limits::disk_bytes(size.bytes(), option)?;
    let file = File::options()
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open the disk '{}'", path.display()))?;
    let now = file
        .metadata()
        .with_context(|| format!("cannot look at the disk '{}'", path.display()))?
        .len();
    if bytes < now {
        return Err(Error::usage(format!("'{option}' is less than the disk has"))
            .hint(format!("it has {}; disks only grow", human_bytes(now))));
    }
    file.set_len(bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot grow the disk '{}'", path.display()))?;
    Ok(bytes)
}

fn words(view: &View) -> String {
    let spec = &view.spec;
    format!(
        "{}: {} vcpu, {} MiB, disk {}, overlay {}, net {}, vmm {}",
        view.vm.name,
        spec.vcpu,
        spec.memory_mib,
        human_bytes(spec.disk_bytes),
        human_bytes(spec.overlay_bytes),
        spec.net,
        spec.vmm
    )
}
