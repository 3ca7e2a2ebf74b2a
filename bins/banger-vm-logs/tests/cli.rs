//! The contract of `banger-vm-logs`.

use banger_tests::Sandbox;
use std::fs;

const LOGS: &str = env!("CARGO_BIN_EXE_banger-vm-logs");

#[test]
fn the_log_comes_as_it_is() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let bytes = b"one\r\n\x1b[1mtwo\xff\0".as_slice();
    fs::write(sandbox.vm("web").join("console.log"), bytes).unwrap();
    fs::write(sandbox.vm("web").join("console.log.1"), "before").unwrap();
    assert_eq!(sandbox.raw(LOGS, &["web"]).ok().stdout, bytes);
    assert_eq!(sandbox.raw(LOGS, &["web", "--boot", "1"]).ok().stdout, b"before");
    for words in [["--tail", "1", "web"], ["-n", "1", "web"], ["--tail=1", "-f", "web"]] {
        assert_eq!(sandbox.raw(LOGS, &words).ok().stdout, b"\x1b[1mtwo\xff\0");
    }
    assert_eq!(sandbox.raw(LOGS, &["--tail", "all", "web"]).ok().stdout, bytes);
    sandbox.raw(LOGS, &["--tail", "some", "web"]).fails(2, "neither a number nor 'all'");
    // Nobody runs it, so there is nothing to wait for.
    assert_eq!(sandbox.raw(LOGS, &["-f", "web"]).ok().stdout, bytes);
}

#[test]
fn what_acts_on_a_terminal_is_visible_there_unless_it_is_wanted_raw() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let bytes =
        "\u{1b}[0;32mOK\u{1b}[0m \u{1b}]52;c;cm0gLXJm\u{7}\u{1b}[2Jx\ry\u{202e}\u{200b} é世\r\n";
    fs::write(sandbox.vm("web").join("console.log"), bytes).unwrap();
    let on_terminal = |words: &[&str]| {
        let line = format!("'{LOGS}' {}", words.join(" "));
        sandbox.terminal(&line, 100, |_| {}).ok().text()
    };
    let seen = on_terminal(&["web"]);
    let wanted = "OK \\u{1b}]52;c;cm0gLXJm\\u{7}\\u{1b}[2Jx\\ry\\u{202e}\\u{200b} é世";
    assert_eq!(seen.trim_end(), wanted);
    assert_eq!(on_terminal(&["web", "-f"]).trim_end(), wanted);
    for words in [&["--raw", "web"][..], &["web", "--raw", "--follow"]] {
        assert_eq!(on_terminal(words).trim_end(), bytes.trim_end());
    }
    assert_eq!(sandbox.raw(LOGS, &["web"]).ok().stdout, bytes.as_bytes());
    assert_eq!(sandbox.raw(LOGS, &["web", "--raw"]).ok().stdout, bytes.as_bytes());
}

#[test]
fn an_empty_console_is_said_to_be_so() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    fs::write(sandbox.vm("web").join("console.log"), "").unwrap();
    let answer = sandbox.raw(LOGS, &["web"]);
    assert!(answer.ok().stdout.is_empty());
    assert!(answer.stderr.contains("written nothing to its console"), "{}", answer.all());
    assert!(answer.stderr.contains("'banger vm restart --console web'"), "{}", answer.all());
    assert_eq!(sandbox.raw(LOGS, &["-q", "web"]).ok().stderr, "");
    // No line was wanted of one that has some.
    fs::write(sandbox.vm("web").join("console.log"), "one\n").unwrap();
    assert_eq!(sandbox.raw(LOGS, &["-n", "0", "web"]).ok().stderr, "");
}

#[test]
fn own_failures_end_with_125() {
    let sandbox = Sandbox::new();
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    let answer = sandbox.raw(LOGS, &["web"]);
    answer.fails(125, "has no log of that boot");
    assert!(answer.stdout.is_empty());
    sandbox.raw(LOGS, &["nobody"]).fails(125, "no VM 'nobody'");
    let unnamed = sandbox.raw(LOGS, &[]);
    unnamed.fails(2, "VM is missing");
    assert!(unnamed.stderr.contains("'banger vm list' shows what is there"), "{}", unnamed.all());
    sandbox.raw(LOGS, &["web", "--boot", "2"]).fails(2, "--boot");
    sandbox.raw(LOGS, &["web", "-f", "--boot", "1"]).fails(2, "only the last boot");
}
