//! A line for people of what was brought.

use banger_doc::WorkspaceWatch;
use nix::libc;
use std::mem::MaybeUninit;

/// How many paths are named.
const NAMED: usize = 4;

/// Returns what a person sees: the time, how much, and the first of it.
pub(crate) fn line(batch: &WorkspaceWatch) -> String {
    let time = clock(batch.unix_ms / 1000);
    let mut lines = Vec::new();
    let mut said = Vec::new();
    if batch.git {
        said.push("commits, branch and index".to_owned());
    }
    if !batch.changes.is_empty() {
        let names = batch.changes.iter().map(|change| {
            let gone = if change.how == "deleted" { " (gone)" } else { "" };
            format!("{}{gone}", change.path.escape_debug())
        });
        let s = if batch.changes.len() == 1 { "" } else { "s" };
        said.push(format!("{} file{s}: {}", batch.changes.len(), some(names)));
    }
    if !said.is_empty() {
        lines.push(format!("{time}  {}", said.join("; ")));
    }
    if !batch.left.is_empty() {
        let names = batch.left.iter().map(|path| path.escape_debug().to_string());
        lines.push(format!("{time}  left as the guest has it: {}", some(names)));
    }
    lines.join("\n")
}

/// Returns the first names, and how many more there are.
fn some(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let first: Vec<String> = names.take(NAMED).collect();
    let first = first.join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

/// Returns a time of the day as clocks here show it.
fn clock(unix_s: u64) -> String {
    let seconds = unix_s as libc::time_t;
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to values of this function; a `tm` of zeros is one.
    let parts = unsafe {
        libc::localtime_r(&raw const seconds, parts.as_mut_ptr());
        parts.assume_init()
    };
    format!("{:02}:{:02}:{:02}", parts.tm_hour, parts.tm_min, parts.tm_sec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_doc::Change;

    #[test]
    fn a_line_says_what_and_how_much() {
        let change = |path: &str, how: &str| Change { path: path.into(), how: how.into() };
        let mut batch = WorkspaceWatch {
            vm: "web".parse().expect("a name"),
            changes: vec![change("a", "modified"), change("b\n", "deleted")],
            left: Vec::new(),
            git: false,
            took_ms: 1,
            guest_ms: None,
            unix_ms: 0,
        };
        assert_eq!(&line(&batch)[2..3], ":");
        let said = |batch: &WorkspaceWatch| -> Vec<String> {
            line(batch).lines().map(|line| line[10..].to_owned()).collect()
        };
        assert_eq!(said(&batch), ["2 files: a, b\\n (gone)"]);
        batch.git = true;
        batch.changes = (0..7).map(|n| change(&n.to_string(), "added")).collect();
        batch.left = vec!["l".into()];
        assert_eq!(
            said(&batch),
            [
                "commits, branch and index; 7 files: 0, 1, 2, 3 and 3 more",
                "left as the guest has it: l"
            ]
        );
        batch.changes.truncate(1);
        (batch.git, batch.left) = (false, Vec::new());
        assert_eq!(said(&batch), ["1 file: 0"]);
    }
}
