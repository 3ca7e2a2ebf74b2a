//! Remembers that the user says yes to the files of a repository that have something installed and run in
//! a guest by itself. Reads these files; writes `allowed/` in the state directory.

use banger_cli::Out;
use banger_doc::{Allowed, Error, Kind, Result, visible};
use banger_state::State;
use banger_workspace::{ToolFile, all_allowed, allow, forget, root_of, tool_files};
use std::{path::PathBuf, process::ExitCode};

/// Let a repository have the tools that it names installed in a guest
///
/// Shows the files that name them ('.mise.toml', '.tool-versions' and what else mise reads) and remembers
/// their content: 'banger vm run' then installs the tools beside the shell. A file that changes has to be
/// allowed again.
#[derive(clap::Parser)]
#[command(name = "banger-allow", version)]
struct Args {
    /// The repository or directory, or a path inside a repository
    #[arg(value_name = "PATH", default_value = ".", value_hint = clap::ValueHint::DirPath)]
    path: PathBuf,
    /// Show what was allowed so far
    #[arg(long, conflicts_with_all = ["path", "forget"])]
    list: bool,
    /// Take back what was allowed to the repository at PATH
    #[arg(long)]
    forget: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    if args.list {
        let (all, damaged) = match State::open_read_only() {
            Ok(state) => all_allowed(&state),
            Err(error) if error.kind() == Kind::NotFound => (Vec::new(), None),
            Err(error) => return Err(error),
        };
        if all.is_empty() && damaged.is_none() {
            out.note("nothing was allowed so far");
            out.suggest(
                "'banger allow PATH' lets a repository have the tools that it names installed",
            );
        }
        all.iter().try_for_each(|(_, allowed)| out.put(allowed, listed))?;
        return damaged.map_or(Ok(()), Err);
    }
    if args.forget {
        let allowed = forget(&State::open()?, &args.path)?;
        return out.put(&allowed, |allowed| {
            format!("'{}' is not allowed any more", visible(&allowed.path, 4096))
        });
    }
    let root = root_of(&args.path)?;
    let files = tool_files(&root)?;
    if files.is_empty() {
        return Err(Error::not_found(format!("'{}' names no tools", root.display()))
            .hint("'.mise.toml' and '.tool-versions' do, if they are files and no links"));
    }
    let allowed = allow(&State::open()?, &root, &files)?;
    out.put(&allowed, |allowed| {
        let files: String = files.iter().map(shown).collect();
        let path = visible(&allowed.path, 4096);
        format!("{files}'{path}' may have these tools installed in a guest")
    })
}

fn listed(allowed: &Allowed) -> String {
    let files: Vec<String> = allowed.files.iter().map(|file| visible(&file.path, 4096)).collect();
    format!("{}: {}", visible(&allowed.path, 4096), files.join(", "))
}

/// Shows a file as text, line by line.
fn shown(file: &ToolFile) -> String {
    let content = String::from_utf8_lossy(&file.content);
    let lines = content.lines().map(|line| format!("    {}\n", visible(line, 4096)));
    format!("{}\n{}", visible(&file.path, 4096), lines.collect::<String>())
}
