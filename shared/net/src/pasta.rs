//! The way out: `pasta` (passt), one per VM.

use crate::{RunAs, WAY_OUT, tools::TUN};
use nix::{
    errno::Errno,
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::Signal,
        stat::{Mode, SFlag, mknod, stat},
    },
    unistd::{chown, setgid, setgroups, setuid},
};
use std::{
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

/// What `pasta` takes for the name server of the host, wherever that listens.
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Returns the command that attaches `pasta` to the namespaces of process `pid`.
///
/// Bare `pasta` opens the ports of both loopbacks to the other side, and the host's loopback under
/// the gateway's address. These words shut all of that.
pub(crate) fn command(
    program: &Path,
    pid: u32,
    run_as: Option<RunAs>,
    allow_host: bool,
) -> Command {
    let mut command = Command::new(program);
    command.args(["-f", "-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
    if !allow_host {
        command.arg("--no-map-gw");
    }
    command.arg("--dns-forward").arg(DNS.to_string());
    command.args(["--config-net", "--ns-ifname", WAY_OUT]);
    command.arg("--quiet").arg(pid.to_string()).stdin(Stdio::null()).current_dir("/");
    let begin = move || {
        run_as.map_or(Ok(()), become_user)?;
        // After the change of user, which takes this wish back.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        Ok(())
    };
    // SAFETY: only system calls, which are safe between fork and exec.
    unsafe { command.pre_exec(begin) };
    command
}

/// The folder of the device that taps come from.
const TUN_FOLDER: &str = "/dev/net";

/// Gives up root for good, with a device for taps of the user's own, seen by nobody else: the host's is often
/// root's alone. Where none can be made the host's has to do.
pub(crate) fn become_user(user: RunAs) -> nix::Result<()> {
    match own_tun(user) {
        // A root that is none to the host, or a host without the device.
        Err(Errno::EPERM | Errno::ENOENT) => {}
        done => done?,
    }
    setgroups(&[])?;
    setgid(user.gid)?;
    setuid(user.uid)
}

/// Puts a device of a user's own in the place of the host's, in a mount namespace that goes with this
/// process. Only system calls, which are safe between fork and exec.
fn own_tun(user: RunAs) -> nix::Result<()> {
    const NONE: Option<&str> = None;
    let device: libc::dev_t = stat(TUN)?.st_rdev;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("banger"), TUN_FOLDER, Some("tmpfs"), flags, Some("size=4k,nr_inodes=4,mode=0755"))?;
    mknod(TUN, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, device)
        .and_then(|()| chown(TUN, Some(user.uid), Some(user.gid)))
        // What the host has is to be seen again.
        .or_else(|errno| umount2(TUN_FOLDER, MntFlags::MNT_DETACH).and(Err(errno)))
}
