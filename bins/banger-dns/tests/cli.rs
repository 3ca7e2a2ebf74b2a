//! The contract of `banger-dns`: over real sockets, with VMs that run as far as anybody can tell.
#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_tests::{Running, Sandbox};
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;
use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::Child,
    thread,
    time::{Duration, Instant},
};

const DNS: &str = env!("CARGO_BIN_EXE_banger-dns");
const LIMIT: Duration = Duration::from_secs(20);

fn hold(path: std::path::PathBuf, how: FlockArg) -> Flock<File> {
    Flock::lock(File::create(path).unwrap(), how).map_err(|(_, error)| error).unwrap()
}

/// Plants a VM that runs, with an address if one is named.
fn running(sandbox: &Sandbox, name: &str, loopback: Option<&str>) -> Running {
    let ports = loopback.map(|loopback| json!({ "auto": true, "loopback": loopback }));
    let more = ports.map_or(json!({}), |ports| json!({ "ports": ports }));
    sandbox.plant_running(name, &more)
}

fn start(sandbox: &Sandbox, port: u16) -> Child {
    let listen = format!("{}:{port}", here());
    sandbox.command(DNS).args(["--quiet", "--listen", &listen]).spawn().unwrap()
}

/// Returns an address that is nobody else's: a port that is free there stays free.
fn here() -> Ipv4Addr {
    let [_, b, c, d] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | b, c, d)
}

/// Returns a port that is free for packets and for streams.
fn free_port() -> u16 {
    loop {
        let port = UdpSocket::bind((here(), 0)).unwrap().local_addr().unwrap().port();
        if TcpListener::bind((here(), port)).is_ok() {
            return port;
        }
    }
}

fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut question = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.bytes());
    }
    question.extend([0, 0, kind, 0, 1]);
    question
}

/// Asks for a name; returns the code and the addresses.
fn ask(port: u16, name: &str, kind: u8) -> (u8, Vec<u8>) {
    let question = question(name, kind);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let end = Instant::now() + LIMIT;
    let mut answer = [0; 512];
    loop {
        // It may only just have begun.
        let _ = socket.send_to(&question, (here(), port));
        if let Ok(size) = socket.recv(&mut answer) {
            assert_eq!(answer[..2], [1, 2]);
            let data = &answer[question.len()..size];
            // What is not there comes with the record of the zone.
            assert_eq!(answer[9], u8::from(answer[3] & 0xf != 5 && answer[7] == 0), "{name}");
            let address = if answer[7] == 1 { data[12..].to_vec() } else { Vec::new() };
            return (answer[3] & 0xf, address);
        }
        assert!(Instant::now() < end, "no answer for '{name}'");
    }
}

fn ends(child: &mut Child) {
    let end = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it does not leave");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn names_of_vms_that_run_have_their_addresses() {
    let sandbox = Sandbox::new();
    let web = running(&sandbox, "web", Some("127.77.1.2"));
    let _plain = running(&sandbox, "plain", None);
    sandbox.plant_vm("off", "alpine", "generic-6.12");
    let share = hold(sandbox.state().join("dns.users"), FlockArg::LockSharedNonblock);
    let port = free_port();
    let mut dns = start(&sandbox, port);
    assert_eq!(ask(port, "web.vm", 1), (0, vec![127, 77, 1, 2]));
    assert_eq!(ask(port, "WEB.VM", 1), (0, vec![127, 77, 1, 2]));
    assert_eq!(ask(port, "www.web.vm", 1), (0, vec![127, 77, 1, 2]));
    assert_eq!(ask(port, "web.vm", 28), (0, vec![]));
    assert_eq!(ask(port, "plain.vm", 1), (0, vec![]));
    for absent in ["off.vm", "nobody.vm", "no_name.vm", "..%2f.vm"] {
        if !absent.starts_with('.') {
            assert_eq!(ask(port, absent, 1), (3, vec![]), "{absent}");
        }
    }
    assert_eq!(ask(port, "example.org", 1), (5, vec![]));
    // A VM that ends is gone from then on.
    drop(web);
    assert_eq!(ask(port, "web.vm", 1), (3, vec![]));
    // A second one has nothing to do.
    sandbox.run(DNS, &["--listen", &format!("{}:{}", here(), free_port())]).ok();
    assert!(dns.try_wait().unwrap().is_none());
    drop(share);
    ends(&mut dns);
}

