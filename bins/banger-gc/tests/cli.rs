//! The contract of `banger-gc`.

use banger_tests::Sandbox;
use std::fs;

const GC: &str = env!("CARGO_BIN_EXE_banger-gc");

#[test]
fn an_empty_state_has_nothing_to_remove() {
    let sandbox = Sandbox::new();
    let answer = sandbox.run(GC, &[]);
    assert!(answer.ok().documents.is_empty());
}

#[test]
fn half_made_folders_go_and_objects_stay() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    let litter = sandbox.state().join("images/.new-web-999999");
    fs::create_dir_all(&litter).unwrap();
    fs::write(litter.join("rootfs.ext4"), vec![1; 8192]).unwrap();
    let old = sandbox.state().join("images/.old-web-999999");
    fs::create_dir_all(&old).unwrap();
    let temporary = sandbox.state().join("images/alpine/.image.json.4194999");
    fs::write(&temporary, "half").unwrap();

    let would = sandbox.run(GC, &["--dry-run"]);
    assert_eq!(would.ok().documents.len(), 3, "{would:?}");
    assert!(litter.exists() && old.exists() && temporary.exists());

    let did = sandbox.run(GC, &[]);
    assert_eq!(did.ok().documents.len(), 3, "{did:?}");
    let freed: Vec<_> = did.documents.iter().map(|d| d["freed_bytes"].as_u64().unwrap()).collect();
    assert!(freed.iter().any(|bytes| *bytes >= 8192), "{freed:?}");
    assert!(!litter.exists() && !old.exists() && !temporary.exists());
    assert!(sandbox.state().join("images/alpine/image.json").exists());
    assert!(sandbox.run(GC, &[]).ok().documents.is_empty());
}

#[test]
fn what_a_living_program_holds_stays() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    let held = sandbox.state().join("images/.new-held-1");
    fs::create_dir_all(&held).unwrap();
    // flock(1) holds the lock on the folder as a program at work would.
    let mut holder = std::process::Command::new("flock")
        .arg("--no-fork")
        .arg(&held)
        .args(["sh", "-c", "echo held; exec sleep 20"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(holder.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    let answer = sandbox.run(GC, &[]);
    let _ = holder.kill();
    let _ = holder.wait();
    assert!(answer.ok().documents.is_empty(), "{answer:?}");
    assert!(held.exists());
}

#[test]
fn a_wrong_option_is_a_usage_error() {
    Sandbox::new().run(GC, &["--all"]).fails(2, "--all");
}
