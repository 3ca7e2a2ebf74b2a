//! The contract of `banger-vm-set`.

use banger_tests::Sandbox;
use serde_json::Value;
use std::fs;

const SET: &str = env!("CARGO_BIN_EXE_banger-vm-set");

fn planted() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    for disk in ["work.ext4", "overlay.ext4"] {
        fs::File::create(sandbox.vm("web").join(disk))
            .expect("a file")
            .set_len(1 << 30)
            .expect("a sparse file");
    }
    sandbox
}

fn spec(sandbox: &Sandbox) -> Value {
    let bytes = fs::read(sandbox.vm("web").join("spec.json")).expect("a spec");
    serde_json::from_slice(&bytes).expect("a document")
}

#[test]
fn what_is_named_changes_and_the_rest_stays() {
    let sandbox = planted();
    let before = spec(&sandbox);
    let answer = sandbox.run(SET, &["web", "--vcpu", "3", "--disk-size", "2G"]);
    assert_eq!(answer.ok().documents[0]["spec"]["vcpu"], 3);
    assert_eq!(answer.documents[0]["status"], "created");
    let after = spec(&sandbox);
    assert_eq!(after["disk_bytes"], 2_u64 << 30);
    assert_eq!(after["memory_mib"], before["memory_mib"]);
    assert_eq!(fs::metadata(sandbox.vm("web").join("work.ext4")).unwrap().len(), 2 << 30);
    assert_eq!(fs::metadata(sandbox.vm("web").join("overlay.ext4")).unwrap().len(), 1 << 30);
    sandbox.run(SET, &["web", "--init", "minimal"]).ok();
    assert_eq!((&spec(&sandbox)["init"], &spec(&sandbox)["vcpu"]), (&"minimal".into(), &3.into()));
    sandbox.run(SET, &["web", "--init", "auto"]).ok();
    assert_eq!(spec(&sandbox).get("init"), None);
}

#[test]
fn fields_of_a_newer_banger_are_kept() {
    let sandbox = planted();
    let path = sandbox.vm("web").join("spec.json");
    let mut document = spec(&sandbox);
    document["colour"] = "blue".into();
    fs::write(&path, document.to_string()).unwrap();
    sandbox.run(SET, &["web", "--vcpu", "2"]).ok();
    assert_eq!(spec(&sandbox)["colour"], "blue");
}

#[test]
fn absurd_values_are_refused_and_change_nothing() {
    let sandbox = planted();
    let before = spec(&sandbox);
    for (option, value) in [
        ("--vcpu", "0"),
        ("--vcpu", "33"),
        ("--vcpu", "-1"),
        ("--memory", "0"),
        ("--memory", "-1G"),
        ("--memory", "900T"),
        ("--disk-size", "512M"),
        ("--disk-size", "99T"),
        ("--overlay-size", "1K"),
        ("--net", "bridge"),
        ("--vmm", "xen"),
        ("--init", "systemd"),
    ] {
        let answer = sandbox.run(SET, &["web", option, value]);
        assert_eq!(answer.status, 2, "{option} {value}: {answer:?}");
    }
    // One good and one bad: nothing grows.
    let answer = sandbox.run(SET, &["web", "--disk-size", "2G", "--overlay-size", "512M"]);
    answer.fails(2, "'--overlay-size' is less than the disk has");
    sandbox.run(SET, &["web"]).fails(2, "nothing to set");
    assert_eq!(spec(&sandbox), before);
    assert_eq!(fs::metadata(sandbox.vm("web").join("work.ext4")).unwrap().len(), 1 << 30);
}

