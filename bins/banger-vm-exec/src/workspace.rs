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
    {
        out.note(&format!(
            "note: HEAD of '{}' has moved on since; 'banger workspace prepare {}' brings it in",
            workspace.host_path,
            folder.name()
        ));
    }
    Some(workspace.guest_path)
}

/// Reads the commit that HEAD is, where that takes two small files (gitrepository-layout(5)).
fn head(root: &Path) -> Option<String> {
    let git = root.join(".git");
    let head = read(&git.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else { return Some(head) };
    if let Some(commit) = read(&git.join(name)) {
        return Some(commit);
    }
    let packed = fs::read_to_string(git.join("packed-refs")).ok()?;
    let line = packed.lines().find(|line| line.split_once(' ').is_some_and(|(_, n)| n == name))?;
    line.split_once(' ').map(|(commit, _)| commit.to_owned())
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