/// Connects, once something listens.
fn dial(port: u16) -> TcpStream {
    let end = Instant::now() + LIMIT;
    loop {
        if let Ok(stream) = TcpStream::connect((here(), port)) {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            return stream;
        }
        assert!(Instant::now() < end, "nobody listens");
        thread::sleep(Duration::from_millis(10));
    }
}

fn framed(question: &[u8]) -> Vec<u8> {
    [&(question.len() as u16).to_be_bytes(), question].concat()
}

fn hear(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

#[test]
fn streams_are_answered_within_bounds() {
    let sandbox = Sandbox::new();
    let _web = running(&sandbox, "web", Some("127.77.1.4"));
    let share = hold(sandbox.state().join("dns.users"), FlockArg::LockSharedNonblock);
    let port = free_port();
    let mut dns = start(&sandbox, port);
    // Several questions at once, in pieces; the answers in their order.
    let mut stream = dial(port);
    let both = [framed(&question("web.vm", 1)), framed(&question("nobody.vm", 1))].concat();
    let (first, rest) = both.split_at(3);
    stream.write_all(first).unwrap();
    thread::sleep(Duration::from_millis(50));
    stream.write_all(rest).unwrap();
    let said = hear(&mut stream);
    assert_eq!((said[3] & 0xf, &said[said.len() - 4..]), (0, &[127, 77, 1, 4][..]));
    assert_eq!(hear(&mut stream)[3] & 0xf, 3);
    // Nonsense, a question that is too long, an end in the middle: the stream is closed.
    for bad in [&[0, 3, 1, 2, 3][..], &[0xff, 0xff, 0], &[0, 0]] {
        let mut stream = dial(port);
        stream.write_all(bad).unwrap();
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "{bad:?}");
    }
    // Many who say nothing keep nobody out for long, and packets are answered all the while.
    let silent: Vec<_> = (0..40).map(|_| dial(port)).collect();
    assert_eq!(ask(port, "web.vm", 1), (0, vec![127, 77, 1, 4]));
    let begun = Instant::now();
    let answered = || {
        let mut stream = dial(port);
        let mut byte = [0];
        stream.write_all(&framed(&question("web.vm", 1))).is_ok()
            && matches!(stream.read(&mut byte), Ok(1))
    };
    while !answered() {
        assert!(begun.elapsed() < LIMIT, "those who are silent are waited for");
        thread::sleep(Duration::from_millis(100));
    }
    drop((silent, share));
    ends(&mut dns);
}

#[test]
fn it_leaves_at_once_where_nobody_needs_it_and_waits_for_its_address() {
    let sandbox = Sandbox::new();
    sandbox.plant_state();
    sandbox.run(DNS, &["--listen", &format!("{}:{}", here(), free_port())]).ok();
    let _web = running(&sandbox, "web", Some("127.77.1.3"));
    let share = hold(sandbox.state().join("dns.users"), FlockArg::LockSharedNonblock);
    let other = UdpSocket::bind((here(), 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    let mut dns = start(&sandbox, port);
    thread::sleep(Duration::from_millis(100));
    drop(other);
    assert_eq!(ask(port, "web.vm", 1), (0, vec![127, 77, 1, 3]));
    drop(share);
    ends(&mut dns);
}

#[test]
fn a_wrong_address_is_named() {
    let sandbox = Sandbox::new();
    sandbox.plant_state();
    sandbox.run(DNS, &["--listen", "nowhere"]).fails(2, "nowhere");
    sandbox.run(DNS, &["more"]).fails(2, "more");
}
