//! The contract of `banger-guest-init` where it is not the first program of a guest: it refuses, and
//! does nothing. What it does in a guest is shown by the boots in `tests/flows`.

use banger_tests::Sandbox;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-guest-init");

#[test]
fn it_does_nothing_outside_a_guest() {
    let sandbox = Sandbox::new();
    let answer = sandbox.raw(PROGRAM, &[]);
    assert_eq!(answer.status, 5);
    assert!(answer.stderr.contains("first one in a banger guest"), "{}", answer.stderr);
    let answer = sandbox.raw(PROGRAM, &["--version"]);
    assert_eq!(answer.status, 0);
    assert!(!sandbox.state().exists());
}

#[test]
fn as_modprobe_it_names_what_is_missing() {
    let sandbox = Sandbox::new();
    let modprobe = sandbox.dir().join("modprobe");
    std::os::unix::fs::symlink(PROGRAM, &modprobe).unwrap();
    let answer = sandbox.raw(&modprobe, &["banger-no-such-module"]);
    assert_eq!(answer.status, 1);
    assert!(answer.stderr.contains("no module 'banger-no-such-module'"), "{}", answer.stderr);
    let answer = sandbox.raw(&modprobe, &["-q", "--", "banger-no-such-module"]);
    assert_eq!(answer.status, 1);
    assert!(answer.stderr.is_empty());
}
