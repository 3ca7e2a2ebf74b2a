//! `build`: all programs, and the guest's statically into `guest/` beside them.

use crate::{
    Result,
    run::{self, cargo, target},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

/// The program that runs inside a guest, whatever its libraries are.
const GUEST: &str = "banger-guest-init";
const LIMIT: Duration = Duration::from_mins(40);
/// Linked to one address too: an emulated guest answers later if it has to relocate its program, to
/// other addresses each time.
const STATIC: &str = "-C target-feature=+crt-static -C relocation-model=static -C strip=symbols";

pub(crate) fn run() -> Result {
    let mut build = cargo();
    build.args(["build", "--workspace", "--quiet"]);
    if std::env::var_os("CI").is_some() {
        build.arg("--locked");
    }
    run::run("building the programs", &mut build, LIMIT)?;
    guest("dev", &target().join("debug/guest"))?;
    tests_for_a_guest(&target().join("debug/guest-tests"))
}

/// Builds unit tests that need a newer kernel than a host may have, to be run in a guest.
fn tests_for_a_guest(to: &Path) -> Result {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    fs::create_dir_all(to).map_err(|error| format!("cannot make '{}': {error}", to.display()))?;
    run::say("== building tests for a guest");
    for name in ["jail", "machine"] {
        let mut build = cargo();
        build.args(["test", "--quiet", "--no-run", "--lib"]);
        build.arg("--package").arg(format!("banger-{name}"));
        build.args(["--target", &triple, "--message-format", "json"]);
        build.env("RUSTFLAGS", STATIC);
        let output = build.stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| format!("cannot run cargo: {error}"))?;
        let words = String::from_utf8_lossy(&output.stdout);
        let program = words.lines().find_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            message["executable"].as_str().map(PathBuf::from)
        });
        replace(&program.ok_or("cargo built no tests for a guest")?, &to.join(name))?;
    }
    Ok(())
}

/// Builds the guest's program with a profile (`dev`, `release`, `bench`) and copies it into `to`.
pub(crate) fn guest(profile: &str, to: &Path) -> Result {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = cargo();
    build.args(["build", "--quiet", "--target", &triple, "--package", GUEST]);
    build.args(["--profile", profile]);
    build.env("RUSTFLAGS", STATIC);
    run::run("building the guest's program", &mut build, LIMIT)?;
    fs::create_dir_all(to).map_err(|error| format!("cannot make '{}': {error}", to.display()))?;
    let folder = if profile == "dev" { "debug" } else { "release" };
    replace(&target().join(&triple).join(folder).join(GUEST), &to.join(GUEST))
}

/// Copies a program over one that may be running.
pub(crate) fn replace(from: &Path, to: &Path) -> Result {
    let aside = to.with_extension("new");
    fs::copy(from, &aside)
        .and_then(|_| fs::rename(&aside, to))
        .map_err(|error| format!("cannot copy '{}' to '{}': {error}", from.display(), to.display()))
}
