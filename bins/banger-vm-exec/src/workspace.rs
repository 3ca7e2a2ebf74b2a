//! The workspaces of a VM, if it has any.

use banger_cli::Out;
use banger_config::Config;
use banger_doc::{Workspace, shell_word};
use banger_state::{VmFolder, place};
use banger_workspace::{folders, head_of, read};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Returns where a command starts, in the workspace that was made first, and says which of the host's
/// repositories have moved on since they went in.
pub(crate) fn dir(folder: &VmFolder, out: &Out) -> Option<String> {
    // What cannot be read is another program's to complain of; the command runs all the same.
    let mut all: Vec<(PathBuf, Workspace)> = folders(folder)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|dir| read(&dir).ok().flatten().map(|workspace| (dir, workspace)))
        // Begun, but never seen to end: there may be no such directory.
        .filter(|(_, workspace)| workspace.next.is_none() || !workspace.given.head.is_empty())
        .collect();
    all.sort_by_key(|(_, workspace)| workspace.first_unix_ms);
    if all.is_empty() {
        return None;
    }
    let configured = Config::load().map(|config| config.git_dirs()).unwrap_or_default();
    for (dir, workspace) in &all {
        tell(folder, dir, workspace, &configured, out);
    }
    let (_, first) = all.swap_remove(0);
    Some(first.start_path.unwrap_or(first.guest_path))
}

/// Says if the host's repository has moved on since it went in.
fn tell(vm: &VmFolder, dir: &Path, workspace: &Workspace, configured: &[PathBuf], out: &Out) {
    let before = workspace.host_commit.as_deref();
    let trusted = workspace.trusted_git_dirs.iter().map(PathBuf::from);
    let trusted: Vec<PathBuf> = trusted.chain(configured.iter().cloned()).collect();
    let now = head_of(Path::new(&workspace.host_path), &trusted);
    if let (Some(before), Some(now)) = (before, now)
        && before != now
        && is_news(&dir.join(place::WORKSPACE_TOLD), &now, out)
    {
        let host = &workspace.host_path;
        out.note(&format!(
            "note: HEAD of '{host}' has moved on since; 'banger workspace prepare {} {}' brings it in",
            vm.name(),
            shell_word(host)
        ));
    }
}

/// Says whether a commit was not said yet; from now on it was. Where that cannot be written down it is
/// said again.
fn is_news(told: &Path, commit: &str, out: &Out) -> bool {
    if out.is_quiet() || read_text(told).is_some_and(|before| before == commit) {
        return false;
    }
    let _ = fs::write(told, commit);
    true
}

fn read_text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
