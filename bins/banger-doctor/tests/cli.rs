//! The contract of `banger-doctor`.

use banger_tests::{Answer, Sandbox, write_program};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt};

const DOCTOR: &str = env!("CARGO_BIN_EXE_banger-doctor");

fn check<'a>(answer: &'a Answer, name: &str) -> &'a Value {
    answer
        .documents
        .iter()
        .find(|document| document["name"] == name)
        .unwrap_or_else(|| panic!("no check '{name}' in {answer:?}"))
}

#[test]
fn an_empty_host_is_looked_at_and_nothing_is_made() {
    let sandbox = Sandbox::new();
    let answer = sandbox.run(DOCTOR, &[]);
    assert!(answer.documents.iter().all(|document| document["schema"] == "banger.check/1"));
    assert_eq!(check(&answer, "state")["outcome"], "pass");
    assert_eq!(check(&answer, "config")["outcome"], "pass");
    assert!(!sandbox.state().exists(), "doctor reads only");
    let failed = answer.documents.iter().any(|document| document["outcome"] == "fail");
    assert_eq!(answer.status, if failed { 5 } else { 0 });
    for document in &answer.documents {
        let is_bad = matches!(document["outcome"].as_str(), Some("warn" | "fail"));
        assert_eq!(is_bad, document.get("remedy").is_some(), "{document}");
        assert!(!document["remedy"].as_str().unwrap_or_default().contains("docs/"), "{document}");
    }
}

#[test]
fn a_host_without_tools_fails_with_the_command_to_type() {
    let sandbox = Sandbox::new();
    let answer = sandbox.with(DOCTOR, &[], |command| {
        command.env("PATH", "/nonexistent");
    });
    assert_eq!(answer.status, 5);
    for name in ["mmdebstrap", "apt"] {
        let check = check(&answer, name);
        assert_eq!(check["outcome"], "warn", "{check}");
        assert!(check["message"].as_str().unwrap().contains("not installed"), "{check}");
    }
    let qemu = check(&answer, "qemu");
    assert_eq!(qemu["outcome"], "fail");
    assert!(qemu["remedy"].as_str().unwrap().contains("install"), "{qemu}");
}

#[test]
fn a_person_sees_checks_then_settings_then_the_verdict() {
    let sandbox = Sandbox::new();
    sandbox.config("default_image = \"alpine\"\n");
    let seen = |columns| sandbox.terminal(DOCTOR, columns, |_| {}).text().replace('\r', "");
    for columns in [50, 80, 200] {
        let text = seen(columns);
        // A path is one word.
        let mut lines = text.lines().filter(|line| line.trim().contains(' '));
        assert!(lines.all(|line| line.chars().count() <= columns.into()), "{text}");
    }
    let text = seen(200);
    let (checks, rest) = text.split_once("\nsettings:\n").expect("settings apart");
    let (settings, verdict) = rest.split_once("\n\n").expect("a verdict");
    assert!(checks.contains("PASS  config: ") && !checks.contains("default-image"), "{text}");
    assert!(settings.lines().all(|line| line.starts_with("      ")), "{text}");
    assert!(settings.contains("      default-image       alpine (config)"), "{text}");
    assert!(verdict.starts_with("VMs ") && verdict.lines().count() == 1, "{text}");
    let warned = checks.contains("WARN  ") || checks.contains("FAIL  ");
    assert_eq!(!verdict.contains("nothing is missing"), warned, "{text}");

    let lacking = sandbox.terminal(DOCTOR, 200, |command| {
        command.env("PATH", "/nonexistent");
    });
    let verdict = lacking.text().trim_end().lines().last().expect("a line").to_owned();
    assert!(verdict.starts_with("VMs do not run here yet; "), "{verdict}");
    assert!(verdict.contains("failure") && verdict.contains("qemu"), "{verdict}");
    // With the choice of documents, what is at the end is a document too.
    for words in [&["--json"][..], &["--format=json", "-q"]] {
        assert!(sandbox.run(DOCTOR, words).documents.len() > 20);
    }
}

