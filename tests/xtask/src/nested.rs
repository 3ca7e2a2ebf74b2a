//! `nested`: the tests that need real KVM, by themselves: an emulated machine is the host.

use crate::{
    Result, build,
    run::{self, cargo},
    setup,
};
use std::time::Duration;

/// Twice what it takes on a machine that others use too, and what making its image takes, once.
const LIMIT: Duration = Duration::from_mins(20);

pub(crate) fn run() -> Result {
    setup::run()?;
    build::run()?;
    let mut tests = cargo();
    tests.args(["test", "--package", "banger-tests", "--test", "flows", "--", "nested::"]);
    tests.args(["--nocapture", "--test-threads", "1"]).env("CI", "true");
    run::run("nested", &mut tests, LIMIT)
}
