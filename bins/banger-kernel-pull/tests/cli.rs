//! The contract of `banger-kernel-pull`. The package client is played by scripts here; the real one is
//! asked once, where it knows the package.

use banger_tests::{SYSTEM_PATH, Sandbox, write_program};
use std::{fs, path::Path, time::Duration};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-kernel-pull");
const NAME: &str = "generic-6.12";

fn script(dir: &Path, name: &str, text: &str) {
    write_program(&dir.join(name), &format!("#!/bin/sh\n{text}\n"));
}

/// Runs the program with scripts of the test before the system's programs.
fn pull(sandbox: &Sandbox, dir: &Path, args: &[&str]) -> banger_tests::Answer {
    let path = format!("{}:{SYSTEM_PATH}", dir.display());
    sandbox.with(PROGRAM, args, |command| {
        command.env("PATH", path);
    })
}

#[test]
fn a_kernel_that_is_here_is_left_as_it_is() {
    let sandbox = Sandbox::new();
    let kernel = sandbox.plant_kernel(NAME);
    assert_eq!(sandbox.run(PROGRAM, &[NAME]).ok().documents, std::slice::from_ref(&kernel));
    assert_eq!(sandbox.run(PROGRAM, &[]).ok().documents, [kernel]);
    let own = sandbox.plant_kernel("mine");
    assert_eq!(sandbox.run(PROGRAM, &["mine"]).ok().documents, [own]);
}

#[test]
fn what_the_catalog_lacks_is_not_found() {
    let sandbox = Sandbox::new();
    sandbox.run(PROGRAM, &["plan9"]).fails(3, "no kernel 'plan9' in the catalog");
    sandbox.run(PROGRAM, &["a/b"]).fails(2, "is not a name");
}

#[test]
fn a_host_without_the_client_is_told_what_else_there_is() {
    let sandbox = Sandbox::new();
    let answer = sandbox.with(PROGRAM, &[], |command| {
        command.env("PATH", "/nowhere");
    });
    answer.fails(5, "this host has no 'apt-cache'");
    assert!(answer.stderr.contains("banger kernel import"), "{}", answer.stderr);
}

#[test]
fn lists_without_the_package_are_fetched_afresh() {
    let sandbox = Sandbox::new();
    // The sources have none either.
    script(&sandbox.dir(), "apt-cache", "exit 0");
    script(&sandbox.dir(), "apt-get", "exit 0");
    let answer = pull(&sandbox, &sandbox.dir(), &[]);
    answer.fails(3, "apt knows no package");
    assert!(answer.stderr.contains("fetching a fresh list"), "{}", answer.stderr);
    assert!(answer.stderr.contains("banger kernel import"), "{}", answer.stderr);
    // They cannot be reached.
    script(&sandbox.dir(), "apt-get", "echo 'E: no route' >&2; exit 100");
    let answer = pull(&sandbox, &sandbox.dir(), &[]);
    answer.fails(1, "cannot fetch a list of packages");
    assert!(answer.stderr.contains("hint: look at the network"), "{}", answer.stderr);
}

#[test]
fn a_failed_download_says_what_the_client_said() {
    let sandbox = Sandbox::new();
    let list = "echo 'linux-image-6.12.1+deb12-cloud-amd64 - x'; \
        echo 'linux-image-6.12.1+deb12-cloud-arm64 - x'";
    script(&sandbox.dir(), "apt-cache", list);
    script(&sandbox.dir(), "apt-get", "echo 'E: no route' >&2; exit 100");
    pull(&sandbox, &sandbox.dir(), &[]).fails(1, "E: no route");
    assert!(!sandbox.state().join("kernels").join(NAME).exists());
}

/// The real client, on a host whose lists of packages are empty.
#[test]
fn the_real_package_is_pulled_once_by_two_at_a_time() {
    let import = Path::new(PROGRAM).with_file_name("banger-kernel-import");
    if !Path::new("/usr/bin/apt-get").exists() || !import.exists() {
        assert!(std::env::var_os("CI").is_none(), "no apt, or the import is not built");
        println!("skipped: this host has no apt, or the import is not built");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(8));
    let (config, empty) = (sandbox.dir().join("apt.conf"), sandbox.dir().join("no-lists"));
    fs::create_dir(&empty).expect("a folder");
    fs::write(&config, format!("Dir::State \"{}\";\n", empty.display())).expect("a file");
    let run = || {
        sandbox.with(PROGRAM, &[], |command| {
            command.env("APT_CONFIG", &config);
        })
    };
    let answers: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..2).map(|_| scope.spawn(run)).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(answers[0].ok().documents, answers[1].ok().documents);
    let kernel = &answers[0].documents[0];
    assert!(kernel["source"].as_str().unwrap().starts_with("package:linux-image-6.12."));
    let modules = kernel["boot_modules"].as_array().unwrap();
    assert!(modules.iter().any(|name| name == "overlay"), "{modules:?}");
    let downloads = answers.iter().filter(|answer| answer.stderr.contains("downloading")).count();
    assert_eq!(downloads, 1);
    let folder = sandbox.state().join("kernels").join(NAME);
    let disk = folder.join("modules.ext4");
    let checked = sandbox.raw("/usr/sbin/e2fsck", &["-fn", disk.to_str().unwrap()]);
    assert_eq!(checked.status, 0, "{}", checked.all());
}
