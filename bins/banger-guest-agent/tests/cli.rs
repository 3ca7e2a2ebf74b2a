//! The contract of `banger-guest-agent` outside a guest. What it serves is shown by the tests of
//! `banger-vm-exec`, which run it over a socket, and by the boots in `tests/flows`.

use banger_tests::Sandbox;

const AGENT: &str = env!("CARGO_BIN_EXE_banger-guest-agent");

#[test]
fn an_option_it_does_not_know_is_named() {
    let answer = Sandbox::new().raw(AGENT, &["--port", "1"]);
    assert_eq!(answer.status, 1);
    assert!(answer.stderr.contains("'--port' is none of --device PATH"), "{}", answer.stderr);
}

#[test]
fn an_option_without_its_value_is_refused() {
    let answer = Sandbox::new().raw(AGENT, &["--device"]);
    assert_eq!(answer.status, 1);
    assert!(answer.stderr.contains("--device"), "{}", answer.stderr);
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let sandbox = Sandbox::new();
    let missing = sandbox.dir().join("nothing");
    let answer = sandbox.raw(AGENT, &["--device", missing.to_str().unwrap()]);
    assert_eq!(answer.status, 1);
    assert!(answer.stderr.contains("cannot open"), "{}", answer.stderr);
    assert!(!sandbox.state().exists());
}
