//! What a run needs before its VMM starts: the machine's plan, the guest's document, the initramfs.

use crate::{
    file_sync,
    network::{Wish, refuse_network, weaker_network},
};
use banger_config::Config;
use banger_doc::{
    Channel, Context, Disks, Error, Guest, HostPorts, Image, Kernel, NetMode, Result, Spec, Vm,
};
use banger_machine::{Disk, Machine, Plan};
use banger_net::{Carrier, Options, RunAs, Tools};
use banger_state::{State, VmFolder, clock_ms, place};
use nix::unistd::geteuid;
use serde_json::Value;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

/// The initramfs of this run, in the VM's folder.
const INITRAMFS: &str = "run/initramfs";
/// What a run is made of.
pub(crate) struct Prepared {
    pub(crate) machine: Box<dyn Machine>,
    /// The namespace to run it in, where the host is known to lack nothing for one.
    pub(crate) network: Option<Wish>,
    /// What carries the guest's packets where there is none.
    pub(crate) carrier: Option<Carrier>,
    pub(crate) addresses: Vec<String>,
    pub(crate) notes: Vec<String>,
    /// Which ports of the host are to lead into the guest.
    pub(crate) ports: HostPorts,
    /// Whom the image, or who made the VM, names as the guest's user.
    pub(crate) user: Option<String>,
}

/// Prepares a run that has to be up by then: reads the documents, writes the initramfs, chooses the
/// VMM.
pub(crate) fn prepare(state: &State, folder: &VmFolder, until: Instant) -> Result<Prepared> {
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
    check(&image, &kernel)?;
    let config = Config::load()?;
    let addresses = banger_net::Plan::new();
    let mut notes = Vec::new();
    let (mut network, mut without) = (None, None);
    let mut carried = None;
    if spec.net == NetMode::User {
        match wish(&spec, &config, &addresses) {
            Ok(wish) => network = Some(wish),
            Err(why) => without = Some(why),
        }
    }
    let mut plan = plan(state, &vm, &spec, &image, &kernel, until)?;
    plan.verbose = folder.wanted()?.is_some_and(|wanted| wanted.console);
    plan.tap = network.is_some().then(|| banger_net::TAP.to_owned());
    plan.user_network = addresses.user_network();
    if without.is_some() {
        carried = Some(carrier(&spec, &config, &kernel, &addresses, until));
    }
    plan.carried = matches!(carried, Some(Ok(_)));
    let (machine, note) = banger_machine::machine(spec.vmm, plan, &config.binaries)?;
    let mut carrier = None;
    if let (Some(why), Some(carried)) = (without, carried) {
        match carried {
            Ok(found) => {
                notes.push(carried_network(&why));
                carrier = Some(found);
            }
            Err(reason) if !spec.allow_host => return Err(refuse_network(&why, Some(&reason))),
            Err(_) => notes.push(weaker_network(&addresses, &why)),
        }
    }
    notes.extend(note);
    let mut guest = guest(&vm, &spec, &image, &kernel, &addresses, machine.guest_channel());
    let mut contents = Vec::new();
    match banger_ssh::guest_side(state, folder, &image.config) {
        Ok(side) => {
            guest.authorized_keys = side.authorized_keys;
            guest.files = side.files;
            contents = side.contents;
        }
        Err(error) => notes.push(format!("ssh: the guest has no keys ({})", error.chain())),
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let synced = file_sync::read(&config.file_sync, home.as_deref())?;
    guest.files.extend(synced.files);
    contents.extend(synced.contents);
    notes.extend(synced.notes);
    write_initramfs(state, &kernel, &guest, &contents)?;
    let addresses = guest.interfaces.into_iter().flat_map(|i| i.addresses).collect();
    let user = guest.config.user;
    Ok(Prepared { machine, network, carrier, addresses, notes, ports: spec.ports, user })
}

fn check(image: &Image, kernel: &Kernel) -> Result<()> {
    if image.architecture != kernel.architecture {
        return Err(Error::failed(format!(
            "image '{}' is for {}, kernel '{}' for {}",
            image.name, image.architecture, kernel.name, kernel.architecture
        ))
        .hint("create the VM with '--kernel' and one of the image's architecture"));
    }
    Ok(())
}

fn plan(
    state: &State,
    vm: &Vm,
    spec: &Spec,
    image: &Image,
    kernel: &Kernel,
    until: Instant,
) -> Result<Plan> {
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
    for Disk { role, path, .. } in &disks {
        let meta = fs::metadata(path)
            .with_context(|| format!("cannot find the {role} disk '{}'", path.display()))?;
        if meta.is_dir() {
            return Err(Error::failed(format!("the {role} disk '{}' is no file", path.display())));
        }
    }
    let kernel_file = kernel_folder.join(place::KERNEL_FILE);
    if geteuid().is_root() {
        // A root's VMM is another user; the state's own folder keeps everybody else out.
        let shared = disks.iter().filter(|disk| disk.read_only).map(|disk| &disk.path);
        for path in shared.chain([&kernel_file]).filter(|path| path.starts_with(state.root())) {
            let mode = fs::metadata(path).map_or(0o644, |meta| meta.permissions().mode());
            fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o444))
                .with_context(|| format!("cannot open '{}' to the VMM", path.display()))?;
        }
    }
    Ok(Plan {
        name: vm.name.to_string(),
        id: vm.id.clone(),
        architecture: kernel.architecture.clone(),
        vcpu: spec.vcpu,
        memory_mib: spec.memory_mib,
        kernel: kernel_file,
        initramfs: INITRAMFS.into(),
        disks,
        mac: (spec.net != NetMode::None).then(|| vm.mac.clone()),
        tap: None,
        carried: false,
        user_network: String::new(),
        verbose: false,
        namespaces: banger_net::user_namespaces(false),
        until,
    })
}

