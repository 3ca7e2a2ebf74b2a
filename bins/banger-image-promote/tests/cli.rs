//! The contract of `banger-image-promote`.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_tests::Sandbox;
use serde_json::{Value, json};
use std::{fs, path::Path};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-image-promote");

/// Plants an image whose disk lies in the scratch directory.
fn register(sandbox: &Sandbox) {
    let mut image = sandbox.plant_image("base");
    let path = sandbox.dir().join("disk.ext4");
    let folder = sandbox.state().join("images/base");
    fs::rename(folder.join("rootfs.ext4"), &path).unwrap();
    image["managed"] = json!(false);
    image["rootfs"] = json!(path);
    fs::write(folder.join("image.json"), image.to_string()).unwrap();
}

fn record(sandbox: &Sandbox) -> Value {
    let path = sandbox.state().join("images/base/image.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}

#[test]
fn the_disk_is_copied_and_the_file_not_needed_any_more() {
    let sandbox = Sandbox::new();
    register(&sandbox);
    let (file, disk) =
        (sandbox.dir().join("disk.ext4"), sandbox.state().join("images/base/rootfs.ext4"));
    let answer = sandbox.run(PROGRAM, &["base"]);
    assert_eq!(answer.document()["managed"], true);
    assert_eq!(record(&sandbox)["rootfs"], "rootfs.ext4");
    assert!(same(&file, &disk));
    fs::remove_file(&file).unwrap();
    // Again: done already.
    assert_eq!(sandbox.run(PROGRAM, &["base"]).document()["managed"], true);
    assert!(disk.exists());
}

#[test]
fn a_missing_or_dirty_disk_changes_nothing() {
    let sandbox = Sandbox::new();
    register(&sandbox);
    let file = sandbox.dir().join("disk.ext4");
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    sandbox.run(PROGRAM, &["base"]).fails(3, "cannot open the disk");
    let mut dirty = bytes;
    dirty[1024 + 0x3a] = 0;
    fs::write(&file, dirty).unwrap();
    sandbox.run(PROGRAM, &["base"]).fails(1, "is not clean");
    assert_eq!(record(&sandbox)["managed"], false);
    sandbox.run(PROGRAM, &["none"]).fails(3, "no image 'none'");
    let left = fs::read_dir(sandbox.state().join("images")).unwrap().flatten();
    assert!(left.map(|e| e.file_name()).all(|n| n == "base" || n == ".lock"));
}
