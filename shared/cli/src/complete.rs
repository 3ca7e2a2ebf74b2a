//! What a shell asks at TAB time.

use std::{io::Write, process::ExitCode};

/// Prints the options of a program, `--option<TAB>help` a line, then a line `@KIND` for each kind
/// of name its arguments take (`@VM`, `@IMAGE`, `@KERNEL`, `@PATH`).
pub(crate) fn words(command: &clap::Command) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        if let Some(long) = arg.get_long() {
            let _ = writeln!(stdout, "--{long}\t{help}");
        }
        let takes = arg.get_value_names().unwrap_or_default();
        for kind in
            takes.iter().filter(|kind| ["VM", "IMAGE", "KERNEL", "PATH"].contains(&kind.as_str()))
        {
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
