//! Processes of the host, told apart from later ones of the same number.

use banger_doc::Process;
use std::fs;

/// Returns a process with its start time; `None` if it is gone, or has ended and nobody waited for it.
pub fn process_of(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command, field 2, may hold spaces and parentheses; what follows the last `)` does not.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    let start_ticks = fields.nth(18)?.parse().ok()?;
    (!has_ended).then_some(Process { pid, start_ticks })
}
