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
    let after = spec(&sandbox);
    assert_eq!(after["disk_bytes"], 2_u64 << 30);
    assert_eq!(after["memory_mib"], before["memory_mib"]);
    assert_eq!(fs::metadata(sandbox.vm("web").join("work.ext4")).unwrap().len(), 2 << 30);
    assert_eq!(fs::metadata(sandbox.vm("web").join("overlay.ext4")).unwrap().len(), 1 << 30);
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
    ] {
        let answer = sandbox.run(SET, &["web", option, value]);
        assert_eq!(answer.status, 2, "{option} {value}: {answer:?}");
    }
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