fn guest(
    vm: &Vm,
    spec: &Spec,
    image: &Image,
    kernel: &Kernel,
    addresses: &banger_net::Plan,
    channel: Channel,
) -> Guest {
    let networked = spec.net != NetMode::None;
    let device = |letter: char| format!("/dev/vd{letter}");
    let mut config = image.config.clone();
    if spec.user.is_some() {
        config.user.clone_from(&spec.user);
    }
    Guest {
        hostname: vm.name.to_string(),
        machine_id: vm.id.clone(),
        disks: Disks {
            base: device('a'),
            overlay: device('b'),
            work: device('c'),
            modules: kernel.has_modules.then(|| device('d')),
        },
        channel,
        interfaces: if networked { vec![addresses.interface(&vm.mac)] } else { Vec::new() },
        dns: if networked { addresses.dns() } else { Vec::new() },
        config,
        run_entrypoint: spec.extra.get("run_entrypoint").and_then(Value::as_bool).unwrap_or(true),
        init: spec.init,
        authorized_keys: Vec::new(),
        files: Vec::new(),
        clock_unix_ms: clock_ms(),
    }
}

/// Says what a network namespace takes here, or why there is none.
fn wish(spec: &Spec, config: &Config, plan: &banger_net::Plan) -> Result<Wish, String> {
    let run_as = RunAs::needed(config.run_as.as_deref())?;
    let tools = Tools::find(run_as, config.binaries.pasta.as_deref())?;
    let options = Options { run_as, allow_host: spec.allow_host, by_name: true };
    Ok(Wish { tools, plan: plan.clone(), options })
}

/// Returns what carries the guest's packets on a host that gives no tap, or why nothing does.
fn carrier(
    spec: &Spec,
    config: &Config,
    kernel: &Kernel,
    plan: &banger_net::Plan,
    until: Instant,
) -> Result<Carrier, String> {
    let run_as = RunAs::needed(config.run_as.as_deref())?;
    let pasta = config.binaries.pasta.as_deref();
    let carrier = Carrier::find(run_as, pasta, plan, spec.allow_host)?;
    banger_machine::streams(&kernel.architecture, &config.binaries, until)?;
    Ok(carrier)
}

/// What the user is to know of a VM whose packets `passt` carries.
fn carried_network(why: &str) -> String {
    format!(
        "network: passt without a namespace, since {why}; the guest reaches services that listen on all \
         of this host's addresses, link-local addresses, and the metadata of clouds"
    )
}

/// Writes the kernel's part and this VM's part, each padded to four bytes
/// (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).
fn write_initramfs(
    state: &State,
    kernel: &Kernel,
    guest: &Guest,
    contents: &[(String, Vec<u8>)],
) -> Result<()> {
    let first = state.kernels().folder(&kernel.name).join(place::KERNEL_INITRAMFS);
    let mut initramfs =
        begin_with(&first).with_context(|| format!("cannot write '{INITRAMFS}'"))?;
    banger_kernel::guest_archive(guest, contents, &mut initramfs)
}

/// Makes the initramfs and copies its first part there.
fn begin_with(first: &Path) -> io::Result<File> {
    let mut from = File::open(first)?;
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(INITRAMFS)?;
    let size = io::copy(&mut from, &mut to)?;
    to.write_all(&[0; 3][..(size.wrapping_neg() % 4) as usize])?;
    Ok(to)
}
