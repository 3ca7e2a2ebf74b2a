//! `docs/errors.md`: every error the tests have seen, with its status and its hint.

use crate::{
    Result,
    run::{root, say},
};
use serde_json::Value;
use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

const HEAD: &str = "\
# Errors

Every error that the tests provoke: what is said, the exit status, what banger proposes to type. `...` stands for a folder, `N` for a long number. The page is
made by the tests themselves: `BLESS=1 cargo xtask test` writes it. [Programs](programs.md#exit-status) says what the statuses mean; 125 is a
raw program's own failure.

| program | status | message | hint |
|---|---|---|---|
";

/// Compares the page with what the tests saw, or writes it if blessing was asked for.
pub(crate) fn check(collected: &Path) -> Result {
    let text = fs::read_to_string(collected)
        .map_err(|error| format!("cannot read '{}': {error}", collected.display()))?;
    let mut rows = BTreeSet::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line)
            .map_err(|error| format!("'{}' holds '{line}': {error}", collected.display()))?;
        let cell = |name: &str| {
            let text = row[name].as_str().unwrap_or_default();
            text.replace('|', "\\|").replace('<', "&lt;")
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
    let missing: Vec<&String> = rows.iter().filter(|row| !shown.contains(row.as_str())).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut words = String::from("docs/errors.md lacks errors; BLESS=1 cargo xtask test adds them");
    for row in missing {
        let _ = write!(words, "\n{row}");
    }
    Err(words)
}
