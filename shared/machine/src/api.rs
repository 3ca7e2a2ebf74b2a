//! Firecracker's API: HTTP/1.1 with JSON bodies over its Unix socket (firecracker.yaml).

use banger_channel::{Patience, dial};
use banger_doc::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    fmt::Write as _,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// An answer larger than this is refused; the largest real one is a few hundred bytes.
const MAX_ANSWER: usize = 64 << 10;
/// How long one request to a guest that runs may take. What comes before is bound by the start's end.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// What helps where something of banger's own does not come in time.
pub const BUSY: &str =
    "the host may be too busy: '--timeout SECONDS' of 'banger vm start' gives it longer";

/// `PUT /machine-config`.
#[derive(Debug, Serialize)]
pub(crate) struct MachineConfig {
    /// Virtual processors, 1 to 32.
    pub(crate) vcpu_count: u32,
    /// Memory, in MiB.
    pub(crate) mem_size_mib: u64,
}

/// `PUT /boot-source`.
#[derive(Debug, Serialize)]
pub(crate) struct BootSource<'a> {
    /// An uncompressed ELF kernel.
    pub(crate) kernel_image_path: &'a str,
    /// The initramfs.
    pub(crate) initrd_path: &'a str,
    /// The kernel's command line.
    pub(crate) boot_args: &'a str,
}

/// `PUT /drives/ID`.
#[derive(Debug, Serialize)]
pub(crate) struct Drive<'a> {
    /// Its name in the API.
    #[serde(rename = "drive_id")]
    pub(crate) id: &'a str,
    /// The file.
    pub(crate) path_on_host: &'a str,
    /// Whether the kernel mounts it as its root; ours mounts nothing itself.
    pub(crate) is_root_device: bool,
    /// Whether the guest may only read it.
    pub(crate) is_read_only: bool,
    /// `Writeback` honours the guest's flushes, `Unsafe` drops them.
    pub(crate) cache_type: &'a str,
}

/// `PUT /network-interfaces/ID`.
#[derive(Debug, Serialize)]
pub(crate) struct NetworkInterface<'a> {
    /// Its name in the API.
    pub(crate) iface_id: &'a str,
    /// Hardware address in the guest.
    pub(crate) guest_mac: &'a str,
    /// The tap device.
    pub(crate) host_dev_name: &'a str,
}

/// `PUT /vsock`.
#[derive(Debug, Serialize)]
pub(crate) struct Vsock<'a> {
    /// Address of the guest, 3 or more.
    pub(crate) guest_cid: u32,
    /// The host's end, a Unix socket with the hybrid-vsock handshake.
    pub(crate) uds_path: &'a str,
}

/// `PUT /balloon`.
#[derive(Debug, Serialize)]
struct Balloon {
    /// How much of its memory the guest is to give up at once.
    amount_mib: u64,
    /// Whether it may have that back when it needs it.
    deflate_on_oom: bool,
    /// Whether it tells what it does not use, which is then the host's again.
    free_page_reporting: bool,
}

#[derive(Serialize)]
struct Action<'a> {
    action_type: &'a str,
}

#[derive(Serialize)]
struct State<'a> {
    state: &'a str,
}

#[derive(Deserialize)]
struct Version {
    firecracker_version: String,
}

#[derive(Deserialize)]
struct Fault {
    fault_message: String,
}

/// A connection to the API.
#[derive(Debug)]
pub(crate) struct Api {
    stream: UnixStream,
    /// When the guest has to run.
    until: Instant,
    started: bool,
}

impl Api {
    /// Connects, waiting until then for the socket to appear and, afterwards, for each answer that
    /// the guest's start needs.
    pub(crate) fn connect(socket: &Path, until: Instant) -> Result<Self> {
        let begun = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            match dial(socket, Patience::Until(until.saturating_duration_since(Instant::now()))) {
                Ok(stream) => return Ok(Self { stream, until, started: false }),
                Err(_) if Instant::now() < until => thread::sleep(pause),
                Err(error) => {
                    let took = begun.elapsed().as_secs();
                    return Err(Error::failed(format!(
                        "Firecracker did not open its socket within {took} s"
                    ))
                    .because(error)
                    .hint(BUSY));
                }
            }
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }

    /// Asks for Firecracker's version, such as `1.12.1`.
    pub(crate) fn version(&mut self) -> Result<String> {
        let body = self.request("GET", "/version", None)?;
        let version: Version =
            serde_json::from_slice(&body).context("cannot read Firecracker's version")?;
        Ok(version.firecracker_version)
    }

    /// Sets processors and memory.
    pub(crate) fn machine_config(&mut self, config: &MachineConfig) -> Result<()> {
        self.put("/machine-config", config)
    }

    /// Sets kernel, initramfs and command line.
    pub(crate) fn boot_source(&mut self, source: &BootSource<'_>) -> Result<()> {
        self.put("/boot-source", source)
    }

