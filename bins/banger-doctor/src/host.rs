//! The host: processor, VMMs, devices, rights, tools.

use crate::{fail, info, pass, remedy, warn};
use banger_config::Config;
use banger_doc::Check;
use banger_machine::{Answer, Kvm, Version, ask, kvm, number, streams};
use nix::unistd::geteuid;
use std::{
    fs::{self, OpenOptions},
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Lets everybody use the device.
const OPEN_TUN: &str = "sudo chmod 666 /dev/net/tun (most desktops have it so)";
/// What a container's rules for devices answer (errno(3)).
const EPERM: i32 = nix::errno::Errno::EPERM as i32;
/// How long a tool may take to tell its version.
const LIMIT: Duration = Duration::from_secs(10);
/// The oldest QEMU with all that banger asks of one.
const OLDEST_QEMU: (u32, u32) = (5, 2);
/// From here on git follows no link in the place of a list of rules or attributes.
const OLDEST_GIT: (u32, u32) = (2, 32);
/// The first of each line of git that a repository cannot have fetch by itself what it lacks, which could
/// run a command; lines after them were born with it.
const CAREFUL_GIT: &[(u32, u32, u32)] =
    &[(2, 39, 4), (2, 40, 2), (2, 41, 1), (2, 42, 2), (2, 43, 4), (2, 44, 1)];

/// How many directories a user may watch (inotify(7)); editors take thousands, and so does a large repository.
const WATCHES: &str = "/proc/sys/fs/inotify/max_user_watches";
const ENOUGH_WATCHES: u64 = 65_536;

pub(crate) fn checks() -> Vec<Check> {
    let config = Config::load().unwrap_or_default();
    let kvm = kvm();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let instead = instead(carries(&config));
    let mut checks = vec![processor(), kvm_check(kvm, &Processor::read(&cpuinfo)), qemu(&config)];
    checks.extend(firecracker(&config, kvm));
    checks.extend([
        tun(&config, &instead),
        user_namespaces(),
        tool("pasta", config.binaries.pasta.clone(), &remedy::PASST, &instead),
        tool("nft", None, &remedy::NFTABLES, &instead),
        needed("e2fsck", &remedy::E2FSPROGS),
        git(),
        git_remote(),
        inotify(&fs::read_to_string(WATCHES).unwrap_or_default()),
        tool("ssh", config.binaries.ssh.clone(), &remedy::SSH, "'banger vm ssh' needs it"),
    ]);
    checks
}

fn processor() -> Check {
    match std::env::consts::ARCH {
        arch @ ("x86_64" | "aarch64") => pass("processor", arch),
        arch => fail("processor", format!("'{arch}' is not supported"), "use x86_64 or aarch64"),
    }
}

/// What the processor shows of itself, in proc_cpuinfo(5).
struct Processor {
    /// The module that makes KVM work on it.
    module: Option<&'static str>,
    /// Whether it is that of a VM.
    is_virtual: bool,
}

impl Processor {
    fn read(cpuinfo: &str) -> Self {
        let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
        let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
        let module = [("vmx", "kvm_intel"), ("svm", "kvm_amd")];
        let module = module.into_iter().find(|(flag, _)| has(flag)).map(|(_, module)| module);
        // Processors of this architecture do not say, and need no module.
        let module = module.or(cfg!(target_arch = "aarch64").then_some("kvm"));
        Self { module, is_virtual: has("hypervisor") }
    }

    /// Returns what has to be done before `/dev/kvm` could be of use.
    fn remedy(&self) -> &'static str {
        if self.is_virtual {
            "this is a VM: switch nested virtualization on in the settings of its host, where those offer it"
        } else {
            "switch virtualization (VT-x, AMD-V) on in the firmware"
        }
    }
}

