//! The contract of `banger-workspace-exports`; that exports leave copies is tested with
//! `banger-workspace-export`.

use banger_tests::{Sandbox, program};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-workspace-exports");

/// Puts a copy where an export would leave it.
fn plant(sandbox: &Sandbox, vm: &str, number: u64, more: &Value, content: &[u8]) {
    let name = format!("{vm}-{number}");
    let dir = sandbox.state().join("exports").join(&name);
    fs::create_dir_all(&dir).expect("a folder");
    fs::set_permissions(sandbox.state(), PermissionsExt::from_mode(0o700)).expect("its mode");
    let mut document = json!({
        "schema": "banger.export/1", "name": name, "vm": vm, "guest_path": "/root/repo",
        "host_path": "/home/me/repo", "form": "patch", "size_bytes": content.len(), "files": 2,
        "unix_ms": 1_700_000_000_000 + number,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        document[key] = value.clone();
    }
    fs::write(dir.join("export.json"), document.to_string()).expect("a document");
    let form = document["form"].as_str().expect("a word");
    fs::write(dir.join(form), content).expect("what was exported");
}

fn names(sandbox: &Sandbox, words: &[&str]) -> Vec<String> {
    let answer = sandbox.run(PROGRAM, words);
    let names = answer.ok().documents.iter().map(|copy| copy["name"].as_str().expect("a name"));
    names.map(ToOwned::to_owned).collect()
}

#[test]
fn without_a_state_there_are_none_and_nothing_is_made() {
    let sandbox = Sandbox::new();
    assert!(sandbox.run(PROGRAM, &[]).ok().documents.is_empty());
    sandbox.run(PROGRAM, &["--delete", "web-1"]).fails(3, "no export 'web-1'");
    assert_eq!(sandbox.raw(PROGRAM, &["--print", "web-1"]).status, 125);
    assert!(!sandbox.state().exists());
}

#[test]
fn copies_are_listed_newest_first_also_of_a_vm_that_is_gone() {
    let sandbox = Sandbox::new();
    plant(&sandbox, "web", 1, &json!({}), b"one\n");
    plant(
        &sandbox,
        "db",
        3,
        &json!({"base_commit": "0123456789abcdef0123456789abcdef01234567"}),
        b"",
    );
    plant(&sandbox, "web", 2, &json!({"form": "mbox"}), b"two\n");
    assert_eq!(names(&sandbox, &[]), ["db-3", "web-2", "web-1"]);
    assert_eq!(names(&sandbox, &["web"]), ["web-2", "web-1"]);
    assert!(names(&sandbox, &["nobody"]).is_empty());
    let table = sandbox.raw(PROGRAM, &["--format", "table"]).ok().text();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect())
        .collect();
    assert_eq!(rows[0], ["EXPORT", "VM", "WHEN", "SIZE", "FILES", "AGAINST", "WORKSPACE"]);
    assert!(
        rows[1][0] == "db-3" && rows[1].ends_with(&["2", "0123456789ab", "/root/repo"]),
        "{table}"
    );
    assert!(
        rows[3][0] == "web-1" && rows[3].ends_with(&["4 B", "2", "what went in", "/root/repo"]),
        "{table}"
    );
}

#[test]
fn a_copy_is_printed_as_it_is_and_stays() {
    let sandbox = Sandbox::new();
    let content = b"diff --git a/x b/x\n+\xff\x1b[31m\r\n";
    plant(&sandbox, "web", 1, &json!({}), content);
    plant(&sandbox, "web", 2, &json!({"form": "mbox"}), b"From x\n");
    for _ in 0..2 {
        let answer = sandbox.raw(PROGRAM, &["--print", "web-1"]);
        assert_eq!(answer.ok().stdout, content);
        assert_eq!(answer.stderr, "");
    }
    assert_eq!(sandbox.raw(PROGRAM, &["--print=web-2"]).ok().stdout, b"From x\n");
    // A failure never looks like a patch.
    let absent = sandbox.raw(PROGRAM, &["--print", "web-3"]);
    assert_eq!((absent.status, absent.stdout.len()), (125, 0));
    assert!(absent.stderr.contains("'banger workspace exports' shows"), "{}", absent.stderr);
    fs::remove_file(sandbox.state().join("exports/web-2/mbox")).expect("gone");
    let broken = sandbox.raw(PROGRAM, &["--print", "web-2", "--json"]);
    assert_eq!((broken.status, broken.stdout.len()), (125, 0));
    let full = sandbox.raw("/bin/sh", &["-c", "exec \"$0\" --print web-1 >/dev/full", PROGRAM]);
    assert_eq!(full.status, 125, "{}", full.stderr);
    let gone = sandbox
        .raw("/bin/bash", &["-c", "\"$0\" --print web-1 | true; exit ${PIPESTATUS[0]}", PROGRAM]);
    gone.ok();
}

