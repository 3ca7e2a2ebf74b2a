//! What a guest or an archive may take is decided once, where a command begins.

use crate::{files, none, root};
use std::fs;

/// Where a budget is made, and where the bounds of layers meet what the user chose.
const MAKERS: &[(&str, &[&str])] = &[
    (
        "Budget::new(",
        &[
            "shared/channel/src/files/budget.rs",
            "shared/workspace/src/status.rs",
            // Of a tree of modules: a type of its own.
            "shared/kernel/src/bring.rs",
            "shared/kernel/src/tree.rs",
        ],
    ),
    ("Budget::of(", &["shared/channel/src/files/budget.rs", "bins/banger-vm-cp/src/guest.rs"]),
    ("Limits::default()", &["shared/image/src/disk.rs"]),
];

#[test]
fn budgets_are_made_where_commands_begin() {
    let mut complaints = Vec::new();
    for path in files() {
        let is_source = ["bins/", "shared/"].iter().any(|top| path.starts_with(top))
            && path.contains("/src/")
            && path.ends_with(".rs")
            && !path.ends_with("/tests.rs");
        if !is_source {
            continue;
        }
        let text = fs::read_to_string(root().join(&path)).expect("a source");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (word, makers) in MAKERS {
                if code.contains(word) && !makers.contains(&path.as_str()) {
                    let line = number + 1;
                    complaints
                        .push(format!("{path}:{line}: '{word}': pass the command's budget on"));
                }
            }
        }
    }
    none(complaints);
}

#[test]
fn sums_are_checked_in_releases() {
    let manifest = crate::read("Cargo.toml");
    let release = manifest.split("[profile.release]").nth(1).expect("a profile of releases");
    let release = release.split("\n[").next().unwrap_or_default();
    assert!(release.lines().any(|line| line == "overflow-checks = true"), "{release}");
}
