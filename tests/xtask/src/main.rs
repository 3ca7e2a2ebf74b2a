//! Tasks of the tree: `cargo xtask TASK`. Needs nothing but a Rust toolchain; `setup` brings the
//! rest.

mod bench;
mod build;
mod demo;
mod errors;
mod firecracker;
mod fuzz;
mod install;
mod nested;
mod run;
mod setup;
mod soak;
mod test;

use std::{io::Write, process::ExitCode};

/// What every task returns: words for the person who ran it.
pub(crate) type Result<T = ()> = std::result::Result<T, String>;

const USAGE: &str = "\
usage: cargo xtask TASK

  setup             install what builds, tests and the demonstration need (Debian, as root)
  build             build all programs, and the guest programs statically
  demo              boot a Debian VM and run a command in it
  test [-- ARG...]  run every test, real VMs included; ARGs go to the test runner
  nested            run what needs real KVM, on a host made for it
  errors            compare docs/errors.md with what the last tests saw; BLESS=1 writes it
  bench NAME [--debug]
                    measure against a budget: boot, create, image, kvm, net, start,
                    workspace;
                    --debug: the programs as tests use them
  soak NAME         try everything that tests try a selection of: kill, fault, first-command,
                    images, load, model,
                    nested, nested-flows, ways
  fuzz [--seconds N] [TARGET...]
                    throw broken input at what reads hostile input, 20 s each
  install [--prefix DIR]
                    build for release and install into DIR, /usr/local unless given
";

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["setup"] => setup::run(),
        ["build"] => build::run(),
        ["demo"] => demo::run(),
        ["test"] => test::run(&[]),
        ["test", "--", rest @ ..] => test::run(rest),
        ["errors"] => errors::run(),
        ["bench", name] => bench::run(name, false),
        ["bench", name, "--debug"] => bench::run(name, true),
        // What `bench kvm` runs on the host it makes.
        ["bench-there"] => bench::there(),
        ["soak", name] => soak::run(name),
        ["nested"] => nested::run(),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["install"] => install::run("/usr/local"),
        ["install", "--prefix", prefix] => install::run(prefix),
        [] | ["help" | "--help" | "-h"] => {
            let _ = std::io::stdout().write_all(USAGE.as_bytes());
            return ExitCode::SUCCESS;
        }
        _ => Err(format!("no task '{}'\n\n{USAGE}", words.join(" "))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&format!("xtask: {error}"));
            ExitCode::FAILURE
        }
    }
}
