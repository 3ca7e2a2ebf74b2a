//! What `banger-allow` shows and remembers.

use banger_tests::Sandbox;
use serde_json::json;
use std::{fs, os::unix::fs::symlink};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-allow");

#[test]
fn files_are_shown_remembered_listed_and_forgotten() {
    let sandbox = Sandbox::new();
    let dir = sandbox.dir().join("repo");
    fs::create_dir_all(dir.join(".config/mise")).unwrap();
    fs::create_dir(dir.join("inside")).unwrap();
    fs::create_dir(dir.join(".git")).unwrap();
    let path = dir.to_str().unwrap();
    sandbox.run(PROGRAM, &[path]).fails(3, "names no tools");
    sandbox.run(PROGRAM, &["/nowhere"]).fails(3, "no '/nowhere'");
    let listed = sandbox.run(PROGRAM, &["--list"]);
    assert!(listed.ok().stderr.contains("nothing was allowed so far"), "{}", listed.stderr);
    assert!(!sandbox.state().join("allowed").exists(), "a look makes nothing");
    fs::write(dir.join(".tool-versions"), "node 22\n\u{1b}]0;x\u{7}\n").unwrap();
    fs::write(dir.join(".config/mise/config.toml"), "[tools]\n").unwrap();
    symlink("/etc/passwd", dir.join("mise.toml")).unwrap();

    let inside = dir.join("inside");
    let answer = sandbox.run(PROGRAM, &[inside.to_str().unwrap()]);
    let document = answer.ok().document();
    assert_eq!(document["schema"], "banger.allowed/1");
    let real = fs::canonicalize(&dir).unwrap();
    assert_eq!(document["path"], json!(real));
    let files = document["files"].as_array().unwrap();
    assert_eq!(files[0]["path"], ".config/mise/config.toml");
    assert_eq!(files[1]["path"], ".tool-versions");
    assert_eq!(files.len(), 2);
    assert_eq!(files[1]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(fs::read_dir(sandbox.state().join("allowed")).unwrap().count(), 1);

    // A second yes takes the place of the first.
    fs::write(dir.join(".tool-versions"), "node 23\n").unwrap();
    sandbox.run(PROGRAM, &[path]).ok();
    let listed = sandbox.run(PROGRAM, &["--list"]);
    assert_eq!(listed.ok().documents.len(), 1);
    assert_ne!(listed.documents[0]["files"][1]["sha256"], files[1]["sha256"]);
    // One that is damaged keeps nobody from the others.
    let damaged = sandbox.state().join("allowed/damaged.json");
    fs::write(&damaged, "{").unwrap();
    let listed = sandbox.run(PROGRAM, &["--list"]);
    assert_eq!(listed.status, 1, "{}", listed.all());
    assert_eq!(listed.documents[0]["path"], json!(real));
    assert!(
        listed.stderr.contains("damaged.json") && listed.stderr.contains("removing that file"),
        "{}",
        listed.stderr
    );
    sandbox.run(PROGRAM, &["--forget", path]).ok();
    sandbox.run(PROGRAM, &["--forget", path]).fails(1, "damaged.json");
    fs::remove_file(&damaged).unwrap();
    sandbox.run(PROGRAM, &["--forget", path]).fails(3, "nothing of");
    assert!(sandbox.run(PROGRAM, &["--list"]).ok().documents.is_empty());

    // One that is gone can be forgotten too.
    sandbox.run(PROGRAM, &[path]).ok();
    fs::remove_dir_all(&dir).unwrap();
    sandbox.run(PROGRAM, &["--forget", real.to_str().unwrap()]).ok();
    sandbox.run(PROGRAM, &["--list", "--forget"]).fails(2, "cannot be used with");
}
