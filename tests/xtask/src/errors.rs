//! `docs/errors.md`: every error the tests have seen, with its status and its hint.

use crate::{
    Result,
    run::{root, say, target},
};
use serde_json::Value;
use std::{collections::BTreeSet, fmt::Write, fs, path::PathBuf};

const HEAD: &str = "\
# Errors

Every error that the tests provoke: what is said, the exit status, what banger proposes to type. `...` stands for a folder, `N` for a long number. The page is
made by the tests themselves: `BLESS=1 cargo xtask errors` writes it after `cargo xtask test`. [Programs](programs.md#exit-status) says what the statuses mean; 125 is a
raw program's own failure.

| program | status | message | hint |
|---|---|---|---|
";

/// Returns the file in which the tests collect what they see.
pub(crate) fn collected() -> PathBuf {
    target().join("errors.jsonl")
}

/// Compares the page with what the last tests saw, or writes it if blessing was asked for.
pub(crate) fn run() -> Result {
    let collected = collected();
    let text = fs::read_to_string(&collected)
        .map_err(|error| format!("cannot read '{}': {error}", collected.display()))?;
    let mut rows = BTreeSet::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line)
            .map_err(|error| format!("'{}' holds '{line}': {error}", collected.display()))?;
        let cell = |name: &str| {
            let text = row[name].as_str().unwrap_or_default();
            let plain: String = text.chars().filter(|c| !c.is_control()).collect();
            let plain = without_random_folders(&plain);
            plain.replace('|', "\\|").replace('<', "&lt;")
        };
        let status = row["status"].as_i64().unwrap_or_default();
        rows.insert(format!(
            "| {} | {status} | {} | {} |",
            cell("program").replacen("banger-", "", 1),
            cell("message"),
            cell("hint")
        ));
    }
    let mut page = HEAD.to_owned();
    for row in &rows {
        let _ = writeln!(page, "{row}");
    }
    let path = root().join("docs/errors.md");
    if std::env::var_os("BLESS").is_some() {
        say(&format!("docs/errors.md: {} errors", rows.len()));
        return fs::write(&path, page).map_err(|error| format!("cannot write the page: {error}"));
    }
    let shown = fs::read_to_string(&path).unwrap_or_default();
    let known: BTreeSet<&str> = shown.lines().map(key).collect();
    let missing: Vec<&String> = rows.iter().filter(|row| !known.contains(key(row))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut words =
        String::from("docs/errors.md lacks errors; BLESS=1 cargo xtask errors adds them");
    for row in missing {
        let _ = write!(words, "\n{row}");
    }
    Err(words)
}

/// Some tests have folders outside of their sandbox, since a guest's user has to reach them.
fn without_random_folders(text: &str) -> String {
    const FOLDER: &str = "/run/.tmp";
    let mut parts = text.split(FOLDER);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| {
        let name = part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
        all + "..." + &part[name..]
    })
}

/// Returns what of a row is the same on every host: a cause is in the words of the system, and a
/// hint may name what this host has.
fn key(row: &str) -> &str {
    let message = row.match_indices(" | ").nth(1).map_or(0, |(at, _)| at + 3);
    let end = row[message..].find([':', '|']).map_or(row.len(), |at| message + at);
    row[..end].trim_end()
}
