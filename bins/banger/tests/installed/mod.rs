//! The front in a folder of its own, among programs made for a test.

use banger_tests::{Answer, Sandbox, copy_program, write_program};
use std::{fs, path::Path};

/// Installs the front in a folder of its own, with programs that say how they were called.
pub(crate) fn installed(programs: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let bin = sandbox.dir().join("bin");
    fs::create_dir(&bin).expect("a folder");
    copy_program(env!("CARGO_BIN_EXE_banger"), &bin.join("banger"));
    for name in programs {
        script(&bin, name, &format!("echo beside {name} \"$#\" \"$@\""));
    }
    sandbox
}

/// Writes a program into a folder.
pub(crate) fn script(dir: &Path, name: &str, body: &str) {
    write_program(&dir.join(name), &format!("#!/bin/sh\n{body}\n"));
}

/// Runs the installed front.
pub(crate) fn banger(sandbox: &Sandbox, words: &[&str]) -> Answer {
    sandbox.raw(sandbox.dir().join("bin/banger"), words)
}
