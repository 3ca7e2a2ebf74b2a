//! Says what host and guest have that the other lacks, and what would be lost with the VM.
//!
//! Reads the guest's files, through the VM's channel or from the disks of one that does not run, the host's
//! repository, and the records in `vms/NAME/workspaces/`.

use banger_cli::{Out, note};
use banger_config::Config;
use banger_doc::{Change, Name, Result, Work, WorkspaceStatus, visible};
use banger_state::State;
use banger_workspace::{budget, files_of, folder, or_more_time, records, stake, status, way_out};
use std::{fmt::Write as _, io::Write as _, process::ExitCode, time::Duration};

/// Say what host and guest have that the other lacks
///
/// Of each workspace. The disks of a VM that does not run are read.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-workspace-status", version)]
struct Args {
    /// The VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// Only the workspace at this place in the guest
    #[arg(long, value_name = "DIR")]
    guest_path: Option<String>,
    /// Fail with status 4 if the VM holds work that was not exported, or if that is not known
    #[arg(long)]
    check: bool,
    /// How long the guest may take to be looked at, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    timeout: Duration,
}

/// Reads a time of at most a day.
fn seconds(word: &str) -> Result<Duration, String> {
    let seconds: f64 = word.parse().map_err(|_| "give a number of seconds".to_owned())?;
    let is_sane = (0.1..=86400.0).contains(&seconds);
    is_sane.then(|| Duration::from_secs_f64(seconds)).ok_or_else(|| "give 0.1 to 86400".to_owned())
}

/// The words with which a shell asks at TAB which workspaces a VM has.
const PLACES: &str = "--places";

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    match words.as_slice() {
        [ask, vm] if ask == PLACES => places(&vm.to_string_lossy()),
        _ => banger_cli::main(run),
    }
}

/// Prints where the workspaces of a VM lie in its guest, one a line. What cannot be read has none.
fn places(vm: &str) -> ExitCode {
    let all = || records(&State::open_read_only()?.vm(&vm.parse::<Name>()?)?);
    let mut stdout = std::io::stdout().lock();
    for (_, record) in all().unwrap_or_default() {
        let _ = writeln!(stdout, "{}", visible(&record.guest_path, 4096));
    }
    ExitCode::SUCCESS
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let vm = State::open()?.vm(&args.vm)?;
    let asked = args.guest_path.as_deref();
    if args.check {
        return stake(&vm, asked, args.timeout)?.refuse(args.vm.as_str());
    }
    let mut all = records(&vm)?;
    if asked.is_some() || all.is_empty() {
        let one = folder(&vm, asked)?;
        all.retain(|(dir, _)| *dir == one);
    }
    let is_live = vm.status()?.is_live();
    if is_live {
        vm.must_run()?;
    }
    let budget = budget(&vm, args.timeout)?;
    let files = files_of(&vm, budget.clone());
    let configured = Config::load()?.git_dirs();
    let is_one = all.len() == 1;
    let mut failures = Vec::new();
    for (dir, _) in &all {
        let found = match status(dir, &files, is_live, &configured) {
            Ok(found) => found,
            // What is not known of one keeps nobody from the others.
            Err(error) => {
                failures.push(or_more_time(error, &budget));
                continue;
            }
        };
        let of = |note: &String| {
            if is_one {
                format!("note: {note}")
            } else {
                format!("note: '{}': {note}", found.guest_path)
            }
        };
        out.put(&found, |found| if is_one { said(found) } else { said_of(found) })?;
        found.notes.iter().for_each(|note| out.note(&of(note)));
        if !found.unexported.is_empty() {
            let at = Some(found.guest_path.as_str()).filter(|_| !is_one);
            out.suggest(&way_out(&found.unexported, args.vm.as_str(), at));
        }
    }
    let mut failures = failures.into_iter();
    let first = failures.next();
    failures.for_each(|other| note(&format!("error: {}", other.chain())));
    first.map_or(Ok(()), Err)
}

/// Says of one of several workspaces which it is, then what is said of one.
fn said_of(found: &WorkspaceStatus) -> String {
    let lines: Vec<String> = said(found).lines().map(|line| format!("  {line}")).collect();
    format!("{}\n{}", visible(&found.guest_path, 4096), lines.join("\n"))
}

/// How many paths of a side are listed.
const MOST: usize = 20;

/// Says the sum in the first line, then what it is made of.
fn said(found: &WorkspaceStatus) -> String {
    let mut text = if !found.is_known {
        "it is not known what the guest holds".to_owned()
    } else if found.unexported.is_empty() {
        "nothing in the guest would be lost".to_owned()
    } else {
        format!("not exported: {}", Work::list(&found.unexported))
    };
    let mut part = |title: &str, changes: &[Change]| {
        if !changes.is_empty() {
            let _ = write!(text, "\n{title}:");
        }
        let more = changes.len().saturating_sub(MOST);
        // A line that says one more is no shorter than that one.
        let shown = if more > 1 { MOST } else { changes.len() };
        for change in &changes[..shown] {
            let _ = write!(text, "\n  {:<8}  {}", change.how, change.path.escape_debug());
        }
        if more > 1 {
            let _ = write!(text, "\n  ... and {more} more; '--json' lists all");
        }
    };
    part("the guest changed", &found.guest_changes);
    part("the host changed", &found.host_changes);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_doc::WorkKind;

    fn status(changed: usize) -> WorkspaceStatus {
        let change = |at| Change { path: format!("f{at}"), how: "modified".into() };
        let work = Work::new(WorkKind::Changes, format!("{changed} changed files (f0, ...)"));
        WorkspaceStatus {
            guest_path: "/root/repo".into(),
            host_path: "/srv/repo".into(),
            is_live: true,
            is_known: true,
            unexported: vec![work],
            guest_changes: (0..changed).map(change).collect(),
            guest_commit: None,
            host_commit: None,
            host_changes: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_sum_comes_first_and_the_list_is_bounded() {
        let text = |changed| said(&status(changed));
        assert_eq!(
            text(1),
            "not exported: 1 changed files (f0, ...)\nthe guest changed:\n  modified  f0"
        );
        assert_eq!(text(21).lines().count(), 23);
        assert!(text(140).ends_with("  modified  f19\n  ... and 120 more; '--json' lists all"));
        let nothing =
            WorkspaceStatus { unexported: Vec::new(), guest_changes: Vec::new(), ..status(0) };
        assert_eq!(said(&nothing), "nothing in the guest would be lost");
        let unknown = WorkspaceStatus { is_known: false, ..nothing };
        assert_eq!(said(&unknown), "it is not known what the guest holds");
    }
}
