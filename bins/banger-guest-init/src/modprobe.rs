//! `modprobe` for images that have none (modprobe(8)): the kernel calls it for what it needs.

use banger_guest::modules::{self, Modules};
use std::{ffi::OsString, io::Write, process::ExitCode};

/// Loads the modules named, or unloads them with `-r`.
pub(crate) fn run(words: &[OsString]) -> ExitCode {
    let (mut quiet, mut remove, mut all, mut dry) = (false, false, false, false);
    let mut names: Vec<String> = Vec::new();
    let mut plain = false;
    for word in words.iter().map(|word| word.to_string_lossy().into_owned()) {
        match word.as_str() {
            "--" if !plain => plain = true,
            "--quiet" if !plain => quiet = true,
            "--remove" if !plain => remove = true,
            "--all" if !plain => all = true,
            "--dry-run" | "--show-depends" if !plain => dry = true,
            option if !plain && option.starts_with('-') && !option.starts_with("--") => {
                quiet |= option.contains('q');
                remove |= option.contains('r');
                all |= option.contains('a');
                dry |= option.contains('n') || option.contains('D');
            }
            option if !plain && option.starts_with("--") => {}
            _ => names.push(word),
        }
    }
    let options =
        if all || remove || names.len() < 2 { String::new() } else { names.split_off(1).join(" ") };
    let mut status = ExitCode::SUCCESS;
    if names.is_empty() {
        let _ = writeln!(std::io::stderr(), "modprobe: name a module");
        return ExitCode::FAILURE;
    }
    for name in &names {
        let done = if dry {
            Modules::of_this_kernel().and_then(|modules| modules.files(name)).map(|files| {
                for file in files {
                    let _ = writeln!(std::io::stdout(), "insmod {}", file.display());
                }
            })
        } else if remove {
            modules::remove(name)
        } else {
            Modules::of_this_kernel().and_then(|modules| modules.load(name, &options))
        };
        if let Err(error) = done {
            if !quiet {
                let _ = writeln!(std::io::stderr(), "modprobe: {}", error.chain());
            }
            status = ExitCode::FAILURE;
        }
    }
    status
}
