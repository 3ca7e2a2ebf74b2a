//! What a run needs before its VMM starts: the machine's plan, the guest's document, the initramfs.

use banger_config::Config;
use banger_doc::{
    Context, Disks, Error, Guest, Image, Interface, Kernel, NetMode, Result, Spec, Vm,
};
use banger_machine::{Disk, Machine, Plan};
use banger_state::{State, VmFolder, clock_ms, place};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// The initramfs of this run, in the VM's folder.
const INITRAMFS: &str = "run/initramfs";
/// What QEMU's own network gives the first guest (`-netdev user`).
const GUEST_ADDRESS: &str = "10.0.2.15/24";
const GATEWAY: &str = "10.0.2.2";
const NAME_SERVER: &str = "10.0.2.3";

/// What a run is made of.
pub(crate) struct Prepared {
    pub(crate) machine: Box<dyn Machine>,
    pub(crate) addresses: Vec<String>,
    pub(crate) notes: Vec<String>,
}

/// Prepares a run: reads the documents, writes the initramfs, chooses the VMM.
pub(crate) fn prepare(state: &State, folder: &VmFolder) -> Result<Prepared> {
    let vm = folder.vm()?;
    let spec = folder.spec()?;
    let image = state
        .images()
        .get(&vm.image)
        .with_context(|| format!("the image of VM '{}' is gone", vm.name))?;
    let kernel = state
        .kernels()
        .get(&vm.kernel)
        .with_context(|| format!("the kernel of VM '{}' is gone", vm.name))?;
    check(&spec, &image, &kernel)?;
    let config = Config::load()?;
    let plan = plan(state, &vm, &spec, &image, &kernel)?;
    let machine = banger_machine::machine(spec.vmm, plan, &config.binaries)?;
    let guest = guest(&vm, &spec, &image, &kernel);
    write_initramfs(state, &kernel, &guest)?;
    let addresses = guest.interfaces.into_iter().flat_map(|i| i.addresses).collect();
    Ok(Prepared { machine, addresses, notes: notes(&spec) })
}

fn check(spec: &Spec, image: &Image, kernel: &Kernel) -> Result<()> {
    if spec.net == NetMode::Nat {
        return Err(Error::unavailable("network mode 'nat' cannot be had here")
            .hint("create the VM with '--net user'"));
    }
    if image.architecture != kernel.architecture {
        return Err(Error::failed(format!(
            "image '{}' is for {}, kernel '{}' for {}",
            image.name, image.architecture, kernel.name, kernel.architecture
        ))
        .hint("create the VM with '--kernel' and one of the image's architecture"));
    }
    Ok(())
}

fn plan(state: &State, vm: &Vm, spec: &Spec, image: &Image, kernel: &Kernel) -> Result<Plan> {
    let kernel_folder = state.kernels().folder(&kernel.name);
    let mut disks = vec![
        Disk { role: "base", path: state.base_disk(image), read_only: true },
        Disk { role: "overlay", path: place::VM_OVERLAY.into(), read_only: false },
        Disk { role: "work", path: place::VM_WORK.into(), read_only: false },
    ];
    if kernel.has_modules {
        let path = kernel_folder.join(place::KERNEL_MODULES);
        disks.push(Disk { role: "modules", path, read_only: true });
    }
    for disk in &disks {
        fs::metadata(&disk.path).with_context(|| {
            format!("cannot find the {} disk '{}'", disk.role, disk.path.display())
        })?;
    }
    Ok(Plan {
        name: vm.name.to_string(),
        architecture: kernel.architecture.clone(),
        vcpu: spec.vcpu,
        memory_mib: spec.memory_mib,
        kernel: kernel_folder.join(place::KERNEL_FILE),
        initramfs: INITRAMFS.into(),
        disks,
        mac: (spec.net != NetMode::None).then(|| vm.mac.clone()),
        tap: None,
    })
}

fn guest(vm: &Vm, spec: &Spec, image: &Image, kernel: &Kernel) -> Guest {
    let networked = spec.net != NetMode::None;
    let interface = Interface {
        mac: vm.mac.clone(),
        addresses: vec![GUEST_ADDRESS.into()],
        gateways: vec![GATEWAY.into()],
        mtu: None,
    };
    let device = |letter: char| format!("/dev/vd{letter}");
    Guest {
        hostname: vm.name.to_string(),
        machine_id: vm.id.clone(),
        disks: Disks {
            base: device('a'),
            overlay: device('b'),
            work: device('c'),
            modules: kernel.has_modules.then(|| device('d')),
        },
        channel: banger_channel::SERIAL_PORT.into(),
        interfaces: if networked { vec![interface] } else { Vec::new() },
        dns: if networked { vec![NAME_SERVER.into()] } else { Vec::new() },
        config: image.config.clone(),
        run_entrypoint: spec.extra.get("run_entrypoint").and_then(|v| v.as_bool()).unwrap_or(true),
        authorized_keys: Vec::new(),
        files: Vec::new(),
        clock_unix_ms: clock_ms(),
    }
}

fn notes(spec: &Spec) -> Vec<String> {
    if spec.net == NetMode::None {
        return Vec::new();
    }
    vec![format!(
        "network: QEMU's own; the guest reaches services on this host's loopback as {GATEWAY}"
    )]
}

/// Writes the kernel's part and this VM's part, each padded to four bytes
/// (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).
fn write_initramfs(state: &State, kernel: &Kernel, guest: &Guest) -> Result<()> {
    let first = state.kernels().folder(&kernel.name).join(place::KERNEL_INITRAMFS);
    let archive = banger_kernel::guest_archive(guest, &[])
        .context("cannot make the VM's part of the initramfs")?;
    concatenate(&first, &archive).with_context(|| format!("cannot write '{INITRAMFS}'"))
}

fn concatenate(first: &Path, archive: &[u8]) -> io::Result<()> {
    let mut from = File::open(first)?;
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(INITRAMFS)?;
    let size = io::copy(&mut from, &mut to)?;
    to.write_all(&[0; 3][..(size.wrapping_neg() % 4) as usize])?;
    to.write_all(archive)
}