fn kvm_check(kvm: Kvm, processor: &Processor) -> Check {
    let slow = "guests run in software, much slower";
    let no_flag = "the processor shows neither vmx nor svm";
    match (kvm, processor.module) {
        (Kvm::Works, _) => pass("kvm", "/dev/kvm opens and the processor has virtualization"),
        (Kvm::Absent, Some(module)) => {
            warn("kvm", format!("there is no /dev/kvm: {slow}"), format!("sudo modprobe {module}"))
        }
        (Kvm::Absent, None) => {
            warn("kvm", format!("there is no /dev/kvm, and {no_flag}: {slow}"), processor.remedy())
        }
        (Kvm::Denied, Some(_)) => warn(
            "kvm",
            format!("/dev/kvm is open only to the group '{}': {slow}", banger_machine::group()),
            banger_machine::join_hint(),
        ),
        // Being let in would change nothing.
        (Kvm::Denied, None) => {
            warn("kvm", format!("/dev/kvm is not yours, and {no_flag}: {slow}"), processor.remedy())
        }
        (Kvm::NotReal, _) => warn(
            "kvm",
            format!(
                "/dev/kvm opens, but {no_flag}: an imitation (PVM) on which ordinary kernels do not run, so {slow}"
            ),
            "use a host with hardware virtualization, or with nested virtualization",
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

/// Looks at Firecracker, then says what is known not to work in its version.
fn firecracker(config: &Config, kvm: Kvm) -> Vec<Check> {
    let name = "firecracker";
    let advice = banger_machine::GET_FIRECRACKER;
    let Some(path) = locate(name, config.binaries.firecracker.as_ref()) else {
        return vec![if kvm.works() {
            warn(name, "not installed: QEMU is used, which starts slower", advice)
        } else {
            info(name, "not installed, and of no use without KVM")
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
        let remedy = format!("use another version: {}; {advice}", fault.better);
        warn(name, format!("in Firecracker {version} {}{so}", fault.what), remedy)
    }));
    checks
}

/// Says why nothing carries guests' packets where the host gives no network namespace, if nothing does.
fn carries(config: &Config) -> Result<(), String> {
    let run_as = banger_net::RunAs::needed(config.run_as.as_deref())?;
    let (pasta, plan) = (config.binaries.pasta.as_deref(), banger_net::Plan::new());
    banger_net::Carrier::find(run_as, pasta, &plan, false)?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    streams(architecture, &config.binaries, Instant::now() + LIMIT)
}

/// Says what a guest has instead of a network namespace.
fn instead(carries: Result<(), String>) -> String {
    match carries {
        Ok(()) => "'passt' carries guests' packets instead, without a ruleset".to_owned(),
        Err(why) => format!(
            "'passt' cannot carry guests' packets instead ({why}), so guests need '--net none', or \
             '--allow-host' for QEMU's own user network"
        ),
    }
}

fn tun(config: &Config, instead: &str) -> Check {
    let path = "/dev/net/tun";
    let user = banger_net::RunAs::needed(config.run_as.as_deref());
    let error = match OpenOptions::new().read(true).write(true).open(path) {
        // A root of a user namespace cannot give its network's user a device.
        Ok(_) if user.is_ok_and(|user| !banger_net::may_open_tun(user)) => {
            let name = config.run_as.as_deref().unwrap_or("nobody");
            return warn(
                "tun",
                format!("{path} is not for '{name}', as whom this root's network runs: {instead}"),
                OPEN_TUN,
            );
        }
        Ok(_) => return pass("tun", format!("{path} opens")),
        Err(error) => error,
    };
    let is_open_to_all =
        fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o6 == 0o6);
    warn(
        "tun",
        format!("{path} cannot be opened ({}): {instead}", error.kind()),
        tun_remedy(&error, is_open_to_all),
    )
}

/// Says what opens the device: neither a mode nor a module does where a container keeps it away.
fn tun_remedy(error: &std::io::Error, is_open_to_all: bool) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied if is_open_to_all || error.raw_os_error() == Some(EPERM) => {
            "this is a container that may not use the device: start it with '--device /dev/net/tun'"
        }
        ErrorKind::PermissionDenied => OPEN_TUN,
        _ => "sudo modprobe tun",
    }
}

fn user_namespaces() -> Check {
    let name = "user-namespaces";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--pid", "--fork", "true"]);
    if bounded(command).is_ok() {
        return pass(name, "can be made");
    }
    if locate("unshare", None).is_none() {
        let message = "not known: 'unshare', which would try, is not installed";
        return warn(name, message, remedy::install(&remedy::UTIL_LINUX));
    }
    let read = |path: &str| fs::read_to_string(path).map(|value| value.trim().to_owned()).ok();
    warn(
        name,
        "cannot be made: no jail round a VMM, a weaker one round 'e2fsck' and 'git' on what a guest wrote, no network of a VM's own, no Firecracker",
        namespace_remedy(
            read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref(),
            read("/proc/sys/kernel/unprivileged_userns_clone").as_deref(),
            read("/proc/sys/user/max_user_namespaces").as_deref(),
        ),
    )
}

