//! What is said to be typed, typed.

use banger_doc::shell_word;
use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    process::{Command, Output},
};

fn run(shell: &str, word: &str) -> Output {
    Command::new(shell).args(["-c", &format!("printf %s {word}")]).output().expect("a shell")
}

#[test]
fn the_longest_path_is_typed_as_it_is() {
    let deep = "/srv/a b".repeat(511);
    assert_eq!(run("sh", &shell_word(&deep)).stdout, deep.as_bytes());
    let odd = b"/\xff\n".repeat(1364);
    assert_eq!(run("bash", &shell_word(OsStr::from_bytes(&odd))).stdout, odd);
}

#[test]
fn no_shell_runs_a_command_with_a_part_of_what_is_longer() {
    for long in [b"x;touch own;".repeat(5000), b"/srv/data".repeat(900), b"/\xff\n".repeat(3000)] {
        for shell in ["sh", "bash"] {
            let output = run(shell, &shell_word(OsStr::from_bytes(&long)));
            assert!(!output.status.success() && output.stdout.is_empty(), "{shell}: {output:?}");
        }
    }
}
