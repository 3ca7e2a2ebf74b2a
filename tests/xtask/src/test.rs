//! `test`: everything that can be proved on this machine.

use crate::{
    Result, build, errors,
    run::{self, cargo},
    setup,
};
use std::{fs, time::Duration};

/// Far more than the tests may take; what hangs is each test's own affair.
const LIMIT: Duration = Duration::from_hours(1);

pub(crate) fn run(words: &[&str]) -> Result {
    setup::run()?;
    build::run()?;
    let nextest = cargo().args(["nextest", "--version"]).output();
    let mut tests = cargo();
    if nextest.is_ok_and(|output| output.status.success()) {
        tests.args(["nextest", "run", "--workspace", "--no-fail-fast"]).args(words);
    } else {
        tests.args(["test", "--workspace", "--quiet", "--no-fail-fast"]).args(words);
    }
    let collected = errors::collected();
    let _ = fs::remove_file(&collected);
    tests.env("BANGER_ERRORS", &collected);
    // What a test needs is here now: absent means broken, not skipped.
    tests.env("CI", "true");
    run::run("tests", &mut tests, LIMIT)?;
    if words.is_empty() { errors::run() } else { Ok(()) }
}