#[test]
fn copies_are_removed_by_name_alone() {
    let sandbox = Sandbox::new();
    for number in 1..=3 {
        plant(&sandbox, "web", number, &json!({}), b"x");
    }
    let removed = sandbox.run(PROGRAM, &["--delete", "web-1", "--delete", "web-3"]);
    assert_eq!(removed.ok().documents.len(), 2);
    assert_eq!(removed.documents[0]["what"], "export");
    assert_eq!(names(&sandbox, &[]), ["web-2"]);
    sandbox.run(PROGRAM, &["--delete", "web-1"]).fails(3, "no export 'web-1'");
    for bad in ["../exports/web-2", "", "WEB-2"] {
        sandbox.run(PROGRAM, &["--delete", bad]).fails(2, "is not a name");
    }
    for words in [["web", "--delete", "web-2"], ["web", "--print", "web-2"]] {
        assert_eq!(sandbox.raw(PROGRAM, &words).status, 2);
    }
    let both = sandbox.raw(PROGRAM, &["--print", "web-2", "--delete", "web-2"]);
    assert_eq!(both.status, 2);
    assert_eq!(names(&sandbox, &[]), ["web-2"]);
}

#[test]
fn one_that_cannot_be_read_hides_no_other() {
    let sandbox = Sandbox::new();
    plant(&sandbox, "web", 1, &json!({}), b"x");
    plant(&sandbox, "web", 2, &json!({}), b"x");
    fs::write(sandbox.state().join("exports/web-2/export.json"), "{").expect("damage");
    let answer = sandbox.run(PROGRAM, &[]);
    answer.fails(1, "cannot read export 'web-2'");
    assert_eq!(answer.documents[0]["name"], "web-1");
    sandbox.run(PROGRAM, &["--delete", "web-1"]).ok();
}

#[test]
fn what_is_too_old_is_counted_by_df_and_removed_by_gc() {
    let sandbox = Sandbox::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let ago = |days: u64| json!({"unix_ms": now.as_millis() as u64 - days * 86_400_000});
    plant(&sandbox, "web", 1, &ago(40), &vec![7; 100_000]);
    plant(&sandbox, "web", 2, &ago(20), &vec![7; 100_000]);
    plant(&sandbox, "web", 3, &ago(10), &vec![7; 100_000]);
    fs::create_dir(sandbox.state().join("exports/.new-web-4-4194999")).expect("litter");
    let row = || {
        let answer = sandbox.run(program("banger-df"), &[]);
        let rows = answer.ok().documents.iter().find(|row| row["what"] == "exports").cloned();
        let row = rows.expect("a row");
        (
            row["exclusive_bytes"].as_u64().expect("bytes"),
            row["reclaimable_bytes"].as_u64().expect("bytes"),
        )
    };
    let (all, surplus) = row();
    assert!(all >= 300_000 && (100_000..150_000).contains(&surplus), "{all} {surplus}");
    let gc = program("banger-gc");
    let would = sandbox.run(&gc, &["--dry-run"]);
    let removed: Vec<&Value> = would.ok().documents.iter().collect();
    assert_eq!(removed.len(), 2, "{removed:?}");
    assert!(removed.iter().any(|one| one["what"] == "export" && one["name"] == "web-1"));
    assert_eq!(names(&sandbox, &[]).len(), 3);
    assert_eq!(sandbox.run(&gc, &[]).ok().documents.len(), 2);
    assert_eq!(names(&sandbox, &[]), ["web-3", "web-2"]);
    assert_eq!(row().1, 0);
    // However little is to be kept, the newest is.
    sandbox.config("[exports]\nkeep_days = 0\nbytes = \"1K\"\n");
    assert!(row().1 >= 100_000);
    assert_eq!(sandbox.run(&gc, &[]).ok().documents.len(), 1);
    assert_eq!(names(&sandbox, &[]), ["web-3"]);
}
