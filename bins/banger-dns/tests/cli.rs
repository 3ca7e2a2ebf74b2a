//! The contract of `banger-dns`: over real sockets, with VMs that run as far as anybody can tell.
#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_tests::Sandbox;
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{self, File},
    net::UdpSocket,
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
fn running(sandbox: &Sandbox, name: &str, loopback: Option<&str>) -> Flock<File> {
    sandbox.plant_vm(name, "alpine", "generic-6.12");
    let mut document = serde_json::json!({
        "schema": "banger.running/1", "phase": "ready", "supervisor": {"pid": 1, "start_ticks": 1},
        "vmm": "qemu", "accelerator": "tcg", "started_unix_ms": 1,
    });
    if let Some(loopback) = loopback {
        document["ports"] = serde_json::json!({ "auto": true, "loopback": loopback });
    }
    fs::write(sandbox.vm(name).join("running.json"), document.to_string()).unwrap();
    hold(sandbox.vm(name).join("lock"), FlockArg::LockExclusiveNonblock)
}

fn start(sandbox: &Sandbox, port: u16) -> Child {
    let listen = format!("127.0.0.1:{port}");
    sandbox.command(DNS).args(["--quiet", "--listen", &listen]).spawn().unwrap()
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks for a name; returns the code and the addresses.
fn ask(port: u16, name: &str, kind: u8) -> (u8, Vec<u8>) {
    let mut question = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.bytes());
    }
    question.extend([0, 0, kind, 0, 1]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let end = Instant::now() + LIMIT;
    let mut answer = [0; 512];
    loop {
        // It may only just have begun.
        let _ = socket.send_to(&question, ("127.0.0.1", port));
        if let Ok(size) = socket.recv(&mut answer) {
            assert_eq!(answer[..2], [1, 2]);
            let data = &answer[question.len()..size];
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
    sandbox.run(DNS, &["--listen", &format!("127.0.0.1:{}", free_port())]).ok();
    assert!(dns.try_wait().unwrap().is_none());
    drop(share);
    ends(&mut dns);
}

#[test]
fn it_leaves_at_once_where_nobody_needs_it_and_waits_for_its_address() {
    let sandbox = Sandbox::new();
    sandbox.plant_state();
    sandbox.run(DNS, &["--listen", &format!("127.0.0.1:{}", free_port())]).ok();
    let _web = running(&sandbox, "web", Some("127.77.1.3"));
    let share = hold(sandbox.state().join("dns.users"), FlockArg::LockSharedNonblock);
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
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
