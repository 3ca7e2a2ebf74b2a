//! The contract of `banger-vm-ports`: against the real agent, over the real channel, with this
//! machine in place of a guest.

use banger_channel::bridge;
use banger_tests::Sandbox;
use serde_json::{Value, json};
use std::net::TcpListener;

const PORTS: &str = env!("CARGO_BIN_EXE_banger-vm-ports");

#[test]
fn a_listener_is_shown_with_its_process() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.plant_running("web", &json!({}));
    running.start_agent(&sandbox, &json!({}), |listener, device| {
        drop(bridge::run(listener, bridge::Device::Port(device)));
    });

    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = held.local_addr().unwrap().port();
    let answer = sandbox.run(PORTS, &["web", "web"]);
    // All that run are asked where none is named; others are left alone.
    sandbox.plant_vm("still", "alpine", "generic-6.12");
    let all = sandbox.run(PORTS, &[]);
    drop(running);
    answer.ok();
    assert!(all.ok().documents.iter().any(|one| one["port"] == number), "{}", all.all());
    assert!(all.documents.iter().all(|one| one["vm"] == "web"), "{}", all.all());
    // Others may have that number of another protocol, or at another address.
    let is = |port: &&Value| {
        port["port"] == number && port["protocol"] == "tcp" && port["address"] == "127.0.0.1"
    };
    let found: Vec<_> = answer.documents.iter().filter(is).collect();
    assert_eq!(found.len(), 1, "{}", answer.all());
    let wanted = json!({
        "schema": "banger.port/1", "vm": "web", "protocol": "tcp", "address": "127.0.0.1",
        "port": number, "pid": std::process::id(), "process": found[0]["process"],
    });
    assert_eq!(*found[0], wanted);
}

#[test]
fn a_hostile_answer_is_cleaned_or_refused() {
    let sandbox = Sandbox::new();
    let web = sandbox.plant_running("web", &json!({}));
    let one = r#"{"protocol":"tcp","address":"::","port":80,"pid":7,"process":"ev\u001b[2Jil"}"#;
    let bad = r#"{"protocol":"tcp","address":"../../x","port":80},{"protocol":"x","address":"::","port":1}"#;
    web.pretend(format!("{{\"ports\":[{one},{bad}]}}\n"));
    let answer = sandbox.run(PORTS, &["web"]);
    assert_eq!(answer.document()["process"], "ev[2Jil");

    let bad = sandbox.plant_running("bad", &json!({}));
    bad.pretend("x".repeat(2 << 20));
    sandbox.run(PORTS, &["bad"]).fails(1, "'bad'");
    let rude = sandbox.plant_running("rude", &json!({}));
    rude.pretend("{\"error\":\"no\\u001b[31m\"}\n".to_owned());
    let answer = sandbox.run(PORTS, &["rude"]);
    answer.fails(1, "the guest's agent says: no");
    assert!(!answer.stderr.contains('\u{1b}'));
}

#[test]
fn vms_that_do_not_run_are_refused_and_do_not_hide_others() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("off", "alpine", "generic-6.12");
    let web = sandbox.plant_running("web", &json!({}));
    web.pretend("{\"ports\":[]}\n".to_owned());
    assert!(sandbox.run(PORTS, &["web"]).ok().documents.is_empty());
    sandbox.run(PORTS, &["off"]).fails(4, "'off' is created");
    sandbox.run(PORTS, &["nobody"]).fails(3, "no VM 'nobody'");
    sandbox.run(PORTS, &["web", "off"]).fails(4, "'off' is created");
}

#[test]
fn ports_of_the_host_are_shown_with_what_they_lead_to() {
    let sandbox = Sandbox::new();
    let lead = |host: u16, guest: u16, note: Option<&str>| {
        let mut lead = json!({
            "address": "127.0.0.1", "host_port": host, "guest_port": guest, "published": true,
        });
        if let Some(note) = note {
            lead["note"] = note.into();
        }
        lead
    };
    let note = "port 81 is for root alone on this host";
    let forwards = [lead(8080, 80, None), lead(41000, 81, Some(note)), lead(9, 9, None)];
    let web = sandbox.plant_running("web", &json!({ "forwards": forwards }));
    let listens = |protocol: &str, address: &str, port: u16| {
        format!(r#"{{"protocol":"{protocol}","address":"{address}","port":{port}}}"#)
    };
    let ports = [
        listens("tcp", "172.30.255.2", 80),
        listens("tcp", "0.0.0.0", 80),
        listens("udp", "0.0.0.0", 80),
        listens("tcp", "::", 81),
    ];
    web.pretend(format!("{{\"ports\":[{}]}}\n", ports.join(",")));
    let answer = sandbox.run(PORTS, &["web"]);
    answer.ok();
    let leads: Vec<usize> =
        answer.documents.iter().map(|d| d["forwards"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(leads, [0, 1, 0, 1, 1], "{}", answer.all());
    assert!(answer.documents[4]["address"].is_null());
    let words = sandbox.terminal(&format!("{PORTS} web"), 200, |_| {});
    assert!(words.text().contains("127.0.0.1:41000 (port 81 is for root"), "{}", words.all());
}

#[test]
fn where_nothing_runs_there_is_nothing_to_show() {
    let sandbox = Sandbox::new();
    assert!(sandbox.run(PORTS, &[]).ok().documents.is_empty());
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    assert!(sandbox.run(PORTS, &[]).ok().documents.is_empty());
    let table = sandbox.terminal(PORTS, 80, |_| {}).ok().text();
    assert!(table.starts_with("VM  PROTOCOL  ADDRESS"), "{table}");
}
