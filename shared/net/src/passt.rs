//! A way out without a namespace: `passt` at the other end of a VMM's socket, for a host that gives no tap.

use crate::{Plan, RunAs, address::MASK4, pasta::become_user, tools};
use banger_doc::{Context, Result};
use nix::{
    libc,
    sys::{prctl, signal::Signal},
};
use std::{
    net::{IpAddr, Ipv4Addr},
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// What carries a guest's packets to sockets of an ordinary user: no port of the host's leads in, and the
/// host's loopback is closed unless it is allowed.
#[derive(Clone, Debug)]
pub struct Carrier {
    passt: PathBuf,
    plan: Plan,
    run_as: Option<RunAs>,
    allow_host: bool,
}

impl Carrier {
    /// Finds `passt`, beside `pasta` where the configuration names that; the error is the reason, in words,
    /// why there can be none.
    pub fn find(
        run_as: Option<RunAs>,
        pasta: Option<&Path>,
        plan: &Plan,
        allow_host: bool,
    ) -> std::result::Result<Self, String> {
        tools::user_namespaces(run_as.is_some())?;
        let passt = match pasta {
            Some(path) => Some(path.with_file_name("passt"))
                .filter(|path| path.is_file())
                .ok_or_else(|| format!("there is no 'passt' beside '{}'", path.display()))?,
            None => tools::program("passt", "passt")?,
        };
        Ok(Self { passt, plan: plan.clone(), run_as, allow_host })
    }

    /// Starts it at its end of a socket whose other end the VMM has; it ends with the caller's thread and with
    /// the VMM. What it complains about goes to `output`. To be called with one thread.
    pub fn start(&self, end: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<Child> {
        let said = "cannot start 'passt'";
        let output = output.try_clone_to_owned().context(said)?;
        let mut command = self.command(end.as_raw_fd());
        command.stderr(output);
        command.spawn().context(said)
    }

    fn command(&self, end: RawFd) -> Command {
        let Plan { gateway, guest, dns, guest6, gateway6, .. } = &self.plan;
        let mut command = Command::new(&self.passt);
        command.args(["-f", "-q", "-t", "none", "-u", "none"]);
        if !self.allow_host {
            command.arg("--no-map-gw");
        }
        let mut give = |word: &str, address: IpAddr| {
            command.args([word, &address.to_string()]);
        };
        for (guest, gateway) in [
            (IpAddr::V4(*guest), IpAddr::V4(*gateway)),
            (IpAddr::V6(*guest6), IpAddr::V6(*gateway6)),
        ] {
            give("-a", guest);
            give("-g", gateway);
        }
        give("--dns-forward", IpAddr::V4(*dns));
        give("-n", IpAddr::V4(Ipv4Addr::from_bits(MASK4)));
        command.arg("--fd").arg(end.to_string());
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/");
        let run_as = self.run_as;
        let begin = move || {
            run_as.map_or(Ok(()), become_user)?;
            // After the change of user, which takes this wish back.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // SAFETY: the descriptor is open; only its close-on-exec flag changes.
            nix::errno::Errno::result(unsafe { libc::fcntl(end, libc::F_SETFD, 0) })?;
            Ok(())
        };
        // SAFETY: only system calls, which are safe between fork and exec.
        unsafe { command.pre_exec(begin) };
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
        os::{fd::AsFd, unix::net::UnixStream},
        thread,
        time::{Duration, Instant},
    };

    /// Sums up words of two bytes as in RFC 1071.
    fn sum(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|word| {
            u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or_default())
        });
        let sum: u32 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        !((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// A guest's wish to connect to its gateway, as a frame behind its length.
    fn wish(plan: &Plan, port: u16) -> Vec<u8> {
        let (from, to) = (plan.guest.octets(), plan.gateway.octets());
        let mut tcp = [40_000_u16.to_be_bytes(), port.to_be_bytes()].concat();
        tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
        let check = sum(&[&from[..], &to, &[0, 6, 0, 20], &tcp].concat());
        tcp[16..18].copy_from_slice(&check.to_be_bytes());
        let mut ip = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
        ip.extend(from.into_iter().chain(to));
        let check = sum(&ip);
        ip[10..12].copy_from_slice(&check.to_be_bytes());
        let ether = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 0]].concat();
        let frame = [ether, ip, tcp].concat();
        [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
    }

    /// Says whether `passt` would start: it takes its addresses from a host that is online.
    fn is_online() -> bool {
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        routes.lines().any(|line| line.split_whitespace().nth(1) == Some("00000000"))
    }

    /// Says whether a guest gets through to a service on the host's loopback.
    fn reaches_the_loopback(allow_host: bool) -> bool {
        let plan = Plan::new();
        let run_as = RunAs::needed(None).unwrap();
        let carrier = Carrier::find(run_as, None, &plan, allow_host).unwrap();
        let (mut guest, end) = UnixStream::pair().unwrap();
        guest.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let service = TcpListener::bind("127.0.0.1:0").unwrap();
        service.set_nonblocking(true).unwrap();
        let port = service.local_addr().unwrap().port();
        let mut passt = carrier.start(end.as_fd(), std::io::stderr().as_fd()).unwrap();
        drop(end);
        let until = Instant::now() + Duration::from_secs(if allow_host { 20 } else { 4 });
        let mut reached = false;
        while !reached && Instant::now() < until {
            assert!(passt.try_wait().unwrap().is_none(), "passt ended");
            guest.write_all(&wish(&plan, port)).unwrap();
            thread::sleep(Duration::from_millis(200));
            let _ = guest.read(&mut [0; 4096]);
            reached = service.accept().is_ok();
        }
        // It ends with the VMM.
        drop(guest);
        let end = Instant::now() + Duration::from_secs(10);
        while passt.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "passt goes on");
            thread::sleep(Duration::from_millis(20));
        }
        reached
    }

    #[test]
    fn a_carried_guest_reaches_the_host_s_loopback_only_where_that_is_allowed() {
        if !is_online() {
            let _ = writeln!(std::io::stderr(), "SKIPPED: this host has no default route");
            return;
        }
        assert!(reaches_the_loopback(true));
        assert!(!reaches_the_loopback(false));
    }
}