/// Says what lets namespaces be made, by what the kernel's settings are.
fn namespace_remedy(
    apparmor: Option<&str>,
    unprivileged: Option<&str>,
    most: Option<&str>,
) -> &'static str {
    if apparmor == Some("1") {
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else if unprivileged == Some("0") {
        "sudo sysctl kernel.unprivileged_userns_clone=1"
    } else if most == Some("0") {
        "sudo sysctl user.max_user_namespaces=10000"
    } else {
        "the kernel's settings allow it: this is a container that does not; start it with '--security-opt seccomp=unconfined --cap-add SYS_ADMIN'"
    }
}

fn tool(name: &str, chosen: Option<PathBuf>, package: &remedy::Package, without: &str) -> Check {
    match locate(name, chosen.as_ref()) {
        Some(path) => pass(name, path.display().to_string()),
        None => warn(name, format!("not installed: {without}"), remedy::install(package)),
    }
}

/// Looks at how many directories `workspace watch` may listen to.
fn inotify(most: &str) -> Check {
    let name = "inotify";
    match most.trim().parse::<u64>() {
        Ok(most) if most >= ENOUGH_WATCHES => {
            pass(name, format!("a user may watch {most} directories"))
        }
        Ok(most) => warn(
            name,
            format!(
                "a user may watch {most} directories: too few for 'banger workspace watch' of a large repository"
            ),
            "sudo sysctl fs.inotify.max_user_watches=524288",
        ),
        Err(_) => warn(
            name,
            format!("'{WATCHES}' cannot be read: 'banger workspace watch' may not work"),
            "use a kernel that has inotify, and a '/proc'",
        ),
    }
}

/// Looks at git, which reads repositories that somebody else may have written.
fn git() -> Check {
    let name = "git";
    let Some(path) = locate(name, None) else {
        return tool(name, None, &remedy::GIT, "workspaces need it");
    };
    match version(&path) {
        Ok(line) => git_check(line),
        Err(reason) => fail(name, reason, remedy::install(&remedy::GIT)),
    }
}

/// Looks whether git finds what makes VMs remotes of it.
fn git_remote() -> Check {
    let name = "git-remote-banger";
    match which::which(name) {
        Ok(path) => pass(name, path.display().to_string()),
        Err(_) => warn(
            name,
            "not in PATH: 'git fetch' and 'git push' cannot reach a VM",
            "add the folder that 'banger' is in to PATH",
        ),
    }
}

fn git_check(line: String) -> Check {
    let name = "git";
    let mut parts = line.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    let mut part = || parts.next().and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    let (major, minor, patch) = (part(), part(), part());
    let is_careful = CAREFUL_GIT
        .iter()
        .any(|careful| (major, minor) == (careful.0, careful.1) && patch >= careful.2)
        || CAREFUL_GIT.last().is_some_and(|last| (major, minor) > (last.0, last.1));
    if (major, minor) < OLDEST_GIT {
        let (major, minor) = OLDEST_GIT;
        let reason = format!("{line} is older than {major}.{minor}");
        fail(name, reason, remedy::install(&remedy::GIT))
    } else if is_careful {
        pass(name, line)
    } else {
        warn(
            name,
            format!(
                "{line} lacks a fence against hostile repositories (GIT_NO_LAZY_FETCH), unless its packager put it in"
            ),
            format!(
                "{} ({} and later have it); banger's other fences hold without it",
                remedy::install(&remedy::GIT),
                careful_releases()
            ),
        )
    }
}

/// Names the first release of each line of git that has the fence, the last of which stands for all later ones.
fn careful_releases() -> String {
    let names = CAREFUL_GIT.iter().map(|(major, minor, patch)| format!("{major}.{minor}.{patch}"));
    names.collect::<Vec<_>>().join(", ")
}

fn needed(name: &str, package: &remedy::Package) -> Check {
    match locate(name, None) {
        Some(path) => pass(name, path.display().to_string()),
        None => fail(name, "not installed", remedy::install(package)),
    }
}

/// Finds a program as chosen, in `PATH`, or where administrators' programs lie.
pub(crate) fn locate(name: &str, chosen: Option<&PathBuf>) -> Option<PathBuf> {
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
    let text = bounded(command)?;
    let line = text.lines().next().unwrap_or_default().trim();
    Ok(format!("{line} ({})", path.display()))
}