#[test]
fn what_an_ordinary_user_makes_the_default_image_with_is_looked_at() {
    let sandbox = Sandbox::new();
    let names = |answer: &Answer| -> Vec<String> {
        let all = answer.documents.iter().map(|check| check["name"].as_str().unwrap().to_owned());
        all.filter(|name| ["mmdebstrap", "apt", "uidmap", "subuid"].contains(&&**name)).collect()
    };
    if !nix::unistd::geteuid().is_root() {
        assert_eq!(names(&sandbox.run(DOCTOR, &[])), ["mmdebstrap", "apt", "uidmap", "subuid"]);
        return;
    }
    // Root needs no numbers of others, and who chose another image none of it.
    assert_eq!(names(&sandbox.run(DOCTOR, &[])), ["mmdebstrap", "apt"]);
    sandbox.config("default_image = \"alpine\"\n");
    assert!(names(&sandbox.run(DOCTOR, &[])).is_empty());

    let place = tempfile::tempdir().expect("a folder");
    let own = place.path().join("banger-doctor");
    banger_tests::copy_program(DOCTOR, &own);
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let words = ["--reuid=65534", "--regid=65534", "--clear-groups", own.to_str().unwrap()];
    let answer = sandbox.with("/usr/bin/setpriv", &words, |command| {
        command.env("PATH", "/usr/sbin:/bin").env("HOME", "/nonexistent");
        command.env("BANGER_STATE", "/nonexistent").current_dir("/");
    });
    assert_eq!(names(&answer), ["mmdebstrap", "apt", "uidmap", "subuid"]);
    let subuid = check(&answer, "subuid");
    assert_eq!(subuid["outcome"], "warn", "{subuid}");
    assert!(subuid["remedy"].as_str().unwrap().starts_with("sudo usermod --add-subuids "));
    assert!(subuid["remedy"].as_str().unwrap().ends_with(" nobody"), "{subuid}");
}

#[test]
fn a_program_that_is_too_old_is_no_program() {
    let sandbox = Sandbox::new();
    let program = sandbox.dir().join("qemu");
    sandbox.config(&format!("[binaries]\nqemu = '{}'\n", program.display()));
    for (version, outcome) in [("4.2.1", "fail"), ("5.2.0 (Debian)", "pass"), ("10.1", "pass")] {
        let script = format!("#!/bin/sh\necho QEMU emulator version '{version}'\n");
        write_program(&program, &script);
        let answer = sandbox.run(DOCTOR, &[]);
        let qemu = check(&answer, "qemu");
        assert_eq!(qemu["outcome"], outcome, "{qemu}");
        let message = qemu["message"].as_str().unwrap();
        assert_eq!(message.contains("older than 5.2"), outcome == "fail", "{message}");
    }
}

#[test]
fn what_does_not_work_in_a_version_of_firecracker_is_told() {
    let sandbox = Sandbox::new();
    let program = sandbox.dir().join("firecracker");
    sandbox
        .config(&format!("[binaries]\nfirecracker = '{0}'\njailer = '{0}'\n", program.display()));
    let told = |version: &str| -> Vec<String> {
        write_program(&program, &format!("#!/bin/sh\necho Firecracker v{version}\n"));
        let answer = sandbox.run(DOCTOR, &[]);
        let mine = answer.documents.iter().filter(|document| document["name"] == "firecracker");
        mine.filter(|document| document["outcome"] == "warn")
            .map(|document| format!("{}; {}", document["message"], document["remedy"]))
            .collect()
    };
    assert!(told("1.15.1").is_empty(), "{:?}", told("1.15.1"));
    for version in ["1.16.0", "1.16.1"] {
        let words = told(version);
        assert!(matches!(&words[..], [one] if one.contains(version)), "{words:?}");
        assert!(words[0].contains("'banger vm pause' is refused"), "{words:?}");
        assert!(words[0].contains("1.15.1"), "{words:?}");
    }
    let words = told("1.12.1").join("\n");
    assert!(words.contains("banger sends less at once") && words.contains("1.14.4"), "{words}");
    assert!(told("1.7.9")[0].contains("too old"));
}

