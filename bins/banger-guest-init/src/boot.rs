//! The order of things, from the kernel's first program to the image's.

use crate::{apply, disks, hand, keeper, network, say};
use banger_doc::{Context, Document, Error, Guest, Result};
use banger_guest::{modules, place};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sys::stat::Mode,
    unistd::dup2_raw,
};
use std::{fs, io::Read, os::fd::IntoRawFd, path::Path};

/// What the host tells is at most this large, contents of files included.
const MAX_TOLD: u64 = 64 << 20;

/// Boots the guest. Returns only by becoming the image's init, or with the machine.
pub(crate) fn run() {
    // A panic is a bug, and PID 1 that ends is a kernel's panic with a page of registers.
    std::panic::set_hook(Box::new(|info| say::console(&format!("bug: {info}"))));
    let result = std::panic::catch_unwind(boot);
    match result {
        Ok(Err(error)) => say::fatal(&error.chain()),
        _ => say::fatal("cannot go on"),
    }
}

fn boot() -> Result<()> {
    say::stage("kernel");
    first_mounts()?;
    let told = Told::read()?;
    say::stage("told");
    let guest = &told.guest;
    load(&told.modules, "disk")?;
    if !has_virtio_on_pci() {
        load(&told.modules, "mmio")?;
    }
    load(&told.modules, if guest.channel == "vsock" { "vsock" } else { "channel" })?;
    say::stage("modules");
    disks::make_root(guest)?;
    say::stage("root");
    populate_run(&told)?;
    disks::enter_root()?;
    say::stage("run");

    // From here on the image's tree is `/`, and its links lead nowhere else.
    disks::second_mounts(guest);
    say::stage("mounts");
    apply::identity(guest);
    apply::files(guest, &told.files);
    say::stage("identity");
    if !guest.interfaces.is_empty() {
        say::or_warn(load_from(&told.kept, "net"));
    }
    network::up(guest);
    say::stage("network");
    say::or_warn(keeper::start());
    say::or_warn(load_from(&told.kept, "late"));
    say::stage("late");
    say::stages();
    hand::over(guest)
}

fn first_mounts() -> Result<()> {
    for (source, place, kind) in
        [("proc", "/proc", "proc"), ("sysfs", "/sys", "sysfs"), ("devtmpfs", "/dev", "devtmpfs")]
    {
        fs::create_dir_all(place).with_context(|| format!("cannot make '{place}'"))?;
        let none: Option<&str> = None;
        let flags = MsFlags::MS_NOSUID
            | if place == "/dev" {
                MsFlags::empty()
            } else {
                MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
            };
        mount(Some(source), place, Some(kind), flags, none)
            .with_context(|| format!("cannot mount '{place}'"))?;
    }
    // A kernel whose own archive lacks /dev/console starts us without the three descriptors.
    if let Ok(console) = open("/dev/console", OFlag::O_RDWR | OFlag::O_NOCTTY, Mode::empty()) {
        let raw = console.into_raw_fd();
        for number in 0..3 {
            if raw != number {
                // SAFETY: 0, 1 and 2 are the standard descriptors; nobody else holds them as owned.
                let _ = unsafe { dup2_raw(std::os::fd::BorrowedFd::borrow_raw(raw), number) };
            }
        }
    }
    Ok(())
}

/// What came in the initramfs.
struct Told {
    guest: Guest,
    document: Vec<u8>,
    /// Contents of files, in the document's order.
    files: Vec<Vec<u8>>,
    /// Groups and files of modules.
    modules: Vec<(String, String)>,
    /// Modules that are loaded after the initramfs is gone.
    kept: Vec<(String, String, Vec<u8>)>,
}

