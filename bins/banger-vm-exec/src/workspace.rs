//! The workspace of a VM, if it has one.

use banger_cli::Out;
use banger_config::Config;
use banger_doc::Workspace;
use banger_state::{VmFolder, place, read_document};
use banger_workspace::head_of;
use std::{
    fs,
    path::{Path, PathBuf},
};

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
    let configured = Config::load().map(|config| config.git_dirs()).unwrap_or_default();
    let trusted = workspace.trusted_git_dirs.iter().map(PathBuf::from).chain(configured);
    let trusted: Vec<PathBuf> = trusted.collect();
    let now = head_of(Path::new(&workspace.host_path), &trusted);
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

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
