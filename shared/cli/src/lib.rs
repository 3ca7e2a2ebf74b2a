//! How a program speaks: parse, run, print, exit.
//!
//! stdout is for programs, stderr is for people, the exit status is the error's kind. Every program
//! is `fn main() -> ExitCode { banger_cli::main(run) }` and `fn run(args: Args, out: &mut Out)`.

mod call;
mod complete;
mod describe;
mod foreign;
pub mod interrupt;
mod leave;
mod out;
mod page;
mod paint;
mod screen;

pub use call::{Program, call, find, is_called};
pub use leave::{is_shell, runs_on, speak_for};
pub use out::{Out, ago, human_bytes, note, one_line};
pub use page::Page;
pub use paint::{Colour, paint};
pub use screen::Screen;

use banger_doc::{Document, Error, Kind, Result};
use clap::{
    Arg, ArgAction, Parser,
    error::{ContextKind, ContextValue},
};
use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    process::{ExitCode, Termination},
};

/// Exit status of the programs that pass a guest's status on, for their own failures.
pub const OWN_FAILURE: u8 = 125;

/// Runs a program that prints documents: `run` returns `()` or an [`ExitCode`].
pub fn main<A: Parser, T: Termination>(run: fn(A, &mut Out) -> Result<T>) -> ExitCode {
    begin(run, false)
}

/// Runs a program whose stdout belongs to somebody else, as raw bytes: no document is printed on
/// failure, and the status is then [`OWN_FAILURE`].
pub fn main_raw<A: Parser, T: Termination>(run: fn(A, &mut Out) -> Result<T>) -> ExitCode {
    begin(run, true)
}

fn begin<A: Parser, T: Termination>(run: fn(A, &mut Out) -> Result<T>, raw: bool) -> ExitCode {
    call::leave_relative_path();
    let mut command = A::command()
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .global(true)
                .overrides_with("format")
                .help("Print JSON documents, also on a terminal"),
        )
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .global(true)
                .overrides_with("json")
                .help("What stdout is: table, for people, or json; also BANGER_FORMAT"),
        )
        .arg(
            Arg::new("quiet")
                .long("quiet")
                .short('q')
                .action(ArgAction::SetTrue)
                .global(true)
                .help("Say nothing on stderr but errors"),
        );
    let words: Vec<OsString> = std::env::args_os().collect();
    if let [_, only] = words.as_slice() {
        if only == "--completion-words" {
            return complete::words(&command);
        } else if only == "--describe" {
            return describe::program(&mut command, raw);
        }
    }
    let program = command.get_name().to_owned();
    let mut out = Out::new(&program, json(&words, None).unwrap_or_else(|_| default_json()));
    let parsed = command.try_get_matches_from_mut(&words).and_then(|matches| {
        out.set_quiet(matches.get_flag("quiet"));
        let args = A::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        Ok((args, json(&words, Some(&matches))))
    });
    let args = match parsed {
        Ok((args, Ok(json))) => {
            out.set_json(json);
            args
        }
        Ok((_, Err(error))) => return fail(&program, &error, &out, raw),
        Err(error) if !error.use_stderr() => {
            // `--help` and `--version` are answers, not errors.
            return match out.bytes(error.to_string().as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&program, &error, &out, raw),
            };
        }
        Err(error) => return fail(&program, &usage(&error, &command, &words), &out, raw),
    };
    match run(args, &mut out) {
        Ok(value) => {
            let code = value.report();
            if out.flush() { code } else { ExitCode::SUCCESS }
        }
        Err(error) => fail(&program, &error, &out, raw),
    }
}

/// Says whether stdout is for a program, where nobody chose.
fn default_json() -> bool {
    !std::io::stdout().is_terminal()
}

/// Says whether documents are to be printed: by the option that was given last, else by the
/// environment, else by what stdout is. A program of banger's own that calls this one reads
/// documents, whatever the person wants to see. Where the words could not be parsed, `--json` among
/// them is as much as can be known.
fn json(words: &[OsString], parsed: Option<&clap::ArgMatches>) -> Result<bool> {
    let asked = match parsed {
        Some(matches) if matches.get_flag("json") => Some("json".to_owned()),
        Some(matches) => matches.get_one::<String>("format").cloned(),
        None => {
            let mut options = words.iter().skip(1).take_while(|word| *word != "--");
            options.any(|word| word == "--json" || word == "--format=json").then(|| "json".into())
        }
    };
    let (value, by) = match (asked, std::env::var("BANGER_FORMAT")) {
        (Some(value), _) => (value, "--format"),
        (None, Ok(value)) if !value.is_empty() && !is_called() => (value, "BANGER_FORMAT"),
        _ => return Ok(default_json()),
    };
    match value.as_str() {
        "json" => Ok(true),
        "table" => Ok(false),
        _ => Err(Error::usage(format!("'{value}' is no format"))
            .hint(format!("{by} takes table or json; 'jq' picks fields of JSON"))),
    }
}