#[test]
fn a_vm_that_runs_is_a_conflict() {
    let sandbox = planted();
    let lock = sandbox.vm("web").join("lock");
    let mut holder = std::process::Command::new("flock")
        .arg("--no-fork")
        .arg(&lock)
        .args(["sh", "-c", "echo held; exec sleep 20"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(holder.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    let answer = sandbox.run(SET, &["web", "--vcpu", "2"]);
    let _ = holder.kill();
    let _ = holder.wait();
    answer.fails(4, "runs");
}

#[test]
fn a_vm_that_is_not_there_is_not_found() {
    planted().run(SET, &["nope", "--vcpu", "1"]).fails(3, "no VM 'nope'");
}

/// Plants `running.json` and answers `wanted.json` as a supervisor would; `problem` is what becomes of
/// published ports.
fn supervise(sandbox: &Sandbox, problem: Option<&'static str>) -> std::process::Child {
    let folder = sandbox.vm("web");
    let holder = hold(sandbox);
    let pid = holder.id();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, stat) = stat.rsplit_once(')').expect("a process");
    let start: u64 = stat.split(' ').nth(20).expect("its start").parse().expect("a number");
    let running = move |ports: &Value| {
        let forwards: Vec<Value> = ports["publish"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| {
                let mut forward = serde_json::json!({
                    "address": "127.0.0.1", "host_port": one["host_port"],
                    "guest_port": one["guest_port"], "published": true,
                });
                if let Some(problem) = problem {
                    forward["problem"] = problem.into();
                }
                forward
            })
            .collect();
        serde_json::json!({
            "schema": "banger.running/1", "phase": "ready",
            "supervisor": {"pid": pid, "start_ticks": start}, "vmm": "qemu", "accelerator": "tcg",
            "started_unix_ms": 1, "forwards": forwards, "ports": ports,
        })
        .to_string()
    };
    fs::write(folder.join("running.json"), running(&serde_json::json!({})))
        .expect("a VM that seems to run");
    let (wanted, answer) = (folder.join("wanted.json"), folder.join("running.json"));
    std::thread::spawn(move || {
        for _ in 0..20_000 {
            if let Ok(bytes) = fs::read(&wanted)
                && let Ok(asked) = serde_json::from_slice::<Value>(&bytes)
                && asked["ports"].is_object()
            {
                let beside = answer.with_extension("new");
                fs::write(&beside, running(&asked["ports"])).expect("a VM that seems to run");
                fs::rename(&beside, &answer).expect("a VM that seems to run");
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    holder
}

/// Holds the VM's lock.
fn hold(sandbox: &Sandbox) -> std::process::Child {
    let mut holder = std::process::Command::new("flock")
        .arg("--no-fork")
        .arg(sandbox.vm("web").join("lock"))
        .args(["sh", "-c", "echo held; exec sleep 100"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a VM that seems to run");
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(holder.stdout.take().expect("a VM that seems to run"));
    std::io::BufRead::read_line(&mut reader, &mut line).expect("a VM that seems to run");
    holder
}

#[test]
fn ports_change_while_a_vm_runs_and_all_else_is_left() {
    let sandbox = planted();
    let mut holder = supervise(&sandbox, None);
    let stop = r#"{"schema":"banger.wanted/1","desire":"paused","grace_ms":7,"colour":"blue"}"#;
    fs::write(sandbox.vm("web").join("wanted.json"), stop).unwrap();
    let answer = sandbox.run(SET, &["web", "--publish", "8080:80", "--ports", "auto"]);
    let loopback = answer.document()["spec"]["ports"]["loopback"].clone();
    assert!(loopback.as_str().unwrap().starts_with("127."));
    let wanted = fs::read(sandbox.vm("web").join("wanted.json")).unwrap();
    let wanted: Value = serde_json::from_slice(&wanted).unwrap();
    assert_eq!(wanted["ports"], spec(&sandbox)["ports"]);
    assert_eq!((&wanted["desire"], &wanted["grace_ms"]), (&"paused".into(), &7.into()));
    assert_eq!(wanted["colour"], "blue");
    sandbox.run(SET, &["web", "--unpublish", "8080"]).ok();
    sandbox.run(SET, &["web", "--unpublish", "8080"]).fails(3, "8080");
    assert_eq!(spec(&sandbox)["ports"]["loopback"], loopback);
    // With anything else named, it is refused as ever, and no port changes.
    sandbox.run(SET, &["web", "--vcpu", "2", "--publish", "1:1"]).fails(4, "runs");
    assert!(spec(&sandbox)["ports"]["publish"].is_null());
    let _ = holder.kill();
    let _ = holder.wait();
}

#[test]
fn a_port_that_cannot_be_had_changes_nothing() {
    let sandbox = planted();
    let mut holder = supervise(&sandbox, Some("port 8080 of 127.0.0.1 is taken"));
    sandbox.run(SET, &["web", "--publish", "8080:80"]).fails(4, "is taken");
    let _ = holder.kill();
    let _ = holder.wait();
    assert!(spec(&sandbox)["ports"].is_null());
    // Nor does it keep another from it.
    sandbox.plant_vm("db", "alpine", "generic-6.12");
    sandbox.run(SET, &["db", "--publish", "8080:80"]).ok();
    sandbox.run(SET, &["web", "--publish", "8080:81"]).fails(4, "VM 'db's");
    sandbox.run(SET, &["web", "--publish", "1:2", "--publish", "1:3"]).fails(2, "the same port");
}

#[test]
fn a_lock_that_is_no_supervisor_s_is_not_waited_for() {
    let sandbox = planted();
    let mut holder = hold(&sandbox);
    // Left by a supervisor that was killed; a program that deletes the VM has the lock.
    let dead = r#"{"schema":"banger.running/1","phase":"ready","supervisor":{"pid":4194999,"start_ticks":1},
        "vmm":"qemu","accelerator":"tcg","started_unix_ms":1}"#;
    fs::write(sandbox.vm("web").join("running.json"), dead).unwrap();
    let answer = sandbox.run(SET, &["web", "--publish", "8080:80"]);
    let _ = holder.kill();
    let _ = holder.wait();
    assert!(answer.ok().took < std::time::Duration::from_secs(15), "{}", answer.all());
}
