//! What a shell asks at TAB time.

use std::{io::Write, process::ExitCode};

/// The values that options take, where there are few.
const VALUES: &[(&str, &[&str])] = &[
    ("for", &["agent", "booted", "stopped"]),
    ("format", &["table", "json"]),
    ("init", &["auto", "image", "minimal"]),
    ("mode", &["shallow", "full_copy"]),
    ("net", &["user", "none"]),
    ("platform", &["linux/amd64", "linux/arm64"]),
    ("ports", &["auto", "none"]),
    ("vmm", &["auto", "firecracker", "qemu"]),
    ("wait", &["agent", "booted"]),
];

/// The option that names a workspace of a VM that is on the same line.
const WORKSPACE: &str = "guest-path";

/// The names of arguments that stand for names of things.
const KINDS: [&str; 6] = ["VM", "IMAGE", "KERNEL", "EXPORT", "PATH", "REFERENCE"];

/// Prints the options of a program, `--option<TAB>help` a line, then a line `@KIND` for each kind
/// of name its arguments take (`@VM`, `@IMAGE`, `@KERNEL`, `@EXPORT`, `@PATH`, `@REFERENCE`; `@WORKSPACE`, one of the
/// VM on the line), and `=VALUE --option` for each
/// value of an option that takes one of a few.
pub(crate) fn words(command: &clap::Command) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let Some(long) = arg.get_long() else { continue };
        let _ = writeln!(stdout, "--{long}\t{help}");
        let few = VALUES.iter().filter(|(option, _)| *option == long && takes_value(arg));
        let own: Vec<String> =
            arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let values = few.flat_map(|(_, values)| values.iter().map(ToString::to_string));
        let values: Vec<String> =
            if own.is_empty() || !takes_value(arg) { values.collect() } else { own };
        let spellings = arg.get_all_aliases().unwrap_or_default().into_iter().chain([long]);
        for spelling in spellings {
            for value in &values {
                let _ = writeln!(stdout, "={value} --{spelling}");
            }
        }
    }
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        if arg.get_long() == Some(WORKSPACE) {
            let _ = writeln!(stdout, "@WORKSPACE --{WORKSPACE}");
        }
        let takes = arg.get_value_names().unwrap_or_default();
        for kind in takes.iter().filter(|kind| KINDS.contains(&kind.as_str())) {
            if arg.is_positional() {
                let _ = writeln!(stdout, "@{kind}");
            } else if let Some(long) = arg.get_long() {
                let _ = writeln!(stdout, "@{kind} --{long}");
            }
        }
    }
    let _ = writeln!(stdout, "--help\tPrint help");
    ExitCode::SUCCESS
}

fn takes_value(arg: &clap::Arg) -> bool {
    arg.get_action().takes_values()
}