    /// Attaches a disk. Disks appear in the guest in the order of these calls.
    pub(crate) fn drive(&mut self, drive: &Drive<'_>) -> Result<()> {
        self.put(&format!("/drives/{}", drive.id), drive)
    }

    /// Attaches a network interface.
    pub(crate) fn network_interface(&mut self, interface: &NetworkInterface<'_>) -> Result<()> {
        self.put(&format!("/network-interfaces/{}", interface.iface_id), interface)
    }

    /// Attaches the channel.
    pub(crate) fn vsock(&mut self, vsock: &Vsock<'_>) -> Result<()> {
        self.put("/vsock", vsock)
    }

    /// Attaches a source of entropy.
    pub(crate) fn entropy(&mut self) -> Result<()> {
        self.put("/entropy", &serde_json::Map::new())
    }

    /// Attaches a balloon that stays empty, and through which what the guest does not use is given
    /// back to the host.
    pub(crate) fn balloon(&mut self) -> Result<()> {
        self.put(
            "/balloon",
            &Balloon { amount_mib: 0, deflate_on_oom: true, free_page_reporting: true },
        )
    }

    /// Starts the guest, the slowest of all requests: it loads the kernel.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.put("/actions", &Action { action_type: "InstanceStart" })?;
        self.started = true;
        Ok(())
    }

    /// Holds the guest still.
    pub(crate) fn pause(&mut self) -> Result<()> {
        self.patch("/vm", &State { state: "Paused" })
    }

    /// Lets the guest run on.
    pub(crate) fn resume(&mut self) -> Result<()> {
        self.patch("/vm", &State { state: "Resumed" })
    }

    fn put(&mut self, path: &str, body: &impl Serialize) -> Result<()> {
        let body = serde_json::to_vec(body).expect("because requests hold only JSON types");
        self.request("PUT", path, Some(&body)).map(drop)
    }

    fn patch(&mut self, path: &str, body: &impl Serialize) -> Result<()> {
        let body = serde_json::to_vec(body).expect("because requests hold only JSON types");
        self.request("PATCH", path, Some(&body)).map(drop)
    }

    /// Sends one request and returns the body of the answer. Our own fault becomes the cause.
    fn request(&mut self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Vec<u8>> {
        let mut message =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
        if let Some(body) = body {
            message.push_str("Content-Type: application/json\r\n");
            let _ = write!(message, "Content-Length: {}\r\n", body.len());
        }
        message.push_str("\r\n");
        let mut bytes = message.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        self.limit().context("cannot set a limit on Firecracker's socket")?;
        self.stream
            .write_all(&bytes)
            .with_context(|| format!("cannot ask Firecracker for {method} {path}"))?;
        let (status, body) = self
            .answer()
            .with_context(|| format!("cannot read Firecracker's answer to {method} {path}"))?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let fault = serde_json::from_slice::<Fault>(&body)
            .map_or_else(|_| format!("status {status}"), |fault| fault.fault_message);
        Err(Error::failed(format!("Firecracker refused {method} {path}"))
            .because(fault.lines().collect::<Vec<_>>().join(" ")))
    }

    /// Bounds the request that comes.
    fn limit(&self) -> std::io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        let limit = if self.started { REQUEST_LIMIT } else { left.max(Duration::from_millis(1)) };
        self.stream.set_read_timeout(Some(limit))?;
        self.stream.set_write_timeout(Some(limit))
    }

    fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&bytes).context("it is no HTTP")?;
            if let httparse::Status::Complete(head) = parsed {
                let length = response
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case("content-length"))
                    .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok())
                    .unwrap_or(0_usize);
                if length > MAX_ANSWER {
                    return Err(Error::failed("it is too large"));
                }
                let status = response.code.unwrap_or(0);
                if bytes.len() >= head + length {
                    return Ok((status, bytes[head..head + length].to_vec()));
                }
            }
            let read = match self.stream.read(&mut chunk) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(Error::failed("it does not come").hint(BUSY));
                }
                Err(error) => return Err(error).context("cannot read from the socket"),
            };
            if read == 0 {
                return Err(Error::failed("the connection was closed"));
            }
            bytes.extend_from_slice(&chunk[..read]);
            if bytes.len() > MAX_ANSWER {
                return Err(Error::failed("it is too large"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(answer: &'static [u8]) -> Result<()> {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(answer).unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        api(near, Duration::from_mins(1)).start()
    }

    fn api(stream: UnixStream, limit: Duration) -> Api {
        Api { stream, until: Instant::now() + limit, started: false }
    }

    #[test]
    fn what_does_not_come_in_time_is_said_with_what_helps() {
        let dir = tempfile::tempdir().unwrap();
        let until = Instant::now() + Duration::from_millis(20);
        let error = Api::connect(&dir.path().join("api.sock"), until).unwrap_err();
        assert!(error.chain().contains("did not open its socket within"), "{error}");
        // The path is banger's own: nobody has to look at how it is written.
        assert_eq!(error.hint_text(), Some(BUSY));
        let (near, _far) = UnixStream::pair().unwrap();
        let error = api(near, Duration::from_millis(20)).version().unwrap_err();
        assert!(error.chain().ends_with("GET /version: it does not come"), "{error}");
        assert_eq!(error.hint_text(), Some(BUSY));
    }

    #[test]
    fn a_fault_is_the_cause() {
        let error = answered(
            b"HTTP/1.1 400 \r\nContent-Length: 30\r\n\r\n{\"fault_message\":\"no kernel!\"}\n",
        )
        .unwrap_err();
        assert_eq!(error.chain(), "Firecracker refused PUT /actions: no kernel!");
        assert!(answered(b"HTTP/1.1 204 \r\nServer: Firecracker API\r\n\r\n").is_ok());
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for bytes in [
            &b""[..],
            b"HTTP/1.1 200 \r\n",
            b"garbage\r\n\r\n",
            b"HTTP/1.1 200 \r\nContent-Length: 9999999\r\n\r\n",
            b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nabc",
        ] {
            assert!(answered(bytes).is_err(), "{bytes:?}");
        }
    }

    /// The real program, without a jail, in a folder of its own.
    struct Real {
        child: std::process::Child,
        dir: tempfile::TempDir,
        api: Api,
    }

    impl Real {
        fn start() -> Option<Self> {
            let program = banger_tests::firecracker()?.join("firecracker");
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("disk"), vec![0; 1 << 16]).unwrap();
            let mut command = std::process::Command::new(program);
            command.args(["--api-sock", "api.sock", "--level", "Off"]).current_dir(dir.path());
            command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
            let child = command.spawn().unwrap();
            let until = Instant::now() + Duration::from_mins(1);
            let api = Api::connect(&dir.path().join("api.sock"), until).unwrap();
            Some(Self { child, dir, api })
        }

        fn drive(&mut self, path: &str) -> Result<()> {
            self.api.drive(&Drive {
                id: "base",
                path_on_host: path,
                is_root_device: false,
                is_read_only: false,
                cache_type: "Writeback",
            })
        }

        fn kernel(&mut self, bytes: &[u8]) -> Result<()> {
            std::fs::write(self.dir.path().join("kernel"), bytes).unwrap();
            self.api.boot_source(&BootSource {
                kernel_image_path: "kernel",
                initrd_path: "disk",
                boot_args: "console=ttyS0",
            })
        }
    }

    impl Drop for Real {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn the_real_firecracker_takes_every_request() {
        let Some(mut real) = Real::start() else { return };
        let version = crate::Version::serving(&real.api.version().unwrap()).unwrap();
        real.api.machine_config(&MachineConfig { vcpu_count: 2, mem_size_mib: 64 }).unwrap();
        real.kernel(&banger_tests::tiny_kernel(banger_tests::Then::Halts)).unwrap();
        real.drive("disk").unwrap();
        real.api.vsock(&Vsock { guest_cid: 3, uds_path: "channel.sock" }).unwrap();
        if version.reports_free_pages() {
            real.api.balloon().unwrap();
        }
        real.api.entropy().unwrap();
        real.api.start().unwrap();
        assert!(real.dir.path().join("channel.sock").exists());
        real.api.pause().unwrap();
        real.api.resume().unwrap();
        // What comes too late is refused, and said.
        let error = real.api.start().unwrap_err().chain();
        assert!(error.starts_with("Firecracker refused PUT /actions: "), "{error}");
    }

    #[test]
    fn the_real_firecracker_says_what_it_refuses() {
        let Some(mut real) = Real::start() else { return };
        let refused = |done: Result<()>, path: &str, words: &str| {
            let error = done.unwrap_err().chain();
            assert!(error.starts_with(&format!("Firecracker refused {path}: ")), "{error}");
            assert!(error.contains(words), "{error}");
        };
        let config = |vcpu_count, mem_size_mib| MachineConfig { vcpu_count, mem_size_mib };
        refused(real.api.machine_config(&config(33, 64)), "PUT /machine-config", "vCPU");
        refused(real.api.machine_config(&config(1, 0)), "PUT /machine-config", "memory size");
        refused(real.drive("no-such-disk"), "PUT /drives/base", "No such file");
        let tap = NetworkInterface {
            iface_id: "net",
            guest_mac: "02:00:00:00:00:01",
            host_dev_name: "no-such-tap-device",
        };
        refused(real.api.network_interface(&tap), "PUT /network-interfaces/net", "tap");
        let none =
            BootSource { kernel_image_path: "no-such-kernel", initrd_path: "disk", boot_args: "" };
        refused(real.api.boot_source(&none), "PUT /boot-source", "No such file");
        refused(real.api.start(), "PUT /actions", "kernel");
        refused(real.api.pause(), "PATCH /vm", "");
        real.kernel(b"\x7fELF and nothing more").unwrap();
        refused(real.api.start(), "PUT /actions", "ernel");
    }
}
