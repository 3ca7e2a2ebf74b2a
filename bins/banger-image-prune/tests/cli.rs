//! The contract of `banger-image-prune`.

use banger_tests::Sandbox;
use std::fs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-image-prune");

#[test]
fn the_cache_goes_and_images_stay() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    let blobs = sandbox.state().join("cache/oci/blobs/sha256");
    let partial = sandbox.state().join("cache/partial");
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&partial).unwrap();
    fs::create_dir_all(sandbox.state().join("cache/.old-1-0/blobs")).unwrap();
    fs::write(blobs.join("a".repeat(64)), vec![1; 100_000]).unwrap();
    fs::write(partial.join("b".repeat(64)), vec![1; 50_000]).unwrap();

    let would = sandbox.run(PROGRAM, &["--dry-run"]);
    let would = would.document();
    assert_eq!(would["dry_run"], true);
    let bytes = would["freed_bytes"].as_u64().unwrap();
    assert!((150_000..200_000).contains(&bytes), "{bytes}");
    assert!(blobs.join("a".repeat(64)).exists());

    let freed = sandbox.run(PROGRAM, &[]);
    assert_eq!(freed.document()["freed_bytes"].as_u64(), Some(bytes));
    assert_eq!(fs::read_dir(sandbox.state().join("cache")).unwrap().count(), 0);
    assert!(sandbox.state().join("images/alpine/rootfs.ext4").exists());
    assert_eq!(sandbox.run(PROGRAM, &[]).document()["freed_bytes"], 0);
}

#[test]
fn people_read_one_line() {
    let sandbox = Sandbox::new();
    let text = sandbox.terminal(PROGRAM, 100, |_| {}).ok().text();
    assert_eq!(text.trim_end(), "nothing to free: no downloaded layers are kept");
    let blobs = sandbox.state().join("cache/oci/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join("a".repeat(64)), vec![1; 1 << 20]).unwrap();
    let text = sandbox.terminal(PROGRAM, 100, |_| {}).ok().text();
    assert_eq!(text.trim_end(), "freed 1.0 MiB: 1 downloaded layer");
}
