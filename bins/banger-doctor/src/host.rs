//! The host: processor, VMMs, devices, rights, tools.

use crate::{fail, pass, remedy, warn};
use banger_config::Config;
use banger_doc::Check;
use banger_machine::{Answer, Kvm, Version, kvm};
use nix::unistd::geteuid;
use std::{
    fs::{self, OpenOptions},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a tool may take to tell its version.
const LIMIT: Duration = Duration::from_secs(10);
/// The oldest QEMU with all that banger asks of one.
const OLDEST_QEMU: (u32, u32) = (5, 2);

pub(crate) fn checks() -> Vec<Check> {
    let config = Config::load().unwrap_or_default();
    let kvm = kvm();
    let mut checks = vec![processor(), kvm_check(kvm), qemu(&config)];
    checks.extend(firecracker(&config, kvm));
    checks.extend([
        tun(&config),
        user_namespaces(),
        tool(
            "pasta",
            config.binaries.pasta.clone(),
            &remedy::PASST,
            "guests reach the network through QEMU's own user network instead",
        ),
        tool(
            "nft",
            None,
            &remedy::NFTABLES,
            "guests reach the network through QEMU's own user network instead",
        ),
        needed("e2fsck", &remedy::E2FSPROGS),
        needed("resize2fs", &remedy::E2FSPROGS),
        tool("git", None, &remedy::GIT, "workspaces need it"),
        tool("ssh", config.binaries.ssh.clone(), &remedy::SSH, "'banger vm ssh' needs it"),
        tool(
            "mmdebstrap",
            None,
            &remedy::MMDEBSTRAP,
            "the default image is pulled from a registry instead, without an ssh server",
        ),
    ]);
    checks
}

fn processor() -> Check {
    match std::env::consts::ARCH {
        arch @ ("x86_64" | "aarch64") => pass("processor", arch),
        arch => fail("processor", format!("'{arch}' is not supported"), "use x86_64 or aarch64"),
    }
}

fn kvm_check(kvm: Kvm) -> Check {
    match kvm {
        Kvm::Works => pass("kvm", "/dev/kvm opens and the processor has virtualization"),
        Kvm::Absent => warn(
            "kvm",
            "there is no /dev/kvm: guests run in software, several times slower",
            "switch virtualization on in the firmware, or in the settings of the VM this is, then 'sudo modprobe kvm_intel' or kvm_amd",
        ),
        Kvm::Denied => warn(
            "kvm",
            format!(
                "/dev/kvm is open only to the group '{}': guests run in software",
                banger_machine::group()
            ),
            banger_machine::join_hint(),
        ),
        Kvm::NotReal => warn(
            "kvm",
            "/dev/kvm opens, but the processor shows neither vmx nor svm: an imitation (PVM) on which ordinary kernels do not run, so guests run in software",
            "use a host with hardware virtualization (or nested virtualization) for speed",
        ),
    }
}

fn qemu(config: &Config) -> Check {
    let name = format!("qemu-system-{}", std::env::consts::ARCH);
    match locate(&name, config.binaries.qemu.as_ref()) {
        None => fail("qemu", format!("'{name}' is not installed"), remedy::install(&remedy::QEMU)),
        Some(path) => match version(&path) {
            Ok(line) if number(&line).is_some_and(|number| number < OLDEST_QEMU) => {
                let (major, minor) = OLDEST_QEMU;
                let reason = format!("{line} is older than {major}.{minor}");
                fail("qemu", reason, remedy::install(&remedy::QEMU))
            }
            Ok(line) => pass("qemu", line),
            Err(reason) => fail("qemu", reason, remedy::install(&remedy::QEMU)),
        },
    }
}

/// Reads the two numbers of a line such as `QEMU emulator version 7.2.22 (Debian 1:7.2)`.
fn number(line: &str) -> Option<(u32, u32)> {
    let (_, version) = line.split_once("version ")?;
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Looks at Firecracker, then says what is known not to work in its version.
fn firecracker(config: &Config, kvm: Kvm) -> Vec<Check> {
    let name = "firecracker";
    let advice = "docs/install.md says where to get Firecracker";
    let Some(path) = locate(name, config.binaries.firecracker.as_ref()) else {
        let message = "not installed: QEMU is used";
        return vec![if kvm.works() {
            warn(name, message, advice)
        } else {
            pass(name, format!("{message}; it would need KVM"))
        }];
    };
    let line = match version(&path) {
        Ok(line) => line,
        Err(reason) => return vec![warn(name, reason, advice)],
    };
    let number = line.split_whitespace().find(|word| word.starts_with('v')).unwrap_or_default();
    let version = match Version::serving(number.trim_start_matches('v')) {
        Ok(version) => version,
        Err(error) => return vec![warn(name, error.chain(), advice)],
    };
    let mut checks = vec![if geteuid().is_root() {
        match locate("jailer", config.binaries.jailer.as_ref()) {
            Some(jailer) => pass(name, format!("{line}, under '{}'", jailer.display())),
            None => warn(name, "its 'jailer' is not installed, which root needs", advice),
        }
    } else {
        pass(name, line)
    }];
    checks.extend(version.faults().map(|fault| {
        let so = match fault.answer {
            Answer::NoPause => ": 'banger vm pause' is refused",
            Answer::Avoids => "; banger sends less at once",
            Answer::Told => "",
        };
        let remedy = format!("use another version: {} ({advice})", fault.better);
        warn(name, format!("in Firecracker {version} {}{so}", fault.what), remedy)
    }));
    checks
}

fn tun(config: &Config) -> Check {
    let open = "sudo chmod 666 /dev/net/tun (most desktops have it so)";
    let user = banger_net::RunAs::needed(config.run_as.as_deref());
    match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        // Root's guests have a network of another user.
        Ok(_) if user.is_ok_and(|user| !banger_net::may_open_tun(user)) => {
            let name = config.run_as.as_deref().unwrap_or("nobody");
            let message = format!(
                "/dev/net/tun is not for '{name}', as whom root's network runs: guests use QEMU's own user network"
            );
            warn("tun", message, open)
        }
        Ok(_) => pass("tun", "/dev/net/tun opens"),
        Err(error) => warn(
            "tun",
            format!("/dev/net/tun cannot be opened ({error}): guests use QEMU's own user network"),
            if error.kind() == ErrorKind::NotFound { "sudo modprobe tun" } else { open },
        ),
    }
}

fn user_namespaces() -> Check {
    let name = "user-namespaces";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--pid", "--fork", "true"]);
    if bounded(command).is_ok() {
        return pass(name, "can be made");
    }
    let set = |path: &str, bad: &str| fs::read_to_string(path).is_ok_and(|v| v.trim() == bad);
    let remedy = if set("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else if set("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "sudo sysctl kernel.unprivileged_userns_clone=1"
    } else {
        "sudo sysctl user.max_user_namespaces=10000"
    };
    warn(
        name,
        "cannot be made: no jail round a VMM, no network of a VM's own, no Firecracker",
        remedy,
    )
}

fn tool(name: &str, chosen: Option<PathBuf>, package: &remedy::Package, without: &str) -> Check {
    match locate(name, chosen.as_ref()) {
        Some(path) => pass(name, path.display().to_string()),
        None => warn(name, format!("not installed: {without}"), remedy::install(package)),
    }
}

fn needed(name: &str, package: &remedy::Package) -> Check {
    match locate(name, None) {
        Some(path) => pass(name, path.display().to_string()),
        None => fail(name, "not installed", remedy::install(package)),
    }
}

/// Finds a program as chosen, in `PATH`, or where administrators' programs lie.
fn locate(name: &str, chosen: Option<&PathBuf>) -> Option<PathBuf> {
    if let Some(path) = chosen {
        return path.is_file().then(|| path.clone());
    }
    which::which(name).ok().or_else(|| {
        ["/usr/sbin", "/sbin", "/usr/local/sbin"]
            .iter()
            .map(|dir| Path::new(dir).join(name))
            .find(|path| path.is_file())
    })
}

/// Returns the first line of what `--version` prints.
fn version(path: &Path) -> Result<String, String> {
    let mut command = Command::new(path);
    command.arg("--version");
    let text = bounded(command).map_err(|why| format!("'{}' {why}", path.display()))?;
    let line = text.lines().next().unwrap_or_default().trim();
    Ok(format!("{line} ({})", path.display()))
}

/// Runs a command to its end within [`LIMIT`] and returns its stdout.
fn bounded(mut command: Command) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot be run: {error}"))?;
    let end = Instant::now() + LIMIT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break,
            Ok(Some(status)) => return Err(format!("ended with {status}")),
            Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(2)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("did not end within {} s", LIMIT.as_secs()));
            }
        }
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
