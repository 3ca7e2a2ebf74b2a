//! What a guest or an archive may take is decided once, where a command begins.

use crate::{lines_of_code, none};

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
    (
        "Limits::default()",
        &[
            "shared/image/src/disk.rs",
            // Of one entry of a tar stream; the whole of it is the budget's.
            "shared/channel/src/files/relay.rs",
            "shared/channel/src/files/take.rs",
            "shared/kernel/src/deb.rs",
        ],
    ),
];

#[test]
fn budgets_are_made_where_commands_begin() {
    let mut complaints = Vec::new();
    for (path, line, code) in lines_of_code() {
        for (word, makers) in MAKERS {
            if code.contains(word) && !makers.contains(&path.as_str()) {
                complaints.push(format!("{path}:{line}: '{word}': pass the command's budget on"));
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
