//! The order of things, from the kernel's first program to the image's.

use crate::{apply, choose, disks, firstboot, hand, keeper, network, nodes, reach, say, units};
use banger_doc::{Channel, Context, Document, Error, Guest, Result};
use banger_guest::{place, process};
use banger_tree::remove_tree_if_there;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::stat::Mode,
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use std::{
    fs,
    io::Read,
    os::fd::{FromRawFd, OwnedFd},
    path::Path,
};

/// What the host tells is at most this large, contents of files included.
const MAX_TOLD: u64 = 64 << 20;

/// Settings of the kernel, as Docker has them: ordinary users listen on low ports and send pings, since all of
/// the machine is one user's. An image's own `/etc/sysctl.d` comes later and counts.
const SETTINGS: &[(&str, &str)] =
    &[("net/ipv4/ip_unprivileged_port_start", "0"), ("net/ipv4/ping_group_range", "0 2147483647")];

/// Where the modules are, before and after the image's root is entered.
const EARLY: &str = "/banger/ko";
const LATE: &str = "/run/banger/ko";

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
    load(&told.modules, if has_virtio_on_pci() { "pci" } else { "mmio" }, EARLY)?;
    let channel = match guest.channel {
        Channel::Vsock => "vsock",
        Channel::VirtioSerial => "channel",
    };
    load(&told.modules, channel, EARLY)?;
    say::stage("channel");
    say::or_warn(process::set_limits());
    let mut agent = say::or_warn(keeper::start_agent(guest));
    // The rest gives way to the agent, which somebody waits for. What a command, a file or a forward needs of it,
    // the agent waits for.
    nice(LAST);
    if let Some(agent) = &mut agent {
        agent.give_way();
    }
    say::stage("agent");
    load(&told.modules, "disk", EARLY)?;
    say::stage("modules");
    disks::make_root(guest)?;
    say::stage("root");
    populate(&told)?;
    disks::enter_root()?;

    // From here on the image's tree is `/`, and its links lead nowhere else.
    let home = disks::home(guest);
    home.announce();
    say::stage("run");
    disks::second_mounts(guest, &home)?;
    working_directory(guest);
    say::stage("mounts");
    // Not before: what it wrote where a disk is yet to be mounted, or copied to, would be lost from sight.
    if let Some(agent) = &mut agent {
        agent.let_in();
    }
    say::stage("entered");
    network::loopback_up();
    for (name, value) in SETTINGS {
        let path = Path::new("/proc/sys").join(name);
        say::or_warn(
            fs::write(&path, value).with_context(|| format!("cannot write '{}'", path.display())),
        );
    }
    apply::identity(guest, &home);
    apply::files(guest, &told.files, &home);
    say::stage("identity");
    if let Some(modules) = &guest.disks.modules {
        say::or_warn(disks::kernel_modules(modules));
        nodes::make();
    }
    if !guest.interfaces.is_empty() {
        say::or_warn(load(&told.modules, "net", LATE));
        network::up(guest);
        units::interfaces(guest);
    }
    say::stage("network");
    say::or_warn(load(&told.modules, "late", LATE));
    // It lies in memory.
    say::or_warn(
        remove_tree_if_there(Path::new(LATE)).context("cannot remove modules that were loaded"),
    );
    nice(0);
    agent.map(|agent| say::or_warn(keeper::start(agent)));
    say::stage("late");
    say::stages();
    let choice = choose::choose(Path::new("/"), guest);
    hand::announce(&choice);
    say::or_warn(fs::write(place::PREPARED, "").context("cannot say that the guest is prepared"));
    say::or_warn(firstboot::start(guest));
    hand::over(guest, &choice)
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
        standard(console).context("cannot make the console the standard input and output")?;
    }
    Ok(())
}

/// Makes a descriptor the first three, and leaves no other one of it: whatever this process becomes or starts
/// has those, and only root opens the console anew.
fn standard(console: OwnedFd) -> nix::Result<()> {
    // Not one of the three: what is closed below has to be another.
    let above = fcntl(&console, FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
    let above = unsafe { OwnedFd::from_raw_fd(above) };
    drop(console);
    dup2_stdin(&above)?;
    dup2_stdout(&above)?;
    dup2_stderr(&above)
}

/// Makes the directory that commands of the image start in, where no layer has one.
fn working_directory(guest: &Guest) {
    if let Some(dir) = guest.config.working_dir.as_deref().filter(|dir| !dir.is_empty()) {
        say::or_warn(reach::directory(Path::new("/"), dir, 0o755));
    }
}

/// What came in the initramfs.
struct Told {
    guest: Guest,
    /// Contents of files, in the document's order.
    files: Vec<Vec<u8>>,
    /// Groups and files of modules.
    modules: Vec<(String, String)>,
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
        Ok(Self { guest, files, modules })
    }
}

/// The priority that gives way to all others (setpriority(2)).
const LAST: i32 = 19;

fn nice(priority: i32) {
    // SAFETY: the call takes numbers only; it changes this process.
    let _ = unsafe { nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, priority) };
}

/// Loads the modules of a group. One that finds no device it is for is not missed.
fn load(modules: &[(String, String)], group: &str, dir: &str) -> Result<()> {
    for (_, file) in modules.iter().filter(|(of, _)| of == group) {
        let path = Path::new(dir).join(file);
        let failed = || format!("cannot load the module '{file}'");
        let opened = fs::File::open(&path).with_context(failed)?;
        match finit_module(&opened, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST | Errno::ENODEV | Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(errno).with_context(failed),
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

/// Makes the folder of the guest programs, which is the initramfs's own: nothing is copied.
fn populate(told: &Told) -> Result<()> {
    let own = |path: &str| path.replacen(place::RUN, "/banger", 1);
    let devices = format!("{}\n{}\n", told.guest.disks.overlay, told.guest.disks.work);
    let make = || -> std::io::Result<()> {
        fs::write(own(place::DEVICES), devices)?;
        fs::rename("/init", own(place::INIT))?;
        fs::create_dir_all(own(place::BIN))?;
        std::os::unix::fs::symlink("../banger-guest-init", own(place::MODPROBE))?;
        for file in &told.guest.files {
            // Read by now, and it stays in memory for good.
            fs::remove_file(Path::new("/").join(&file.content))?;
        }
        Ok(())
    };
    make().context("cannot prepare '/run/banger'")?;
    disks::mount_run(&told.guest)?;
    disks::keep_disks()
}
