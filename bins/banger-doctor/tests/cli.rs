//! The contract of `banger-doctor`.

use banger_tests::{Answer, Sandbox, write_program};
use serde_json::Value;
use std::fs;

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
        assert_eq!(document["outcome"] != "pass", document.get("remedy").is_some(), "{document}");
    }
}

#[test]
fn a_host_without_tools_fails_with_the_command_to_type() {
    let sandbox = Sandbox::new();
    let answer = sandbox.with(DOCTOR, &[], |command| {
        command.env("PATH", "/nonexistent");
    });
    assert_eq!(answer.status, 5);
    let qemu = check(&answer, "qemu");
    assert_eq!(qemu["outcome"], "fail");
    assert!(qemu["remedy"].as_str().unwrap().contains("install"), "{qemu}");
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
