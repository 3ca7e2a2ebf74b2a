//! Connections from the host to what listens in a guest: the real agent, the real channel, this machine
//! in place of a guest.
#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_channel::{bridge, control, relay::Relay};
use banger_tests::Sandbox;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket},
};
use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    process::Child,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const AGENT: &str = env!("CARGO_BIN_EXE_banger-guest-agent");
const LIMIT: Duration = Duration::from_mins(1);

/// An agent behind a channel, and a relay of the host's.
struct Guest {
    _sandbox: Sandbox,
    agent: Child,
    channel: PathBuf,
    relay: Relay,
}

impl Guest {
    fn new() -> Self {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(16384), hard).unwrap();
        let sandbox = Sandbox::new();
        let port = sandbox.dir().join("port");
        let listener = UnixListener::bind(&port).unwrap();
        let agent = sandbox.command(AGENT).arg("--device").arg(&port).spawn().unwrap();
        let (device, _) = listener.accept().unwrap();
        let channel = sandbox.dir().join("channel");
        let listener = UnixListener::bind(&channel).unwrap();
        thread::spawn(move || bridge::run(listener, bridge::Device::Port(device)));
        let relay = Relay::start(&channel, 1500).unwrap();
        Self { _sandbox: sandbox, agent, channel, relay }
    }

    /// Makes a port of the host that leads to one of the guest.
    fn lead(&self, key: u64, target: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _ = nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(2048).unwrap());
        let address = listener.local_addr().unwrap();
        self.relay.listen(key, listener, target.to_owned());
        address
    }

    fn agent_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.agent.id())).unwrap().count()
    }

    fn agent_kib(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.agent.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !so() {
        assert!(Instant::now() < end, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A service that answers all it got, once it has got all.
fn echo_at_the_end(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || {
                    let mut all = Vec::new();
                    let _ = stream.read_to_end(&mut all);
                    let _ = stream.write_all(&all);
                })
                .unwrap();
        }
    });
}

fn service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _ = nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(2048).unwrap());
    let port = listener.local_addr().unwrap().port();
    echo_at_the_end(listener);
    port
}

/// Takes a port of 127.0.0.1 at which nobody listens, and nobody can as long as it is held.
fn silent() -> (OwnedFd, u16) {
    let held = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(held.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let address: SockaddrIn = getsockname(held.as_raw_fd()).unwrap();
    (held, address.port())
}

#[test]
fn a_thousand_at_once_are_answered_and_leave_nothing() {
    let guest = Guest::new();
    let address = guest.lead(1, &format!("tcp localhost:{}", service()));
    let ask = |number: usize| {
        let mut stream = connect(address);
        stream.write_all(format!("question {number}").as_bytes()).unwrap();
        stream
    };
    let hear = |number: usize, mut stream: TcpStream| {
        // Half of it ends; the answer still comes.
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("question {number}"));
    };
    hear(0, ask(0));
    until("the first is gone", || guest.relay.live() == 0);
    let (files, kib) = (guest.agent_files(), guest.agent_kib());
    for _ in 0..3 {
        let streams: Vec<_> = (0..1000).map(ask).collect();
        until("all are carried", || guest.relay.live() == 1000);
        // Others have their way into the guest as well.
        control::hello(&guest.channel, LIMIT).unwrap();
        streams.into_iter().enumerate().for_each(|(number, stream)| hear(number, stream));
        until("all are gone", || guest.relay.live() == 0 && guest.agent_files() <= files);
    }
    let grown = guest.agent_kib().saturating_sub(kib);
    assert!(grown < 24 << 10, "the agent grew by {grown} KiB");
}

#[test]
fn much_passes_both_ways_at_once_and_who_leaves_early_is_noticed() {
    let guest = Guest::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut back = stream.try_clone().unwrap();
            thread::spawn(move || {
                let _ = std::io::copy(&mut stream, &mut back);
                let _ = back.shutdown(Shutdown::Write);
            });
        }
    });
    let address = guest.lead(1, &format!("tcp 127.0.0.1:{port}"));
    let mut stream = connect(address);
    let mut sink = stream.try_clone().unwrap();
    let bytes: Vec<u8> = (0..8_u32 << 20).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect();
    let sent = bytes.clone();
    let sender = thread::spawn(move || {
        sink.write_all(&sent).unwrap();
        sink.shutdown(Shutdown::Write).unwrap();
    });
    let mut came = Vec::new();
    stream.read_to_end(&mut came).unwrap();
    sender.join().unwrap();
    assert!(came == bytes, "{} of {} bytes came back", came.len(), bytes.len());
    until("it is gone", || guest.relay.live() == 0);
    // A client that leaves in the middle takes its connection with it, also one that never read.
    for _ in 0..20 {
        let mut stream = connect(address);
        let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
        let _ = stream.write_all(&bytes);
        drop(stream);
    }
    until("those that left are gone", || guest.relay.live() == 0);
}

#[test]
fn localhost_is_either_of_its_addresses_and_nobody_home_is_a_refusal() {
    let guest = Guest::new();
    let four = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (_held, port) = silent();
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).unwrap();
    let ports = [four, six].map(|listener| {
        let port = listener.local_addr().unwrap().port();
        echo_at_the_end(listener);
        port
    });
    for (key, port) in ports.into_iter().enumerate() {
        let mut stream = connect(guest.lead(key as u64, &format!("tcp localhost:{port}")));
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
    }
    let (_nobody, nobody) = silent();
    let mut stream = connect(guest.lead(9, &format!("tcp localhost:{nobody}")));
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // A port that is forgotten is closed; who came through it before stays.
    until("only the next one counts", || guest.relay.live() == 0);
    let address = guest.lead(10, &format!("tcp localhost:{}", ports[0]));
    let mut stream = connect(address);
    stream.write_all(b"still ").unwrap();
    until("it is carried", || guest.relay.live() > 0);
    guest.relay.forget(10);
    until("it is closed", || TcpStream::connect_timeout(&address, LIMIT).is_err());
    stream.write_all(b"here").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "still here");
}

#[test]
fn listeners_are_followed_as_they_come_and_go() {
    let guest = Guest::new();
    let (tell, told) = mpsc::channel();
    let channel = guest.channel.clone();
    thread::spawn(move || {
        control::watch_ports(&channel, LIMIT, |ports| {
            tell.send(ports.into_iter().map(|port| port.port).collect::<Vec<_>>()).is_ok()
        })
    });
    let first = told.recv_timeout(LIMIT).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(!first.contains(&port));
    let wait = |there: bool| {
        let end = Instant::now() + LIMIT;
        while told.recv_timeout(LIMIT).unwrap().contains(&port) != there {
            assert!(Instant::now() < end, "port {port} is not followed");
        }
    };
    wait(true);
    drop(listener);
    wait(false);
}
