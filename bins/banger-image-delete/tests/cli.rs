//! The contract of `banger-image-delete`.

use banger_tests::Sandbox;
use std::fs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-image-delete");

#[test]
fn an_image_disappears_whole() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_image("other");
    let answer = sandbox.run(PROGRAM, &["alpine"]);
    let document = answer.document();
    assert_eq!(document["schema"], "banger.removed/1");
    assert_eq!((&document["what"], &document["name"]), (&"image".into(), &"alpine".into()));
    assert!(document["freed_bytes"].as_u64().unwrap() > 0);
    let left: Vec<_> = fs::read_dir(sandbox.state().join("images"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".lock")
        .collect();
    assert_eq!(left, ["other"]);
}

#[test]
fn one_that_vms_use_stays_and_they_are_named() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_image("free");
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.plant_vm("db", "alpine", "generic-6.12");
    let answer = sandbox.run(PROGRAM, &["alpine", "free", "none"]);
    answer.fails(4, "image 'alpine' is used by 'db', 'web'");
    assert!(answer.stderr.contains("no image 'none'"));
    assert!(sandbox.state().join("images/alpine/rootfs.ext4").exists());
    assert!(!sandbox.state().join("images/free").exists());
}

#[test]
fn of_sixteen_at_once_one_deletes() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    let statuses: Vec<i32> = std::thread::scope(|scope| {
        let one = || sandbox.run(PROGRAM, &["alpine"]).status;
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 0).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 3).count(), 15, "{statuses:?}");
}
