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
fn what_cannot_be_written_is_a_failure() {
    let sandbox = installed(&["banger-vm-list"]);
    for words in ["", "help", "help all", "--help", "--version", "--completion-words"] {
        let line = format!("$BANGER {words} >/dev/full");
        let answer = sandbox.raw_with("/bin/sh", &["-c", &line], |command| {
            command.env("BANGER", sandbox.dir().join("bin/banger"));
        });
        answer.fails(1, "cannot write to stdout");
    }
}

/// What people type who know other tools, and the program that runs with which words.
const TYPED: &[(&[&str], &str)] = &[
    (&["run", "-d", "./repo"], "vm-run 2 -d ./repo"),
    (&["exec", "-it", "web", "sh"], "vm-exec 3 -it web sh"),
    (&["ssh", "web"], "vm-ssh 1 web"),
    (&["shell", "web"], "vm-ssh 1 web"),
    (&["ls"], "vm-list 0 "),
    (&["ps", "-a"], "vm-list 1 -a"),
    (&["list", "--json"], "vm-list 1 --json"),
    (&["rm", "-f", "web"], "vm-delete 2 -f web"),
    (&["stop", "web"], "vm-stop 1 web"),
    (&["start", "web"], "vm-start 1 web"),
    (&["logs", "-f", "web"], "vm-logs 2 -f web"),
    (&["cp", "a", "web:"], "vm-cp 2 a web:"),
    (&["pull", "alpine"], "image-pull 1 alpine"),
    (&["images"], "image-list 0 "),
    (&["rmi", "alpine"], "image-delete 1 alpine"),
    (&["top"], "vm-stats 0 "),
    (&["info"], "doctor 0 "),
    (&["info", "--json"], "doctor 1 --json"),
    (&["info", "-q", "--format", "json"], "doctor 3 -q --format json"),
    (&["info", "--format=table"], "doctor 1 --format=table"),
    (&["info", "web"], "vm-show 1 web"),
    (&["info", "--json", "web"], "vm-show 2 --json web"),
    (&["info", "--format", "json", "web"], "vm-show 3 --format json web"),
    (&["inspect", "web"], "vm-show 1 web"),
    (&["vm", "ls"], "vm-list 0 "),
    (&["vm", "ps"], "vm-list 0 "),
    (&["vm", "rm", "web"], "vm-delete 1 web"),
    (&["vm", "top"], "vm-stats 0 "),
    (&["vm", "shell", "web"], "vm-ssh 1 web"),
    (&["vm", "info", "web"], "vm-show 1 web"),
    (&["image", "ls"], "image-list 0 "),
    (&["image", "rm", "alpine"], "image-delete 1 alpine"),
    (&["help", "run"], "vm-run 1 --help"),
    (&["help", "vm", "ls"], "vm-list 1 --help"),
];

/// The programs that they and the hints below name.
const ALL: &[&str] = &[
    "banger-doctor",
    "banger-gc",
    "banger-image-delete",
    "banger-image-list",
    "banger-image-pull",
    "banger-image-show",
    "banger-schema",
    "banger-ssh-config",
    "banger-vm-cp",
    "banger-vm-create",
    "banger-vm-delete",
    "banger-vm-exec",
    "banger-vm-list",
    "banger-vm-logs",
    "banger-vm-resume",
    "banger-vm-run",
    "banger-vm-show",
    "banger-vm-ssh",
    "banger-vm-start",
    "banger-vm-stats",
    "banger-vm-stop",
    "banger-vm-wait",
    "banger-workspace-status",
];

#[test]
fn words_of_other_tools_are_spellings() {
    let sandbox = installed(ALL);
    for (typed, ran) in TYPED {
        let want = format!("beside banger-{}\n", ran.trim_end());
        let said = banger(&sandbox, typed).ok().text();
        assert_eq!(said.replace(" \n", "\n"), want, "{typed:?}");
    }
    // A program of the name that was typed comes first, whosever it is.
    script(&sandbox.dir().join("bin"), "banger-top", "echo own");
    assert_eq!(banger(&sandbox, &["top"]).ok().text(), "own\n");
}

