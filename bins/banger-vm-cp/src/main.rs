//! Copies files and trees between the host and a VM.
//!
//! Talks to the VM's agent over `run/channel.sock`, or to who reads the disks of one that does not run; writes only
//! where it was told to. What comes out of a guest is made without following a link, and nothing is made that was
//! not asked for. With `-` as the place to copy to, stdout is a tar stream, also on failure.

mod give;
mod guest;
mod place;
mod progress;
mod signals;
mod take;

use banger_cli::{Out, human_bytes};
use banger_doc::{Copy, Error, Result};
use banger_state::State;
use guest::Guest;
use place::Side;
use std::{ffi::OsString, process::ExitCode};

/// Copy files and directories into a VM, or out of one
///
/// A VM that files go into has to run. One side is VM:PATH, the other a path of this host; '-' is a tar stream, from stdin or to stdout.
/// A path in a guest that does not begin with '/' is below its user's home. A directory goes with all it
/// holds; DIRECTORY/. is only what it holds. Modes, times, links, hard links and holes are kept.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-vm-cp", version, override_usage = "banger-vm-cp [OPTIONS] FROM... TO")]
struct Args {
    /// Keep owners, setuid bits and links that lead out of a guest's tree: only from a guest you trust
    #[arg(short, long)]
    archive: bool,
    /// Whose it becomes in the guest: user, uid, user:group or uid:gid [default: the guest's own user's, or
    /// root's where only root may write]
    #[arg(short, long, value_name = "USER", value_parser = banger_doc::parse_user)]
    user: Option<String>,
    /// Accepted, since others want it: directories are always copied whole
    #[arg(short, long, short_alias = 'R', hide = true)]
    recursive: bool,
    /// What to copy, and last where to
    #[arg(value_name = "PATH", required = true, num_args = 2.., allow_hyphen_values = false)]
    paths: Vec<OsString>,
}

fn main() -> ExitCode {
    let is_path = |word: &OsString| word == "-" || !word.as_encoded_bytes().starts_with(b"-");
    let last = std::env::args_os().skip(1).rfind(is_path);
    if last.is_some_and(|word| word == "-") {
        // stdout is then the stream's, and no document may come into it.
        return banger_cli::main_raw(run);
    }
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let mut sides = args.paths.iter().map(|word| Side::parse(word)).collect::<Result<Vec<_>>>()?;
    let to = sides.pop().ok_or_else(|| Error::usage("nothing to copy"))?;
    let many = sides.len() > 1;
    if let Some(user) = args.user.as_deref().filter(|user| args.archive && !is_root(user))
        && matches!(to, Side::Guest { .. })
    {
        return Err(Error::usage(format!(
            "'--archive' keeps owners, and with '--user {user}' all becomes that user's"
        ))
        .hint("give one of them: only root, who writes with '--archive', can give files away"));
    }
    let state = State::open_read_only()?;
    let vm = sides.iter().chain([&to]).find_map(Side::vm);
    if let Some(words) = vm.and_then(|vm| state.vm(vm).ok()?.boots_on()) {
        out.note(&words);
    }
    let user = args.user.as_deref();
    for from in &sides {
        let copy = match (from, &to) {
            (Side::Host(from), Side::Guest { vm, path }) => give::files(
                &Guest::running(&state, vm, user)?,
                from,
                path,
                many,
                args.archive,
                out,
            )?,
            (Side::Stream, Side::Guest { vm, path }) if !many => {
                give::stream(&Guest::running(&state, vm, user)?, path, args.archive)?
            }
            (Side::Guest { vm, path }, Side::Host(to)) => {
                take::files(&Guest::open(&state, vm, user)?, path, to, many, args.archive, out)?
            }
            (Side::Guest { vm, path }, Side::Stream) if !many => {
                return take::stream(&Guest::open(&state, vm, user)?, path);
            }
            (from, to) => return Err(place::wrong(from, to)),
        };
        out.put(&copy, words)?;
    }
    Ok(())
}

/// Says whether a user is root, by name or number, with root's group if with any.
fn is_root(user: &str) -> bool {
    user.split(':').all(|part| matches!(part, "root" | "0"))
}

fn words(copy: &Copy) -> String {
    let things = if copy.entries == 1 { "thing" } else { "things" };
    format!("{} {things}, {}, to '{}'", copy.entries, human_bytes(copy.size_bytes), copy.to)
}
