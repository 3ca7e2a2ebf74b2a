//! Pages that say what the code says.

use crate::{ending, files, none, read, root};
use banger_tests::{Page, Script, pages};

/// Returns the string literals between two lines of a source file.
fn literals(text: &str, from: &str, to: &str) -> Vec<String> {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no '{from}'"));
    let (inside, _) = rest.split_once(to).unwrap_or_else(|| panic!("no '{to}' after '{from}'"));
    inside.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_page_of_the_state_shows_the_tree() {
    let place = read("shared/state/src/place.rs");
    let tree = literals(&place, "pub const TREE: &[&str] = &[", "];");
    let page = read("docs/state.md");
    let (_, rest) = page.split_once("```text\n").expect("a block with the tree");
    let (block, _) = rest.split_once("\n```").expect("the end of the block");
    let shown: Vec<String> = block
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    assert_eq!(shown, tree, "docs/state.md and shared/state/src/place.rs differ");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut complaints = Vec::new();
    for path in ending("md", files()) {
        let text = read(&path);
        let here = root().join(&path);
        let folder = here.parent().expect("a folder");
        for piece in text.split("](").skip(1) {
            let target = piece.split(')').next().unwrap_or("");
            let file = target.split('#').next().unwrap_or("");
            let outside =
                file.is_empty() || file.contains("://") || file.contains(char::is_whitespace);
            if !outside && !folder.join(file).exists() {
                complaints.push(format!("{path}: '{target}' leads nowhere"));
            }
        }
    }
    none(complaints);
}

#[test]
fn every_block_for_a_shell_is_run_or_says_why_not() {
    let pages: Vec<Page> = pages().iter().map(|path| Page::open(path)).collect();
    let scripts: Vec<Script> = pages.iter().flat_map(Page::scripts).collect();
    assert!(scripts.len() > 20, "the pages were not understood");
    let bare = scripts.iter().filter(|script| script.how.is_none());
    let bare = bare.map(|script| {
        format!("{}: say how it is run in the line before (docs/contributing.md)", script.place)
    });
    let odd = pages.iter().flat_map(Page::odd_blocks);
    let odd = odd.map(|sort| format!("nothing runs blocks that begin with '```{sort}'"));
    none(bare.chain(odd).collect());
}

#[test]
fn the_readme_has_the_two_commands() {
    let page = read("README.md");
    for words in ["cargo xtask demo", "cargo xtask test"] {
        assert!(page.contains(words), "README.md does not show '{words}'");
    }
}