#[test]
fn a_slip_and_a_foreign_word_are_answered_with_what_to_type() {
    let sandbox = installed(ALL);
    for (typed, hint) in [
        (&["vm", "strat"][..], "did you mean 'banger vm start'?"),
        (&["vm", "stpo"], "did you mean 'banger vm stop'?"),
        (&["vm", "statsu"], "did you mean 'banger vm stats'?"),
        (&["vm", "lsit"], "did you mean 'banger vm list'?"),
        (&["vm", "shel"], "did you mean 'banger vm ssh'?"),
        (&["shel"], "did you mean 'banger vm ssh'?"),
        (&["rnu"], "did you mean 'banger vm run'?"),
        (&["exce", "web"], "did you mean 'banger vm exec'?"),
        (&["imges"], "did you mean 'banger image list'?"),
        (&["docter"], "did you mean 'banger doctor'?"),
        (&["vm", "create-"], "did you mean 'banger vm create'?"),
        (&["status"], "'banger vm show VM' tells how a VM stands"),
        (&["vm", "status", "web"], "'banger vm show VM' tells how a VM stands"),
        (&["launch"], "'banger vm run -d --name NAME'"),
        (&["up"], "'banger vm run PATH'"),
        (&["build", "."], "docker save IMAGE | banger image pull docker-archive:-"),
        (&["login"], "'docker login REGISTRY'"),
        (&["vm", "attach", "web"], "'banger vm ssh VM'"),
        (&["vm", "console", "web"], "'banger vm logs -f VM'"),
        (&["vm", "snapshot", "web"], "there are no snapshots"),
        (&["vm", "commit", "web"], "'banger workspace export VM'"),
        (&["vm", "rename", "a", "b"], "a VM keeps its name"),
        (&["config"], "config.toml"),
        (&["completion"], "'cargo xtask install'"),
        (&["upgrade"], "install a newer banger"),
        (&["vm", "zzzzzz"], "'banger help vm' lists the commands"),
        (&["to"], "'banger help' lists the commands"),
    ] {
        let answer = banger(&sandbox, typed);
        answer.fails(2, "no command '");
        let said = answer.stderr.lines().last().unwrap_or_default();
        assert!(said.starts_with("hint: ") && said.contains(hint), "{typed:?}: {said}");
    }
    // Only the word that is no command is named.
    banger(&sandbox, &["rename", "a", "b"]).fails(2, "no command 'rename'\n");
    banger(&sandbox, &["vm", "rename", "a", "b"]).fails(2, "no command 'vm rename'\n");
    // What is near is not enough if it is something else.
    for typed in [&["vm", "top"][..], &["vm", "ps"], &["ps"]] {
        banger(&sandbox, typed).ok();
    }
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
    assert!(run(&["help", "all"]).ok().text().contains("\n  foo\n"));
    assert!(run(&[]).ok().text().contains("\n  yours   foo\n"), "{}", run(&[]).all());
    for letter in 'a'..='z' {
        script(&other, &format!("banger-{letter}-more-than-fits"), "exit 0");
    }
    let text = run(&[]).ok().text();
    assert!(text.contains("  yours   a-more-than-fits, ") && text.contains(" ...\n"), "{text}");
    assert!(text.lines().all(|line| line.len() < 80), "{text}");
}

