//! Trees of others are removed in one way: whatever their depth, with few descriptors, and heard of.

use crate::{lines_of_code, none};

/// What else removes a tree, and gives up where it is deep.
const OTHER: &str = "remove_dir_all";

#[test]
fn one_function_removes_trees() {
    let others = lines_of_code().into_iter().filter(|(.., code)| code.contains(OTHER));
    none(
        others
            .map(|(path, line, _)| format!("{path}:{line}: banger_tree::remove_tree does it"))
            .collect(),
    );
}
