//! Stand-ins for the programs that a program runs.

use crate::Sandbox;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
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
            fs::copy(program, &copy).expect("a copy of the program");
        }
        for (name, script) in others {
            let path = dir.join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a stand-in");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        }
        copy
    }
}
