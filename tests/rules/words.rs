//! Words and places that have no business in the tree.

use crate::{files, lines_of_code, none, root};
use std::{collections::BTreeSet, fs};

/// The only names at the top of the tree, dot files apart.
const TOP: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "bins",
    "completions",
    "docs",
    "shared",
    "tests",
];

#[test]
fn the_top_of_the_tree_is_fixed() {
    let found: BTreeSet<String> = files()
        .iter()
        .filter_map(|path| path.split('/').next())
        .filter(|name| !name.starts_with('.') && !TOP.contains(name))
        .map(str::to_owned)
        .collect();
    assert!(found.is_empty(), "new names at the top of the tree: {found:?}");
}

/// This is the first release: it has no past to speak of, and nothing in it is unfinished. The
/// words are taken apart here, so that this file may hold them.
#[test]
fn no_past_and_nothing_unfinished() {
    let words: Vec<String> = [
        ["leg", "acy"],
        ["previ", "ously"],
        ["no lon", "ger"],
        ["depre", "cated"],
        ["backw", "ard compatib"],
        ["backw", "ards compatib"],
        ["TO", "DO"],
        ["FIX", "ME"],
        ["todo", "!("],
        ["unimplemented", "!("],
        ["#[ign", "ore"],
    ]
    .map(|halves| halves.concat())
    .to_vec();
    let mut complaints = Vec::new();
    for path in files() {
        if path == "Cargo.lock" || path == "LICENSE" {
            continue;
        }
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for word in &words {
                // Shouted words count as shouted; the others in any spelling, and whole.
                let shouted = word.chars().any(|c| c.is_ascii_uppercase());
                let found = if shouted {
                    line.contains(word.as_str())
                } else {
                    line.to_lowercase().contains(word.as_str())
                };
                if found && !line.contains("mktemp") {
                    complaints.push(format!("{path}:{}: '{word}'", number + 1));
                }
            }
        }
    }
    none(complaints);
}

/// Who installed programs has no tree: what is said names a command or an address.
#[test]
fn no_message_names_a_page_of_the_tree() {
    let mut complaints = Vec::new();
    for (path, number, says) in lines_of_code() {
        let page = says.contains("docs/") || says.contains(".md ") || says.contains(".md\"");
        if page && !says.contains("include_str!") {
            complaints.push(format!("{path}:{number}: {}", says.trim()));
        }
    }
    none(complaints);
}