/// Turns clap's paragraphs into one sentence and a hint.
fn usage(error: &clap::Error, command: &clap::Command, words: &[OsString]) -> Error {
    let text = error.to_string();
    let mut sentence = String::new();
    let mut tip = None;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("tip: ") {
            tip.get_or_insert_with(|| rest.to_owned());
        } else if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        } else if !line.is_empty() {
            if !sentence.is_empty() {
                sentence.push(' ');
            }
            sentence.push_str(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    if let Some((taken, form)) = forgotten_dashes(error, command, words) {
        // Any other tip of clap's would have the second word of a command alone be the command.
        let similar = error.get(ContextKind::SuggestedArg).and(tip);
        let hint = similar.into_iter().chain([form]).collect::<Vec<_>>().join("; ");
        return Error::usage(format!("{sentence}; {taken}")).hint(hint);
    }
    let help = format!("'{} --help' shows how to call it", spelled(command.get_name()));
    if let Some(missing) = missing(error) {
        let there = LISTS.iter().find(|(name, _)| missing.iter().any(|one| one == name));
        let hint = there.map(|(_, list)| format!("{list} shows what is there; {help}"));
        let are = if missing.len() == 1 { "is" } else { "are" };
        return Error::usage(format!("{} {are} missing", missing.join(", ")))
            .hint(hint.unwrap_or(help));
    }
    let of_others = foreign::answer(error, command);
    // That advice of clap's is for a value that looks like an option, which is seldom meant.
    let tip = tip.filter(|tip| !tip.starts_with("to pass '"));
    Error::usage(sentence).hint(of_others.or(tip).unwrap_or(help))
}

/// What lists the names that stand for an argument.
const LISTS: &[(&str, &str)] = &[
    ("VM", "'banger vm list'"),
    ("IMAGE", "'banger image list'"),
    ("KERNEL", "'banger kernel list'"),
];

/// Returns the arguments that have to be there and are not, as the help names them.
fn missing(error: &clap::Error) -> Option<Vec<String>> {
    let is_missing = error.kind() == clap::error::ErrorKind::MissingRequiredArgument;
    let Some(ContextValue::Strings(names)) =
        error.get(ContextKind::InvalidArg).filter(|_| is_missing)
    else {
        return None;
    };
    let plain = |name: &String| match name.strip_prefix('<') {
        Some(word) => word.trim_end_matches("...").trim_end_matches('>').to_owned(),
        None => name.clone(),
    };
    Some(names.iter().map(plain).collect())
}

/// Says what a word was taken for that may be the first one of a command, and where that belongs, if
/// the program takes a command behind `--`.
fn forgotten_dashes(
    error: &clap::Error,
    command: &clap::Command,
    words: &[OsString],
) -> Option<(String, String)> {
    let first = command.get_positionals().find(|arg| !arg.is_last_set())?;
    let last = command.get_positionals().find(|arg| arg.is_last_set())?;
    if error.kind() != clap::error::ErrorKind::UnknownArgument {
        return None;
    }
    let parsed = command.clone().ignore_errors(true).try_get_matches_from(words).ok()?;
    let taken = parsed.get_raw(first.get_id().as_str())?.next()?.display().to_string();
    let name =
        |arg: &Arg| arg.get_value_names().unwrap_or_default().first().map(ToString::to_string);
    let form = format!("'{} {first} -- {}'", spelled(command.get_name()), name(last)?);
    Some((
        format!("'{taken}' was taken for {}", name(first)?),
        format!("a command comes behind '--': {form}"),
    ))
}

/// Returns how a person types a program: `banger vm create` for `banger-vm-create`.
pub(crate) fn spelled(program: &str) -> String {
    program.replacen('-', " ", 2)
}

fn fail(program: &str, error: &Error, out: &Out, raw: bool) -> ExitCode {
    interrupt::give_way();
    let said_by_the_caller = out.is_json() && !raw && is_called();
    if !said_by_the_caller && !out.has_said() {
        out::say(program, error);
    }
    if raw {
        return ExitCode::from(if error.kind() == Kind::Usage { 2 } else { OWN_FAILURE });
    }
    if out.is_json() {
        let _ = writeln!(std::io::stdout(), "{}", error.report().to_line());
    }
    ExitCode::from(error.kind().status())
}
