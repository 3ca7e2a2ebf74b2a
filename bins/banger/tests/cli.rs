//! The contract of `banger`.

mod installed;

use banger_tests::SYSTEM_PATH;
use installed::{banger, installed, script};
use std::fs;

#[test]
fn the_longest_run_of_words_names_the_program() {
    let sandbox = installed(&["banger-vm", "banger-vm-list", "banger-image-pull"]);
    let said = |words: &[&str]| banger(&sandbox, words).ok().text();
    assert_eq!(said(&["vm", "list", "--json"]), "beside banger-vm-list 1 --json\n");
    assert_eq!(said(&["vm", "other"]), "beside banger-vm 1 other\n");
    assert_eq!(said(&["vm", "--", "list"]), "beside banger-vm 2 -- list\n");
    assert_eq!(said(&["image", "pull", "a b", ""]), "beside banger-image-pull 2 a b \n");
    assert_eq!(said(&["vm-list"]), "beside banger-vm-list 0\n");
}

#[test]
fn two_spellings_are_known() {
    let sandbox = installed(&["banger-vm-list", "banger-workspace-prepare"]);
    let said = |words: &[&str]| banger(&sandbox, words).ok().text();
    assert_eq!(said(&["ps", "-q"]), "beside banger-vm-list 1 -q\n");
    assert_eq!(
        said(&["vm", "workspace", "prepare", "web"]),
        "beside banger-workspace-prepare 1 web\n"
    );
}

#[test]
fn beside_comes_before_the_path_and_others_can_add_commands() {
    let sandbox = installed(&["banger-vm-list"]);
    let other = sandbox.dir().join("other");
    fs::create_dir(&other).expect("a folder");
    script(&other, "banger-vm-list", "echo path");
    script(&other, "banger-foo", "echo foo \"$0\" \"$@\"");
    let run = |words: &[&str]| {
        sandbox.raw_with(sandbox.dir().join("bin/banger"), words, |command| {
            command.env("PATH", format!("{}:{SYSTEM_PATH}", other.display()));
        })
    };
    assert_eq!(run(&["vm", "list"]).ok().text(), "beside banger-vm-list 0\n");
    assert!(run(&["foo", "bar"]).ok().text().ends_with("banger-foo bar\n"));
    assert!(run(&["help"]).ok().text().contains("\n  foo\n"), "{}", run(&["help"]).all());
}

#[test]
fn status_and_signals_pass_through() {
    let sandbox = installed(&[]);
    let bin = sandbox.dir().join("bin");
    script(&bin, "banger-seven", "exit 7");
    script(&bin, "banger-killed", "kill -9 $$");
    assert_eq!(banger(&sandbox, &["seven"]).status, 7);
    assert_eq!(banger(&sandbox, &["killed"]).status, 137);
}

#[test]
fn help_and_version_are_answers() {
    let sandbox = installed(&["banger-vm-create", "banger-guest-init"]);
    let said = |words: &[&str]| banger(&sandbox, words).ok().text();
    assert_eq!(said(&["help", "vm", "create"]), "beside banger-vm-create 1 --help\n");
    assert!(said(&["--version"]).starts_with("banger "));
    for words in [&[][..], &["help"], &["--help"]] {
        let text = said(words);
        assert!(text.contains("usage: banger COMMAND"), "{text}");
        assert!(text.contains("  vm-create  beside banger-vm-create 1 --help"), "{text}");
        assert!(!text.contains("guest-init"), "{text}");
    }
}

#[test]
fn words_that_several_programs_share_are_a_group() {
    let sandbox = installed(&["banger-vm-a", "banger-vm-b", "banger-vm-c-d", "banger-ssh-config"]);
    let list = banger(&sandbox, &["--completion-words"]).ok().text();
    assert_eq!(list, "ssh-config\nvm a\nvm b\nvm c-d\n");
    // Named alone it lists its commands.
    for words in [&["vm"][..], &["help", "vm"], &["vm", "--help"]] {
        let text = banger(&sandbox, words).ok().text();
        assert!(text.contains("usage: banger vm COMMAND"), "{text}");
        assert!(text.ends_with("  vm c-d  beside banger-vm-c-d 1 --help\n"), "{text}");
        assert!(!text.contains("ssh-config"), "{text}");
    }
    banger(&sandbox, &["vm", "nothing-like-it"]).fails(2, "'banger help vm' lists the commands");
}

#[test]
fn an_unknown_command_is_a_usage_error_with_the_nearest_name() {
    let sandbox = installed(&["banger-vm-list", "banger-vm-stop", "banger-vm-run"]);
    let answer = banger(&sandbox, &["vm", "lst"]);
    answer.fails(2, "no command 'vm lst'");
    answer.fails(2, "did you mean 'banger vm list'?");
    assert!(answer.stdout.is_empty(), "{}", answer.all());
    // Other tools' words, and a group's words without the group.
    for (words, meant) in [
        (&["vm", "ls"][..], "vm list"),
        (&["ls"], "vm list"),
        (&["stop", "web"], "vm stop"),
        (&["run"], "vm run"),
    ] {
        banger(&sandbox, words).fails(2, &format!("did you mean 'banger {meant}'?"));
    }
    banger(&sandbox, &["qqqqqqqqqqqqqqqqqq"]).fails(2, "'banger help' lists the commands");
    banger(&sandbox, &["help", "nothing"]).fails(2, "no command 'nothing'");
    banger(&sandbox, &["--nothing"]).fails(2, "no command '--nothing'");
    // Only words name programs, never a path.
    banger(&sandbox, &["../bin/banger-vm-list"]).fails(2, "no command");
    banger(&sandbox, &["vm/list"]).fails(2, "no command");
    banger(&sandbox, &[""]).fails(2, "no command ''");
}
