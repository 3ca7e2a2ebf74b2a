//! The workspace of a VM, if it has one.

use banger_cli::Out;
use banger_doc::Workspace;
use banger_state::{VmFolder, place, read_document};
use std::{fs, path::Path};

/// Returns where a command starts, and says if the host's repository has moved on since.
pub(crate) fn dir(folder: &VmFolder, out: &Out) -> Option<String> {
    let path = folder.join(place::VM_WORKSPACE_DOCUMENT);
    if !path.exists() {
        return None;
    }
    // What cannot be read is another program's to complain of; the command runs all the same.
    let workspace: Workspace = read_document(&path).ok()?;
    // Begun, but never seen to end: there may be no such directory.
    if workspace.next.is_some() && workspace.given.head.is_empty() {
        return None;
    }
    let before = workspace.host_commit.as_deref();
    let now = head(Path::new(&workspace.host_path));
    if let (Some(before), Some(now)) = (before, now)
        && before != now
        && is_news(&folder.join(place::VM_WORKSPACE_TOLD), &now, out)
    {
        out.note(&format!(
            "note: HEAD of '{}' has moved on since; 'banger workspace prepare {}' brings it in",
            workspace.host_path,
            folder.name()
        ));
    }
    Some(workspace.start_path.unwrap_or(workspace.guest_path))
}

/// Says whether a commit was not said yet; from now on it was. Where that cannot be written down it is
/// said again.
fn is_news(told: &Path, commit: &str, out: &Out) -> bool {
    if out.is_quiet() || read(told).is_some_and(|before| before == commit) {
        return false;
    }
    let _ = fs::write(told, commit);
    true
}

/// Reads the commit that HEAD is, where that takes a few small files (gitrepository-layout(5)).
fn head(root: &Path) -> Option<String> {
    let mut git = root.join(".git");
    if git.is_file() {
        // A linked work tree, or a submodule.
        git = root.join(read(&git)?.strip_prefix("gitdir: ")?);
    }
    let common = read(&git.join("commondir")).map_or_else(|| git.clone(), |dir| git.join(dir));
    let head = read(&git.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else { return Some(head) };
    if let Some(commit) = read(&common.join(name)) {
        return Some(commit);
    }
    let packed = fs::read_to_string(common.join("packed-refs")).ok()?;
    let line = packed.lines().find(|line| line.split_once(' ').is_some_and(|(_, n)| n == name))?;
    line.split_once(' ').map(|(commit, _)| commit.to_owned())
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn head_is_found_wherever_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let git = |at: &str, words: &str| {
            let output = Command::new("git")
                .args(["-c", "user.name=A", "-c", "user.email=a@b"])
                .args(words.split(' '))
                .env("HOME", dir.path())
                .current_dir(dir.path().join(at))
                .output()
                .unwrap();
            assert!(output.status.success(), "{words}: {output:?}");
            Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        };
        let found = |at: &str| head(&dir.path().join(at));
        fs::create_dir(dir.path().join("main")).unwrap();
        git("main", "init -q -b trunk");
        assert_eq!(found("main"), None);
        git("main", "commit -q --allow-empty -m one");
        assert_eq!(found("main"), git("main", "rev-parse HEAD"));
        git("main", "worktree add -q -b side ../linked");
        git("linked", "commit -q --allow-empty -m two");
        assert_ne!(found("linked"), found("main"));
        assert_eq!(found("linked"), git("linked", "rev-parse HEAD"));
        git("main", "pack-refs --all");
        assert_eq!(found("linked"), git("linked", "rev-parse HEAD"));
        assert_eq!(found("main"), git("main", "rev-parse HEAD"));
        git("main", "checkout -q --detach side");
        assert_eq!(found("main"), found("linked"));
        assert_eq!(found("nowhere"), None);
    }
}
