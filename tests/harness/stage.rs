//! Stand-ins for the programs that a program runs.

use crate::{Sandbox, run_bounded};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

impl Sandbox {
    /// Copies a program into a directory where it finds stand-ins, shell scripts, before the real
    /// programs; returns the copy. Called again, it replaces stand-ins.
    pub fn beside(&self, program: &str, others: &[(&str, &str)]) -> PathBuf {
        let dir = self.dir().join("bin");
        fs::create_dir_all(&dir).expect("a directory in the sandbox");
        let name = Path::new(program).file_name().expect("a program has a name");
        let copy = dir.join(name);
        if !copy.exists() {
            copy_program(program, &copy);
        }
        for (name, script) in others {
            write_program(&dir.join(name), &format!("#!/bin/sh\n{script}\n"));
        }
        copy
    }
}

/// Writes a program.
pub fn write_program(path: &Path, text: &str) {
    shell(r#"printf %s "$1" >"$2"; chmod 755 "$2""#, text, path);
}

/// Copies a program.
pub fn copy_program(program: &str, to: &Path) {
    shell(r#"cp "$1" "$2""#, program, to);
}

/// Programs are written by a process of their own: written here, a child that another test starts
/// meanwhile would hold them open for writing, and they could not be run.
fn shell(script: &str, first: &str, second: &Path) {
    let mut command = Command::new("/bin/sh");
    command.args(["-ec", script, "sh", first]).arg(second);
    let ended = run_bounded(&mut command, None, Duration::from_mins(1));
    assert_eq!(ended.status, 0, "{script}: {}", String::from_utf8_lossy(&ended.stderr));
}
