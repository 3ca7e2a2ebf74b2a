//! The way out: `pasta` (passt), one per VM.

use crate::{RunAs, WAY_OUT};
use nix::{
    sys::{prctl, signal::Signal},
    unistd::{setgid, setgroups, setuid},
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

/// Gives up root for good.
pub(crate) fn become_user(user: RunAs) -> nix::Result<()> {
    setgroups(&[])?;
    setgid(user.gid)?;
    setuid(user.uid)
}