#[test]
fn values_are_shown_with_their_origin() {
    let sandbox = Sandbox::new();
    sandbox.config("default_image = \"alpine\"\n[vm_defaults]\nmemory = \"2G\"\n");
    let answer = sandbox.run(DOCTOR, &[]);
    assert_eq!(check(&answer, "default-image")["message"], "alpine (config)");
    assert_eq!(check(&answer, "memory")["message"], "2048 MiB (config)");
    assert_eq!(check(&answer, "disk")["message"], "8G (built in)");
    assert_eq!(check(&answer, "insecure-registries")["message"], "none (built in)");
    sandbox.config(
        "insecure_registries = ['lan:5000']\nrun_as = 'nobody'\n\
         [binaries]\nssh = '/bin/sh'\nqemu = '/no/where'\n",
    );
    let answer = sandbox.run(DOCTOR, &[]);
    assert_eq!(check(&answer, "insecure-registries")["message"], "lan:5000 (config)");
    assert_eq!(check(&answer, "run-as")["message"], "nobody (config)");
    assert_eq!(check(&answer, "binaries.ssh")["message"], "/bin/sh (config)");
    assert_eq!(check(&answer, "binaries.qemu")["outcome"], "fail");
}

#[test]
fn an_unknown_key_fails_with_the_nearest() {
    let sandbox = Sandbox::new();
    sandbox.config("defualt_image = \"alpine\"\n");
    let answer = sandbox.run(DOCTOR, &[]);
    assert_eq!(answer.status, 5);
    let config = check(&answer, "config");
    assert!(config["message"].as_str().unwrap().contains("defualt_image"));
    assert!(config["remedy"].as_str().unwrap().contains("default_image"));
}

#[test]
fn a_broken_state_fails_and_is_named() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    assert_eq!(check(&sandbox.run(DOCTOR, &[]), "state")["outcome"], "pass");
    fs::write(sandbox.state().join("images/alpine/image.json"), "{").unwrap();
    let answer = sandbox.run(DOCTOR, &[]);
    assert_eq!(answer.status, 5);
    assert!(check(&answer, "state")["message"].as_str().unwrap().contains("alpine"));
}

#[test]
fn what_vms_are_made_of_and_is_not_there_is_said_once() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    for number in 0..7 {
        sandbox.plant_vm(&format!("vm-{number}"), "alpine", "gone");
    }
    let answer = sandbox.run(DOCTOR, &[]);
    assert_eq!(answer.status, 5);
    let states: Vec<&Value> =
        answer.documents.iter().filter(|document| document["name"] == "state").collect();
    assert_eq!(states.len(), 1, "{}", answer.all());
    let message = states[0]["message"].as_str().unwrap();
    assert!(message.contains("kernel 'gone'") && message.ends_with("'vm-4', 2 more"), "{message}");
}

#[test]
fn a_newer_layout_fails() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.state()).unwrap();
    fs::write(sandbox.state().join("layout"), "99\n").unwrap();
    let state = sandbox.run(DOCTOR, &[]);
    assert!(check(&state, "state")["message"].as_str().unwrap().contains("layout 99"));
}

#[test]
fn litter_is_a_warning() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    fs::create_dir(sandbox.state().join("images/.new-x-1")).unwrap();
    let answer = sandbox.run(DOCTOR, &[]);
    assert_eq!(check(&answer, "litter")["remedy"], "banger gc");
}

#[test]
fn a_wrong_option_is_a_usage_error() {
    Sandbox::new().run(DOCTOR, &["--fix"]).fails(2, "--fix");
}
