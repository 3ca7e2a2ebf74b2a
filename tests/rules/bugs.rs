//! `docs/original-bugs.md` names tests: they are there.

use crate::{none, read, root};
use std::fs;

/// How many bugs the first banger's history tells of.
const BUGS: usize = 73;

#[test]
fn every_bug_of_the_first_banger_is_kept_out_by_a_test_or_a_reason() {
    let page = read("docs/original-bugs.md");
    let rows: Vec<&str> = page.lines().filter(|line| starts_with_a_number(line)).collect();
    let mut complaints = Vec::new();
    if rows.len() != BUGS {
        complaints.push(format!("{} rows, not {BUGS}", rows.len()));
    }
    for (number, row) in (1..).zip(&rows) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [found, _, here] = cells.as_slice() else {
            complaints.push(format!("row {number} has not three cells"));
            continue;
        };
        if *found != number.to_string() {
            complaints.push(format!("row {number} is numbered {found}"));
        }
        let tests: Vec<&str> =
            here.split('`').skip(1).step_by(2).filter(|word| word.contains("::")).collect();
        // A reason without a test has to be one.
        if tests.is_empty() && !here.contains("cannot happen") {
            complaints.push(format!("bug {number} has neither a test nor a reason"));
        }
        complaints.extend(
            tests
                .iter()
                .filter(|test| !is_there(test))
                .map(|test| format!("bug {number}: there is no test {test}")),
        );
    }
    none(complaints);
}

fn starts_with_a_number(line: &str) -> bool {
    line.strip_prefix("| ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Says whether a file has a test: a function so named after `#[test]`, or named in a macro that
/// makes such functions.
fn is_there(test: &str) -> bool {
    let Some((file, name)) = test.split_once("::") else { return false };
    let Ok(text) = fs::read_to_string(root().join(file)) else { return false };
    let mut after_test = false;
    for line in text.lines().map(str::trim) {
        if after_test && line.starts_with(&format!("fn {name}(")) {
            return true;
        }
        // Other attributes may stand between.
        after_test = line == "#[test]" || (after_test && line.starts_with('#'));
    }
    text.contains("macro_rules!")
        && text
            .lines()
            .any(|line| line.trim().split(' ').next() == Some(name) && line.trim().ends_with(';'))
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    assert!(is_there("tests/rules/bugs.rs::a_test_that_is_not_there_is_missed"));
    assert!(!is_there("tests/rules/bugs.rs::is_there"), "no test, only a function");
    assert!(!is_there("tests/rules/bugs.rs::nothing"));
    assert!(!is_there("tests/rules/nowhere.rs::nothing"));
}
