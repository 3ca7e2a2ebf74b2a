//! The contract of `banger-df`.

use banger_tests::Sandbox;
use std::fs;

const DF: &str = env!("CARGO_BIN_EXE_banger-df");

#[test]
fn without_a_state_the_total_is_zero_and_nothing_is_made() {
    let sandbox = Sandbox::new();
    let answer = sandbox.run(DF, &[]);
    assert_eq!(answer.ok().documents.len(), 1);
    assert_eq!(answer.documents[0]["what"], "total");
    assert_eq!(answer.documents[0]["exclusive_bytes"], 0);
    assert!(!sandbox.state().exists());
}

#[test]
fn sparse_files_count_what_they_hold() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    let disk = sandbox.state().join("images/alpine/extra");
    let file = fs::File::create(&disk).unwrap();
    file.set_len(1 << 30).unwrap();
    let answer = sandbox.run(DF, &[]);
    let image = answer.ok().documents.iter().find(|d| d["name"] == "alpine").unwrap();
    assert!(image["apparent_bytes"].as_u64().unwrap() >= 1 << 30);
    assert!(image["exclusive_bytes"].as_u64().unwrap() < 1 << 24, "{image}");
}

#[test]
fn the_cache_and_litter_can_be_freed() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    let blobs = sandbox.state().join("cache/oci/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join("0".repeat(64)), vec![7; 100_000]).unwrap();
    let litter = sandbox.state().join("images/.new-x-1");
    fs::create_dir(&litter).unwrap();
    fs::write(litter.join("half"), vec![7; 50_000]).unwrap();
    let answer = sandbox.run(DF, &[]);
    let of = |what: &str| {
        let usage = answer.documents.iter().find(|d| d["what"] == what).unwrap();
        usage["reclaimable_bytes"].as_u64().unwrap()
    };
    assert!(of("cache") >= 100_000 && of("litter") >= 50_000);
    assert_eq!(of("total"), of("cache") + of("litter"));
}

#[test]
fn a_wrong_word_is_a_usage_error() {
    Sandbox::new().run(DF, &["web"]).fails(2, "web");
}