/// Runs a command to its end within [`LIMIT`] and returns its stdout.
fn bounded(mut command: Command) -> Result<String, String> {
    ask(&mut command, Instant::now() + LIMIT).map_err(|error| error.chain())
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_doc::Outcome;
    use std::io::Error;

    #[test]
    fn few_watches_are_said_with_what_allows_more() {
        assert_eq!(inotify("524288\n").outcome, Outcome::Pass);
        for few in ["8192\n", "0", ""] {
            let check = inotify(few);
            assert_eq!(check.outcome, Outcome::Warn, "{few}");
            assert!(check.remedy.is_some());
        }
    }

    #[test]
    fn a_git_that_is_too_old_is_told() {
        let outcome = |line: &str| git_check(format!("git version {line} (/usr/bin/git)")).outcome;
        for (version, expected) in [
            ("2.25.1", Outcome::Fail),
            ("2.31.9", Outcome::Fail),
            ("2.34.1", Outcome::Warn),
            ("2.39.3", Outcome::Warn),
            ("2.39.4", Outcome::Pass),
            ("2.39.5 (Apple Git-154)", Outcome::Pass),
            ("2.44.0", Outcome::Warn),
            ("2.45.0", Outcome::Pass),
            ("2.47.3", Outcome::Pass),
            ("3.0.0", Outcome::Pass),
        ] {
            assert_eq!(outcome(version), expected, "{version}");
        }
        let check = git_check("git version 2.34.1 (/usr/bin/git)".into());
        let remedy = check.remedy.unwrap_or_default();
        assert!(remedy.starts_with(&remedy::install(&remedy::GIT)), "{remedy}");
        assert!(remedy.contains("2.39.4, ") && remedy.contains("2.44.1 and later"), "{remedy}");
    }

    #[test]
    fn passt_is_promised_only_where_it_can_carry() {
        assert!(instead(Ok(())).starts_with("'passt' carries"));
        let words = instead(Err("QEMU 6.2 is older than 7.2".into()));
        assert!(
            words.contains("QEMU 6.2 is older than 7.2") && words.contains("--net none"),
            "{words}"
        );
        let config = Config::default();
        let nowhere = Path::new("/nowhere/pasta").to_owned();
        let binaries = banger_config::Binaries { pasta: Some(nowhere), ..config.binaries.clone() };
        let lacking = Config { binaries, ..config };
        assert!(carries(&lacking).unwrap_err().contains("passt"));
    }

    #[test]
    fn no_remedy_is_named_that_cannot_help() {
        let plain = Processor::read("flags : fpu sse\n");
        let inside = Processor::read("flags : fpu hypervisor\n");
        let intel = Processor::read("flags : fpu vmx hypervisor\n");
        let amd = Processor::read("flags : svm\n");
        let remedy = |kvm, processor| kvm_check(kvm, processor).remedy.unwrap_or_default();
        if cfg!(target_arch = "x86_64") {
            // Who is let in to a device that does not work has gained nothing.
            for kvm in [Kvm::Denied, Kvm::Absent] {
                assert!(remedy(kvm, &plain).contains("firmware"), "{}", remedy(kvm, &plain));
                assert!(remedy(kvm, &inside).contains("nested"), "{}", remedy(kvm, &inside));
            }
            assert_eq!(remedy(Kvm::Absent, &intel), "sudo modprobe kvm_intel");
            assert_eq!(remedy(Kvm::Absent, &amd), "sudo modprobe kvm_amd");
        }
        assert!(remedy(Kvm::Denied, &intel).contains("usermod"));
        assert_eq!(kvm_check(Kvm::Works, &intel).remedy, None);

        let denied = Error::from_raw_os_error(nix::errno::Errno::EACCES as i32);
        let device = Error::from_raw_os_error(EPERM);
        let absent = Error::from_raw_os_error(nix::errno::Errno::ENOENT as i32);
        assert!(tun_remedy(&denied, false).contains("chmod"));
        assert!(tun_remedy(&denied, true).contains("container"));
        assert!(tun_remedy(&device, false).contains("container"));
        assert!(tun_remedy(&absent, false).contains("modprobe"));

        assert!(namespace_remedy(Some("1"), Some("1"), Some("9")).contains("apparmor"));
        assert!(namespace_remedy(Some("0"), Some("0"), Some("9")).contains("userns_clone=1"));
        assert!(namespace_remedy(None, None, Some("0")).contains("max_user_namespaces"));
        assert!(namespace_remedy(None, Some("1"), Some("9")).contains("container"));
    }
}
