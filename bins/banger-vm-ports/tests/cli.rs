//! The contract of `banger-vm-ports`: against the real agent, over the real channel, with this
//! machine in place of a guest.
#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_channel::bridge;
use banger_tests::{Sandbox, program};
use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::{UnixListener, UnixStream},
    thread,
};

const PORTS: &str = env!("CARGO_BIN_EXE_banger-vm-ports");

/// Plants a VM whose lock is held, so that it runs as far as anybody can tell.
fn running(sandbox: &Sandbox, name: &str) -> nix::fcntl::Flock<File> {
    sandbox.plant_vm(name, "alpine", "generic-6.12");
    let folder = sandbox.vm(name);
    fs::create_dir(folder.join("run")).unwrap();
    fs::write(
        folder.join("running.json"),
        r#"{"schema":"banger.running/1","phase":"ready","supervisor":{"pid":1,"start_ticks":1},
            "vmm":"qemu","accelerator":"tcg","started_unix_ms":1}"#,
    )
    .unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    let exclusive = nix::fcntl::FlockArg::LockExclusiveNonblock;
    nix::fcntl::Flock::lock(lock, exclusive).map_err(|(_, error)| error).unwrap()
}

/// Answers a connection after its handshake with bytes of our choice.
fn pretend(sandbox: &Sandbox, name: &str, answer: String) {
    let listener = UnixListener::bind(sandbox.vm(name).join("run/channel.sock")).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: UnixStream = stream.unwrap();
            let _ = stream.read(&mut [0; 64]);
            stream.write_all(b"OK 1\n").unwrap();
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

#[test]
fn a_listener_is_shown_with_its_process() {
    let sandbox = Sandbox::new();
    let _lock = running(&sandbox, "web");
    let run = sandbox.vm("web").join("run");
    let port = UnixListener::bind(run.join("port.sock")).unwrap();
    let mut agent = sandbox
        .command(program("banger-guest-agent"))
        .arg("--device")
        .arg(run.join("port.sock"))
        .spawn()
        .unwrap();
    let (device, _) = port.accept().unwrap();
    let listener = UnixListener::bind(run.join("channel.sock")).unwrap();
    thread::spawn(move || bridge::run(listener, device));

    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = held.local_addr().unwrap().port();
    let answer = sandbox.run(PORTS, &["web", "web"]);
    let _ = agent.kill();
    let _ = agent.wait();
    answer.ok();
    let found: Vec<_> = answer.documents.iter().filter(|port| port["port"] == number).collect();
    assert_eq!(found.len(), 1, "{}", answer.all());
    let wanted = serde_json::json!({
        "schema": "banger.port/1", "vm": "web", "protocol": "tcp", "address": "127.0.0.1",
        "port": number, "pid": std::process::id(), "process": found[0]["process"],
    });
    assert_eq!(*found[0], wanted);
}

#[test]
fn a_hostile_answer_is_cleaned_or_refused() {
    let sandbox = Sandbox::new();
    let _lock = running(&sandbox, "web");
    let one = r#"{"protocol":"tcp","address":"::","port":80,"pid":7,"process":"ev\u001b[2Jil"}"#;
    let bad = r#"{"protocol":"tcp","address":"../../x","port":80},{"protocol":"x","address":"::","port":1}"#;
    pretend(&sandbox, "web", format!("{{\"ports\":[{one},{bad}]}}\n"));
    let answer = sandbox.run(PORTS, &["web"]);
    assert_eq!(answer.document()["process"], "ev[2Jil");

    let _lock = running(&sandbox, "bad");
    pretend(&sandbox, "bad", "x".repeat(2 << 20));
    sandbox.run(PORTS, &["bad"]).fails(1, "'bad'");
    let _lock = running(&sandbox, "rude");
    pretend(&sandbox, "rude", "{\"error\":\"no\\u001b[31m\"}\n".to_owned());
    let answer = sandbox.run(PORTS, &["rude"]);
    answer.fails(1, "the guest's agent says: no");
    assert!(!answer.stderr.contains('\u{1b}'));
}

#[test]
fn vms_that_do_not_run_are_refused_and_do_not_hide_others() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("off", "alpine", "generic-6.12");
    let _lock = running(&sandbox, "web");
    pretend(&sandbox, "web", "{\"ports\":[]}\n".to_owned());
    assert!(sandbox.run(PORTS, &["web"]).ok().documents.is_empty());
    sandbox.run(PORTS, &["off"]).fails(4, "'off' is created");
    sandbox.run(PORTS, &["nobody"]).fails(3, "no VM 'nobody'");
    sandbox.run(PORTS, &["web", "off"]).fails(4, "'off' is created");
    sandbox.run(PORTS, &[]).fails(2, "VM");
}

#[test]
fn ports_of_the_host_are_shown_with_what_they_lead_to() {
    let sandbox = Sandbox::new();
    let _lock = running(&sandbox, "web");
    let lead = |host: u16, guest: u16, note: &str| {
        format!(
            r#"{{"address":"127.0.0.1","host_port":{host},"guest_port":{guest},"published":true{note}}}"#
        )
    };
    let forwards = [
        lead(8080, 80, ""),
        lead(41000, 81, r#","note":"port 81 is for root alone on this host""#),
        lead(9, 9, ""),
    ];
    fs::write(
        sandbox.vm("web").join("running.json"),
        format!(
            r#"{{"schema":"banger.running/1","phase":"ready","supervisor":{{"pid":1,"start_ticks":1}},
                "vmm":"qemu","accelerator":"tcg","started_unix_ms":1,"forwards":[{}]}}"#,
            forwards.join(",")
        ),
    )
    .unwrap();
    let listens = |protocol: &str, address: &str, port: u16| {
        format!(r#"{{"protocol":"{protocol}","address":"{address}","port":{port}}}"#)
    };
    let ports = [
        listens("tcp", "172.30.255.2", 80),
        listens("tcp", "0.0.0.0", 80),
        listens("udp", "0.0.0.0", 80),
        listens("tcp", "::", 81),
    ];
    pretend(&sandbox, "web", format!("{{\"ports\":[{}]}}\n", ports.join(",")));
    let answer = sandbox.run(PORTS, &["web"]);
    answer.ok();
    let leads: Vec<usize> =
        answer.documents.iter().map(|d| d["forwards"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(leads, [0, 1, 0, 1, 1], "{}", answer.all());
    assert!(answer.documents[4]["address"].is_null());
    let words = sandbox.terminal(&format!("{PORTS} web"), 200, |_| {});
    assert!(words.text().contains("127.0.0.1:41000 (port 81 is for root"), "{}", words.all());
}