impl Told {
    fn read() -> Result<Self> {
        let mut rest = MAX_TOLD;
        let mut take = |path: &Path| -> Result<Vec<u8>> {
            let failed = || format!("cannot read '{}' of the initramfs", path.display());
            let mut bytes = Vec::new();
            fs::File::open(path)
                .and_then(|file| file.take(rest + 1).read_to_end(&mut bytes))
                .with_context(failed)?;
            rest = rest
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| Error::failed("the initramfs holds too much"))?;
            Ok(bytes)
        };
        let document = take(Path::new("/banger/guest.json"))?;
        let guest = Guest::from_slice(&document).context("cannot read what the host tells")?;
        let files = guest
            .files
            .iter()
            .map(|file| take(&Path::new("/").join(&file.content)))
            .collect::<Result<_>>()?;
        let list = fs::read_to_string("/banger/modules").unwrap_or_default();
        let modules: Vec<(String, String)> = list
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(group, file)| (group.to_owned(), file.to_owned()))
            .collect();
        let mut kept = Vec::new();
        for (group, file) in &modules {
            if ["net", "late"].contains(&group.as_str()) {
                let bytes = take(&Path::new("/banger/ko").join(file))?;
                kept.push((group.clone(), file.clone(), bytes));
            }
        }
        Ok(Self { guest, document, files, modules, kept })
    }
}

fn load(modules: &[(String, String)], group: &str) -> Result<()> {
    for (_, file) in modules.iter().filter(|(of, _)| of == group) {
        modules::insert(&Path::new("/banger/ko").join(file), "")?;
    }
    Ok(())
}

/// Loads modules that were read before the initramfs was left. One that finds no device is not missed.
fn load_from(kept: &[(String, String, Vec<u8>)], group: &str) -> Result<()> {
    for (_, file, bytes) in kept.iter().filter(|(of, ..)| of == group) {
        match nix::kmod::init_module(bytes, c"") {
            Ok(()) | Err(Errno::EEXIST | Errno::ENODEV | Errno::EOPNOTSUPP) => {}
            Err(errno) => {
                return Err(errno).context(format!("cannot load the module '{file}'"));
            }
        }
    }
    Ok(())
}

/// Says whether a virtio device is on PCI; without one, they are memory-mapped.
fn has_virtio_on_pci() -> bool {
    let devices = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    devices
        .filter_map(|device| fs::read_to_string(device.path().join("vendor")).ok())
        .any(|vendor| vendor.trim() == "0x1af4")
}

/// Mounts `/run` and puts there what is needed when the initramfs is gone.
fn populate_run(told: &Told) -> Result<()> {
    disks::mount_run()?;
    let dir = disks::in_root(place::RUN);
    for below in ["", "/bin", "/disk"] {
        let path = format!("{}{below}", dir.display());
        fs::create_dir_all(&path).with_context(|| format!("cannot make '{path}'"))?;
    }
    let write = |path: &str, bytes: &[u8], mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = disks::in_root(path);
        fs::write(&path, bytes)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("cannot write '{}'", path.display()))
    };
    write(place::DOCUMENT, &told.document, 0o600)?;
    let devices = format!("{}\n{}\n", told.guest.disks.overlay, told.guest.disks.work);
    write(place::DEVICES, devices.as_bytes(), 0o644)?;
    for (from, to) in [("/init", place::INIT), ("/banger/banger-guest-agent", place::AGENT)] {
        let bytes = fs::read(from).with_context(|| format!("cannot read '{from}'"))?;
        write(to, &bytes, 0o755)?;
        // The initramfs stays in memory for good, so what lies there is taken out.
        let _ = fs::remove_file(from);
    }
    let _ = fs::remove_dir_all("/banger");
    let shutdown = disks::in_root(place::SHUTDOWN_ROOT);
    let link = || -> std::io::Result<()> {
        std::os::unix::fs::symlink("../banger-guest-init", disks::in_root(place::MODPROBE))?;
        for dir in ["proc", "sys", "dev", "run", "tmp", "oldroot"] {
            fs::create_dir_all(shutdown.join(dir))?;
        }
        fs::hard_link(disks::in_root(place::INIT), shutdown.join("shutdown"))?;
        fs::hard_link(disks::in_root(place::DEVICES), shutdown.join("devices"))
    };
    link().context("cannot prepare the end in '/run'")?;
    disks::keep_disks()
}
