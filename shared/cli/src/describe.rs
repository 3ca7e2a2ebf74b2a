//! What a program says of itself to other programs; `banger schema` asks.

use banger_doc::{Argument, Document, Program};
use std::{io::Write, process::ExitCode};

/// Prints a `banger.program/1` document: what the help says, for programs.
pub(crate) fn program(command: &mut clap::Command, raw: bool) -> ExitCode {
    command.build();
    let name = command.get_name().to_owned();
    let program = Program {
        command: crate::spelled(&name),
        name,
        purpose: command.get_about().map(ToString::to_string).unwrap_or_default(),
        raw,
        prints: Vec::new(),
        arguments: command.get_arguments().filter(|arg| !arg.is_hide_set()).map(argument).collect(),
    };
    let _ = writeln!(std::io::stdout(), "{}", program.to_line());
    ExitCode::SUCCESS
}

fn argument(arg: &clap::Arg) -> Argument {
    let takes = arg.get_action().takes_values();
    let name = arg.get_value_names().and_then(|names| names.first());
    let default = arg.get_default_values().first().map(|value| value.to_string_lossy());
    // A value that no one typed stands in the words where it depends on the host.
    let words = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let (meaning, said) = match words.rsplit_once(" [default: ") {
        Some((meaning, said)) => (meaning.to_owned(), said.strip_suffix(']').map(str::to_owned)),
        None => (words, None),
    };
    Argument {
        option: arg.get_long().map(|long| format!("--{long}")),
        short: arg.get_short().map(|short| format!("-{short}")),
        value: takes.then(|| name.map_or("VALUE", |name| name.as_str()).to_owned()),
        meaning,
        default: if takes { default.map(Into::into).or(said) } else { None },
        required: arg.is_required_set(),
        repeats: takes
            && (matches!(arg.get_action(), clap::ArgAction::Append)
                || arg.get_num_args().is_some_and(|range| range.max_values() > 1)),
        after_dashes: arg.is_last_set(),
    }
}
