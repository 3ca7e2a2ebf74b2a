//! Git reads what somebody else wrote, so there is one place that says how it is called.

use crate::{ending, files, none, read};

/// Where it is called.
const PLACE: &str = "shared/workspace/src/git.rs";

#[test]
fn git_is_called_in_one_place() {
    let mut complaints = Vec::new();
    for path in ending("rs", files()) {
        let is_ours = (path.starts_with("bins/") || path.starts_with("shared/"))
            && !path.contains("/tests/")
            && path != PLACE;
        if !is_ours {
            continue;
        }
        let text = read(&path);
        let text = text.split("#[cfg(test)]").next().unwrap_or("");
        for (number, line) in text.lines().enumerate() {
            let names_git = line.contains("\"git\"") || line.contains("/git\"");
            if names_git
                && ["Command", "new(", "spawn", "which"].iter().any(|word| line.contains(word))
            {
                complaints
                    .push(format!("{path}:{}: calls git by itself; {PLACE} does", number + 1));
            }
        }
    }
    none(complaints);
}

/// What belongs to a repository is read through `Dir` and `HostGit`, which follow no link.
#[test]
fn what_goes_in_is_opened_in_one_place() {
    let mut complaints = Vec::new();
    for name in ["copy", "load", "plan", "ready", "send", "source", "tools", "unit", "walk"] {
        let path = format!("shared/workspace/src/{name}.rs");
        let text = read(&path);
        let text = text.split("#[cfg(test)]").next().unwrap_or("");
        for (number, line) in text.lines().enumerate() {
            let opens =
                ["File::open(", "fs::read(", "fs::read_dir(", "fs::read_to_string(", "fs::copy("];
            // Packs that banger made, and the state directory.
            let own = [("send", "File::open(file)"), ("tools", "fs::read_dir(&dir)")];
            if opens.iter().any(|call| line.contains(call))
                && !own.iter().any(|(at, part)| name == *at && line.contains(part))
            {
                complaints
                    .push(format!("{path}:{}: opens a path by itself; host.rs does", number + 1));
            }
        }
    }
    none(complaints);
}
