//! What a guest or an archive may take is decided once, where a command begins.

use crate::{lines_of_code, none};

/// Where a budget is made, and where the bounds of layers meet what the user chose.
const MAKERS: &[(&str, &[&str])] = &[
    (
        "Budget::new(",
        &[
            "shared/workspace/src/status.rs",
            // Of a tree of modules: a type of its own.
            "shared/kernel/src/bring.rs",
            "shared/kernel/src/tree.rs",
            "shared/workspace/examples/watched.rs",
        ],
    ),
    ("Budget::of(", &["bins/banger-vm-cp/src/guest.rs"]),
    ("Limits::default()", &["shared/image/src/disk.rs"]),
];

#[test]
fn budgets_are_made_where_commands_begin() {
    let mut complaints = Vec::new();
    let mut seen = Vec::new();
    for (path, line, code) in lines_of_code() {
        for (word, makers) in MAKERS {
            if !code.contains(word) {
                continue;
            }
            match makers.iter().find(|maker| **maker == path) {
                Some(maker) => seen.push((word, maker)),
                None => complaints
                    .push(format!("{path}:{line}: '{word}': pass the command's budget on")),
            }
        }
    }
    for (word, makers) in MAKERS {
        for maker in makers.iter().filter(|maker| !seen.contains(&(word, maker))) {
            complaints.push(format!("{maker} has no '{word}': take it out of the table"));
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
