//! Git reads what somebody else wrote, so there is one place that says how it is called.

use crate::{lines_of_code, none};

/// Where it is called.
const PLACE: &str = "shared/workspace/src/git.rs";

#[test]
fn git_is_called_in_one_place() {
    let mut complaints = Vec::new();
    for (path, number, line) in lines_of_code().into_iter().filter(|(path, ..)| path != PLACE) {
        let names_git = line.contains("\"git\"") || line.contains("/git\"");
        let calls = ["Command", "new(", "spawn", "which"].iter().any(|word| line.contains(word));
        if names_git && calls {
            complaints.push(format!("{path}:{number}: calls git by itself; {PLACE} does"));
        }
    }
    none(complaints);
}

/// What opens a path by itself in the crate of workspaces, where, and why it is no repository's.
const OWN: &[(&str, &str, &str)] = &[
    ("record/given.rs", "File::open(path)", "the VM's folder"),
    ("record/journal.rs", "File::open(&path)", "the VM's folder"),
    ("remote/kept.rs", "fs::read_dir(&dir)", "the state directory"),
    (
        "remote/pull.rs",
        "File::open(&dir)",
        "the directory of packs, which was looked at, to be synced",
    ),
    ("remote/pull.rs", "File::open(from)", "a pack that banger made"),
    ("remote/push.rs", "File::open(file.as_path())", "a pack that banger made"),
    ("record.rs", "fs::read_dir(path)", "the VM's folder"),
    ("record.rs", "fs::read_dir(&self.path)", "the VM's folder"),
    ("scratch.rs", "File::open(self.tree())", "made by banger a moment ago"),
    ("prepare/send.rs", "File::open(file)", "packs that banger made"),
    ("record/store.rs", "fs::read_dir(beside.join(\"modules\"))", "the VM's folder"),
    ("record/store.rs", "fs::read_dir(&dir)", "the VM's folder"),
    ("record/store.rs", "fs::read(self.dir.join(", "the VM's folder"),
    ("host/tools.rs", "fs::read_dir(&dir)", "the state directory"),
];

/// What belongs to a repository is read through `Dir` and `HostGit`, which follow no link.
#[test]
fn what_goes_in_is_opened_in_one_place() {
    let opens = ["File::open(", "fs::read(", "fs::read_dir(", "fs::read_to_string(", "fs::copy("];
    let mut complaints = Vec::new();
    let mut used = vec![false; OWN.len()];
    for (path, number, line) in lines_of_code() {
        let Some(name) = path.strip_prefix("shared/workspace/src/") else { continue };
        if !opens.iter().any(|call| line.contains(call)) {
            continue;
        }
        match OWN.iter().position(|(at, part, _)| name == *at && line.contains(part)) {
            Some(row) => used[row] = true,
            None => {
                complaints.push(format!("{path}:{number}: opens a path by itself; host.rs does"));
            }
        }
    }
    for ((file, part, _), _) in OWN.iter().zip(used).filter(|(_, used)| !used) {
        complaints.push(format!("{file} has no '{part}': take it out of the table"));
    }
    none(complaints);
}
