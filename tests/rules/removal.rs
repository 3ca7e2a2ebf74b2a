//! Trees of others are removed in one way: whatever their depth, with few descriptors, and heard of.

use crate::{files, none, root};
use std::fs;

/// What else removes a tree, and gives up where it is deep.
const OTHER: &str = "remove_dir_all";

#[test]
fn one_function_removes_trees() {
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
            if code.contains(OTHER) {
                let line = number + 1;
                complaints.push(format!("{path}:{line}: banger_tree::remove_tree does it"));
            }
        }
    }
    none(complaints);
}
