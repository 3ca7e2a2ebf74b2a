//! The front in a folder of its own, among programs made for a test.

use banger_tests::{Answer, Sandbox};
use std::{fs, path::Path, process::Command};

/// Installs the front in a folder of its own, with programs that say how they were called.
pub(crate) fn installed(programs: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let bin = sandbox.dir().join("bin");
    fs::create_dir(&bin).expect("a folder");
    shell(r#"cp "$1" "$2""#, env!("CARGO_BIN_EXE_banger"), &bin.join("banger"));
    for name in programs {
        script(&bin, name, &format!("echo beside {name} \"$#\" \"$@\""));
    }
    sandbox
}

/// Writes a program into a folder.
pub(crate) fn script(dir: &Path, name: &str, body: &str) {
    shell(
        r#"printf %s "$1" >"$2"; chmod +x "$2""#,
        &format!("#!/bin/sh\n{body}\n"),
        &dir.join(name),
    );
}

/// Programs are written by a process of their own: written here, a child that another test starts
/// meanwhile would hold them open for writing, and they could not be run.
fn shell(script: &str, first: &str, second: &Path) {
    let status = Command::new("/bin/sh").args(["-ec", script, "sh", first]).arg(second).status();
    assert!(status.expect("a shell").success(), "{script}");
}

/// Runs the installed front.
pub(crate) fn banger(sandbox: &Sandbox, words: &[&str]) -> Answer {
    sandbox.raw(sandbox.dir().join("bin/banger"), words)
}
