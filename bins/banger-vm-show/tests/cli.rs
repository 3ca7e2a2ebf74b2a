//! The contract of `banger-vm-show`.

use banger_tests::Sandbox;
use serde_json::json;

const SHOW: &str = env!("CARGO_BIN_EXE_banger-vm-show");

#[test]
fn a_vm_is_shown_with_its_last_run() {
    let sandbox = Sandbox::new();
    let vm = sandbox.plant_vm("web", "alpine", "generic-6.12");
    let view = sandbox.run(SHOW, &["web"]).document().clone();
    assert_eq!(view["schema"], "banger.view/1");
    assert_eq!(view["status"], "created");
    for key in ["id", "mac", "image", "kernel"] {
        assert_eq!(view[key], vm[key], "{key}");
    }
    assert!(view.get("last_exit").is_none());
    sandbox.plant_exit("web", "vmm-ended");
    let view = sandbox.run(SHOW, &["web"]).document().clone();
    assert_eq!(view["status"], "error");
    assert_eq!(view["last_exit"]["console_tail"][0], "planted console line");
}

#[test]
fn both_marks_are_shown() {
    let sandbox = Sandbox::new();
    let pages = [
        ("yes", "booted      after 6.7 s\n"),
        ("degraded", "booted      after 6.7 s, degraded\n"),
        ("unknown", "booted      nobody can tell\n"),
        ("no", "booted      not yet: it waits for 'a.service'\n"),
    ];
    for (booted, line) in pages {
        let more = json!({
            "agent_ms": 2300, "booted_ms": 6700, "booted": booted, "waits_for": ["a.service"],
        });
        let _running = sandbox.plant_running(booted, &more);
        let page = sandbox.terminal(&format!("{SHOW} {booted}"), 100, |_| {}).text();
        let page = page.replace('\r', "");
        assert!(page.contains("agent       after 2.3 s\n") && page.contains(line), "{page}");
    }
}

#[test]
fn a_page_is_aligned_and_stays_so_where_it_is_narrow() {
    let sandbox = Sandbox::new();
    let forward = |port: u16| {
        json!({"address": "127.68.72.75", "host_port": port, "guest_port": 80, "published": false,
            "problem": "another program of this host listens on that port already"})
    };
    let _running = sandbox.plant_running(
        "web",
        &json!({
            "addresses": ["172.30.255.2/24", "fd00::2/64"],
            "ports": {"publish": [], "auto": true, "loopback": "127.68.72.75"},
            "forwards": [forward(8080), forward(8443)],
            "notes": ["no KVM: emulated in software, much slower than with it"],
        }),
    );
    for columns in [60, 80, 200] {
        let page = sandbox.terminal(&format!("{SHOW} web"), columns, |_| {}).text();
        let page = page.replace('\r', "");
        assert!(page.contains("\non this host  127.68.72.75\n"), "{page}");
        assert!(page.contains("\nstatus        running\n"), "{page}");
        for label in ["address", "port", "note"] {
            let at_start = |line: &&str| line.split(' ').next() == Some(label);
            assert_eq!(page.lines().filter(at_start).count(), 1, "{label}: {page}");
        }
        // A path and an id are one word.
        let long = |line: &&str| line.chars().count() > columns.into() && line[14..].contains(' ');
        assert_eq!(page.lines().find(long), None, "{page}");
        assert!(page.lines().all(|line| line.as_bytes()[12..14] == *b"  "), "{page}");
    }
}

#[test]
fn answers_come_in_the_order_of_the_names() {
    let sandbox = Sandbox::new();
    for name in ["a", "b", "c"] {
        sandbox.plant_vm(name, "alpine", "generic-6.12");
    }
    let answer = sandbox.run(SHOW, &["c", "nobody", "a", "c"]);
    answer.fails(3, "no VM 'nobody'");
    let names: Vec<_> = answer.documents[..2].iter().map(|d| d["name"].clone()).collect();
    assert_eq!(names, ["c", "a"]);
    sandbox.run(SHOW, &[]).fails(2, "VM");
}