#[test]
fn a_repository_adds_no_commands() {
    let sandbox = installed(&["banger-vm-list"]);
    let bin = sandbox.dir().join("node_modules/.bin");
    fs::create_dir_all(&bin).expect("a folder");
    script(&bin, "banger-foo", "touch ../ran ran; echo foo");
    let run = |words: &[&str]| {
        sandbox.raw_with(sandbox.dir().join("bin/banger"), words, |command| {
            command.env("PATH", format!("node_modules/.bin:./node_modules/.bin:{SYSTEM_PATH}"));
            command.current_dir(sandbox.dir());
        })
    };
    run(&["foo"]).fails(2, "no command 'foo'");
    assert!(!run(&["help", "all"]).ok().text().contains("foo"));
    assert!(!run(&[]).ok().text().contains("foo"));
    assert!(!sandbox.dir().join("ran").exists());
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
    for words in [&["help", "all"], &["help", "--all"]] {
        let text = said(words);
        assert!(text.contains("usage: banger COMMAND"), "{text}");
        assert!(text.contains("  vm-create  beside banger-vm-create 1 --help"), "{text}");
        assert!(!text.contains("guest-init"), "{text}");
    }
}

/// Returns the name of every program there is.
fn every_program() -> Vec<String> {
    let bins = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let names = fs::read_dir(bins).expect("programs").flatten().map(|entry| entry.file_name());
    names.map(|name| name.into_string().expect("text")).filter(|name| name != "banger").collect()
}

#[test]
fn the_first_page_fits_a_screen_and_is_grouped_by_what_people_do() {
    let every = every_program();
    let every: Vec<&str> = every.iter().map(String::as_str).collect();
    let sandbox = installed(&every);
    for words in [&[][..], &["help"], &["--help"], &["-h"]] {
        let text = banger(&sandbox, words).ok().text();
        // What was typed and the next prompt take a line each of 24.
        assert!(text.lines().count() <= 22, "{text}");
        assert!(text.lines().all(|line| line.len() < 80), "{text}");
        for group in ["start", "look", "work", "end", "images", "host"] {
            assert!(text.contains(&format!("\n  {group} ")), "{group}: {text}");
        }
        for often in ["vm run", "vm exec", "vm ssh", "vm cp", "vm list", "vm stop", "image pull"] {
            assert!(text.contains(&format!(" {often}")), "{often}: {text}");
        }
        for hardly in ["supervise", "ssh-proxy", "schema", "dns", "guest-init", "yours"] {
            assert!(!text.contains(hardly), "{hardly}: {text}");
        }
        assert!(text.contains("'banger help all' lists all"), "{text}");
    }
    // Groups fit too, and nothing is kept from who asks for all.
    for group in ["vm", "image", "kernel", "workspace"] {
        let text = banger(&sandbox, &[group]).ok().text();
        assert!(text.lines().count() <= 22 && !text.contains("supervise"), "{text}");
    }
    let text = banger(&sandbox, &["help", "all"]).ok().text();
    let (people, programs) = text.split_once("\nfor programs:\n").expect("two parts");
    for hardly in ["vm supervise", "ssh-proxy", "schema", "dns"] {
        assert!(programs.contains(&format!("  {hardly} ")), "{hardly}: {text}");
        assert!(!people.contains(&format!("  {hardly} ")), "{hardly}: {text}");
    }
}

#[test]
fn a_line_without_its_program_is_left_out() {
    let sandbox = installed(&["banger-vm-run", "banger-vm-list", "banger-vm-show"]);
    let text = banger(&sandbox, &[]).ok().text();
    assert!(text.contains("  start   vm run [PATH] ") && text.contains("  look    vm list "));
    assert!(!text.contains("workspace") && !text.contains("vm ssh"), "{text}");
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
    banger(&sandbox, &["qqqqqqqqqqqqqqqqqq"]).fails(2, "'banger help' lists the commands");
    banger(&sandbox, &["help", "nothing"]).fails(2, "no command 'nothing'");
    banger(&sandbox, &["--nothing"]).fails(2, "no command '--nothing'");
    // Only words name programs, never a path.
    banger(&sandbox, &["../bin/banger-vm-list"]).fails(2, "no command");
    banger(&sandbox, &["vm/list"]).fails(2, "no command");
    banger(&sandbox, &[""]).fails(2, "no command ''");
}
