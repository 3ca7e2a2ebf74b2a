//! Firecracker, where KVM works.

use crate::{
    Accelerator, Event, Kvm, Launch, Machine, Plan,
    api::{Api, BootSource, Drive, MachineConfig, NetworkInterface, Vsock},
    kvm,
};
use banger_config::Binaries;
use banger_doc::{Context, Error, Result, Vmm};
use std::{
    io::{ErrorKind, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

/// Where Firecracker serves its API, below the VM's folder.
const API: &str = "run/api.sock";
/// Where Firecracker serves the channel, below the VM's folder.
const CHANNEL: &str = "run/channel.sock";
/// The guest's address on its vsock. Every VM has a vsock of its own, so all use the same.
const GUEST_CID: u32 = 3;
/// The oldest version that describes its devices by ACPI, as a distribution's kernel needs.
const OLDEST: (u32, u32) = (1, 8);
/// How long Firecracker may take to open its socket.
const SOCKET_LIMIT: Duration = Duration::from_secs(10);

/// What the kernel is told; `docs/boot.md` has the reason of each word.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 reboot=k i8042.noaux i8042.nomux i8042.dumbkbd pci=off \
     cryptomgr.notests net.ifnames=0 random.trust_cpu=on tsc=reliable \
     no_timer_check";

/// Firecracker, about to run or running.
#[derive(Debug)]
pub struct Firecracker {
    program: PathBuf,
    plan: Option<Plan>,
    console: UnixStream,
    console_end: Option<UnixStream>,
    /// What the driver tells: one letter an event, then an error's words after an `E`.
    told: UnixStream,
    teller: Option<UnixStream>,
    orders: Option<Sender<Order>>,
    partial: Vec<u8>,
}

/// What the driver can be told.
#[derive(Clone, Copy, Debug)]
enum Order {
    Pause,
    Resume,
}

impl Firecracker {
    /// Finds Firecracker and prepares it for a plan.
    pub fn new(plan: Plan, binaries: &Binaries) -> Result<Self> {
        let program = find(binaries)?;
        require_kvm(kvm())?;
        if plan.mac.is_some() != plan.tap.is_some() {
            return Err(Error::unavailable("Firecracker needs a tap device for the network").hint(
                "'banger doctor' says what is missing; or choose '--net none' or '--vmm qemu'",
            ));
        }
        let pair = || UnixStream::pair().context("cannot make a socket for Firecracker");
        let ((console, console_end), (told, teller)) = (pair()?, pair()?);
        for stream in [&console, &told] {
            stream.set_nonblocking(true).context("cannot listen to Firecracker")?;
        }
        Ok(Self {
            program,
            plan: Some(plan),
            console,
            console_end: Some(console_end),
            told,
            teller: Some(teller),
            orders: None,
            partial: Vec::new(),
        })
    }

    fn order(&self, order: Order) -> Result<()> {
        let sender =
            self.orders.as_ref().expect("because only a launched machine is told anything");
        sender.send(order).map_err(|_| Error::failed("Firecracker's API is closed"))
    }
}

impl Machine for Firecracker {
    fn vmm(&self) -> Vmm {
        Vmm::Firecracker
    }

    fn accelerator(&self) -> Accelerator {
        Accelerator::Kvm
    }

    fn launch(&mut self) -> Result<Launch> {
        let plan = self.plan.as_ref().expect("because a machine is launched once");
        let end = self.console_end.take().expect("because a machine is launched once");
        let mut command = Command::new(&self.program);
        command.args(["--api-sock", API, "--id", &plan.name, "--level", "Error"]);
        Ok(Launch { command, without_tap: None, inherit: Vec::new(), stdout: Some(end.into()) })
    }

    fn started(&mut self) -> Result<()> {
        let plan = self.plan.take().expect("because a machine is started once");
        let teller = self.teller.take().expect("because a machine is started once");
        let (sender, orders) = mpsc::channel();
        self.orders = Some(sender);
        thread::Builder::new()
            .name("firecracker-api".into())
            .stack_size(128 << 10)
            .spawn(move || drive(&plan, &orders, teller))
            .context("cannot start a thread")?;
        Ok(())
    }

    fn channel(&mut self) -> Option<UnixStream> {
        None
    }

    fn console(&self) -> BorrowedFd<'_> {
        self.console.as_fd()
    }

    fn control(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }

    fn events(&mut self) -> Result<Option<Vec<Event>>> {
        let mut buffer = [0; 4096];
        let mut ended = false;
        loop {
            match self.told.read(&mut buffer) {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(n) => self.partial.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot hear Firecracker's API"),
            }
        }
        let mut events = Vec::new();
        while let Some(letter) = self.partial.first().copied() {
            events.push(match letter {
                b'L' => Event::Launched,
                b'P' => Event::Paused,
                b'R' => Event::Resumed,
                // The words of an error are the rest; they end with the stream.
                _ if ended => {
                    let words = String::from_utf8_lossy(&self.partial[1..]).into_owned();
                    self.partial.clear();
                    return Err(Error::failed(words));
                }
                _ => break,
            });
            self.partial.remove(0);
        }
        Ok(if ended && events.is_empty() { None } else { Some(events) })
    }

    fn pause(&mut self) -> Result<()> {
        self.order(Order::Pause)
    }

    fn resume(&mut self) -> Result<()> {
        self.order(Order::Resume)
    }

    fn press_power(&mut self) -> Result<()> {
        // Firecracker has no power button; Ctrl-Alt-Del would restart most images' init.
        Ok(())
    }
}

/// Configures and starts the guest, then carries out orders until there are no more.
fn drive(plan: &Plan, orders: &Receiver<Order>, mut teller: UnixStream) {
    let done = configure(plan).and_then(|mut api| {
        let _ = teller.write_all(b"L");
        while let Ok(order) = orders.recv() {
            let letter = match order {
                Order::Pause => api.pause().map(|()| b"P"),
                Order::Resume => api.resume().map(|()| b"R"),
            }?;
            let _ = teller.write_all(letter);
        }
        Ok(())
    });
    if let Err(error) = done {
        let _ = teller.write_all(format!("E{}", error.chain()).as_bytes());
    }
}

fn configure(plan: &Plan) -> Result<Api> {
    let mut api = Api::connect(Path::new(API), SOCKET_LIMIT)?;
    check_version(&api.version()?)?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    api.machine_config(&MachineConfig { vcpu_count: plan.vcpu, mem_size_mib: plan.memory_mib })?;
    api.boot_source(&BootSource {
        kernel_image_path: &text(&plan.kernel),
        initrd_path: &text(&plan.initramfs),
        boot_args: COMMAND_LINE,
    })?;
    for disk in &plan.disks {
        api.drive(&Drive {
            id: disk.role,
            path_on_host: &text(&disk.path),
            is_root_device: false,
            is_read_only: disk.read_only,
            cache_type: if disk.read_only { "Unsafe" } else { "Writeback" },
        })?;
    }
    if let (Some(mac), Some(tap)) = (&plan.mac, &plan.tap) {
        api.network_interface(&NetworkInterface {
            iface_id: "net",
            guest_mac: mac,
            host_dev_name: tap,
        })?;
    }
    api.vsock(&Vsock { guest_cid: GUEST_CID, uds_path: CHANNEL })?;
    api.entropy()?;
    api.start()?;
    Ok(api)
}

fn find(binaries: &Binaries) -> Result<PathBuf> {
    if let Some(path) = &binaries.firecracker {
        return if path.is_file() {
            Ok(path.clone())
        } else {
            Err(Error::unavailable(format!("no Firecracker at '{}'", path.display())).hint(
                "'binaries.firecracker' in config.toml names it; without it, PATH is searched",
            ))
        };
    }
    which::which("firecracker").map_err(|error| {
        Error::unavailable("cannot find 'firecracker'")
            .because(error)
            .hint("docs/install.md says where to get it; '--vmm qemu' does without")
    })
}

fn require_kvm(kvm: Kvm) -> Result<()> {
    // The contract tests drive Firecracker where the device opens but no ordinary kernel gets far.
    let forced = std::env::var_os("BANGER_TRUST_KVM").is_some();
    match kvm {
        Kvm::Works => Ok(()),
        Kvm::NotReal if forced => Ok(()),
        Kvm::NotReal => Err(Error::unavailable(
            "Firecracker needs KVM, and the processor shows neither vmx nor svm",
        )
        .hint("'--vmm qemu' runs the VM in software")),
        Kvm::Absent => Err(Error::unavailable("Firecracker needs KVM, and there is no /dev/kvm")
            .hint("'--vmm qemu' runs the VM in software; 'banger doctor' says how to get KVM")),
        Kvm::Denied => Err(Error::unavailable("Firecracker needs KVM, and /dev/kvm is not yours")
            .hint("sudo usermod -aG kvm $USER, then log in again")),
    }
}

/// Refuses a Firecracker older than [`OLDEST`], or one whose version cannot be told.
fn check_version(text: &str) -> Result<()> {
    let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Ok(()),
        _ => Err(Error::unavailable(format!("Firecracker {text} is too old: 1.8 is needed"))
            .hint("docs/install.md says where to get a newer one; '--vmm qemu' does without")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused() {
        for good in ["1.12.1", "1.8.0-dev", "1.8", "2.0.0"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in ["1.7.9", "0.25.0", "", "v1", "x.y"] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn missing_kvm_names_the_remedy() {
        let hint = |kvm| require_kvm(kvm).unwrap_err().hint_text().unwrap().to_owned();
        assert!(hint(Kvm::Denied).contains("usermod -aG kvm"));
        assert!(hint(Kvm::Absent).contains("--vmm qemu"));
        assert!(require_kvm(Kvm::Works).is_ok());
    }
}
