//! The workspaces of a VM: which there are, and where another one goes.

use crate::{
    host::tools::root_of,
    names::hex,
    record::{MOST, meet, records_in},
};
use banger_doc::{Error, Kind, Result, Workspace};
use banger_state::{Lock, VmFolder, place};
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How many hexadecimal digits name the folder of a workspace.
const DIGITS: usize = 16;
/// How often another program may be quicker at a place that was free.
const TRIES: usize = 8;

/// Returns the folders of a VM's workspaces, at most 64.
pub fn folders(vm: &VmFolder) -> Result<Vec<PathBuf>> {
    vm.workspaces()
}

/// Reads the records of a VM's workspaces, each with its folder; the one that was made first is the first.
pub fn records(vm: &VmFolder) -> Result<Vec<(PathBuf, Workspace)>> {
    records_in(vm.workspaces()?)
}

/// Returns the folder of the workspace at this place in the guest, of the only one, or of the only one that was
/// prepared from where this program was called.
pub fn folder(vm: &VmFolder, guest_path: Option<&str>) -> Result<PathBuf> {
    let name = vm.name();
    let folders = vm.workspaces()?;
    if let Some(asked) = guest_path {
        let found = folder_at(vm, asked);
        if folders.contains(&found) {
            return Ok(found);
        }
        if !folders.is_empty() {
            let places = places(&records(vm)?);
            return Err(Error::not_found(format!(
                "VM '{name}' has no workspace in '{}'",
                asked.escape_debug()
            ))
            .hint(format!("it has {places}")));
        }
    }
    match folders.as_slice() {
        [] => Err(Error::not_found(format!("VM '{name}' has no workspace"))
            .hint(format!("'banger workspace prepare {name}' puts a repository into it"))),
        [one] => Ok(one.clone()),
        _ => {
            let all = records(vm)?;
            from(&all, Path::new(".")).ok_or_else(|| several(vm, &all))
        }
    }
}

/// Returns the folder of the only workspace that what `path` is in was prepared for.
fn from(all: &[(PathBuf, Workspace)], path: &Path) -> Option<PathBuf> {
    let host_path = root_of(path).ok()?.display().to_string();
    let mut its = all.iter().filter(|(_, record)| record.host_path == host_path);
    let (folder, _) = its.next()?;
    its.next().is_none().then(|| folder.clone())
}

/// Returns the folder of the workspace at this place in the guest, of the only one that what `path` is in was
/// prepared for, or of the only one.
pub fn folder_of(vm: &VmFolder, guest_path: Option<&str>, path: Option<&Path>) -> Result<PathBuf> {
    if let (None, Some(path)) = (guest_path, path)
        && let Some(folder) = from(&records(vm)?, path)
    {
        return Ok(folder);
    }
    folder(vm, guest_path)
}

/// Returns the folder that a workspace at this place in the guest has, or would have.
pub fn folder_at(vm: &VmFolder, guest_path: &str) -> PathBuf {
    let path = guest_path.trim_end_matches('/');
    let mut name = hex(&Sha256::digest(path.as_bytes()));
    name.truncate(DIGITS);
    vm.join(place::VM_WORKSPACES).join(name)
}

/// Says that a VM has several workspaces and none was named.
fn several(vm: &VmFolder, records: &[(PathBuf, Workspace)]) -> Error {
    let (name, count) = (vm.name(), records.len());
    Error::usage(format!("VM '{name}' has {count} workspaces: {}", places(records)))
        .hint("'--guest-path DIR' says which, and so does a call from within its checkout")
}

fn places(records: &[(PathBuf, Workspace)]) -> String {
    let all: Vec<String> =
        records.iter().map(|(_, record)| format!("'{}'", record.guest_path)).collect();
    all.join(", ")
}

/// What a workspace is called that is the only one below a home.
const DIR: &str = "repo";

/// Returns where a user's first workspace lies unless somebody says otherwise; `home` is where that user's work
/// does.
fn usual_path(home: &str) -> String {
    below(home, DIR)
}

/// Where a repository goes that nobody named a place for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// Absolute path in the guest.
    pub guest_path: String,
    /// Whose it is, if not the guest's own user's.
    pub user: Option<String>,
}

/// Returns where the repository or directory that `path` is in goes: where it is already, else below `home` as
/// `repo`, or by its own name if there are workspaces there. If `user` is named, only what is that user's counts
/// as there. `is_gone` says of a place whether somebody removed what the guest had there. Both are asked only where
/// the answer depends on them.
pub fn choose(
    vm: &VmFolder,
    path: &Path,
    user: Option<&str>,
    home: impl FnOnce() -> Result<String>,
    is_gone: impl Fn(&str) -> bool,
) -> Result<Place> {
    let user = user.map(ToOwned::to_owned);
    // What cannot go at all is said by who opens it.
    let Ok(root) = root_of(path) else {
        return Ok(Place { guest_path: usual_path(&home()?), user });
    };
    let all = records(vm)?;
    let host_path = root.display().to_string();
    let is_its = |one: &&(PathBuf, Workspace)| {
        one.1.host_path == host_path && (user.is_none() || one.1.user == user)
    };
    let its: Vec<_> = all.iter().filter(is_its).cloned().collect();
    match its.as_slice() {
        [] => {}
        [(_, one)] => {
            return Ok(Place { guest_path: one.guest_path.clone(), user: one.user.clone() });
        }
        _ => {
            return Err(Error::usage(format!(
                "'{}' has {} workspaces in VM '{}': {}",
                root.display(),
                its.len(),
                vm.name(),
                places(&its)
            ))
            .hint("'--guest-path DIR' says which"));
        }
    }
    // One that a program is at work on may be about to come.
    let is_free = |(folder, other): &&(PathBuf, Workspace)| {
        is_gone(&other.guest_path)
            && Lock::exclusive_dir(folder, Duration::ZERO, "the workspace").is_ok()
    };
    let taken = all.iter().filter(|one| !is_free(one));
    let taken: Vec<&str> = taken.map(|(_, other)| other.guest_path.as_str()).collect();
    Ok(Place { guest_path: free(&home()?, own_name(&root), &taken), user })
}

/// Brings what `path` is in to where it goes ([`choose`]), by `bring`. Where another repository came there
/// meanwhile there is another place for this one.
pub fn bring_to_its_place<T>(
    vm: &VmFolder,
    path: &Path,
    user: Option<&str>,
    home: impl Fn() -> Result<String>,
    is_gone: impl Fn(&str) -> bool,
    bring: impl Fn(&Place) -> Result<T>,
) -> Result<T> {
    let mut at = choose(vm, path, user, &home, &is_gone)?;
    for _ in 0..TRIES {
        match bring(&at) {
            Err(error) if error.kind() == Kind::Conflict => {
                let now = choose(vm, path, user, &home, &is_gone)?;
                if now == at {
                    return Err(error);
                }
                at = now;
            }
            done => return done,
        }
    }
    bring(&at)
}

/// Returns whose the workspace at this place is, if it is not the guest's own user's.
pub fn user_of(vm: &VmFolder, guest_path: &str) -> Option<String> {
    crate::read(&folder_at(vm, guest_path)).ok().flatten()?.user
}

/// Returns a place below `home` that is none of those taken, nor in one of them.
fn free(home: &str, name: &str, taken: &[&str]) -> String {
    let is_first = !taken.iter().any(|other| meet(home, other));
    let first = below(home, if is_first { DIR } else { name });
    let others = (2..=MOST + 1).map(|number| format!("{first}-{number}"));
    let mut all = std::iter::once(first.clone()).chain(others);
    // Where the home itself is taken, who makes it says so.
    all.find(|path| !taken.iter().any(|other| meet(path, other))).unwrap_or(first)
}

fn below(home: &str, name: &str) -> String {
    format!("{}/{name}", home.trim_end_matches('/'))
}

/// Returns the name of a directory of the host's as one in a guest: it hides nothing there and is no option.
fn own_name(root: &Path) -> &str {
    root.file_name()
        .and_then(|name| name.to_str())
        .map(|name| name.trim_start_matches(['.', '-']))
        .filter(|name| !name.is_empty() && !name.chars().any(char::is_control))
        .unwrap_or(DIR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    #[test]
    fn a_place_is_free_beside_what_is_there() {
        let free = |name: &str, taken: &[&str]| free("/root", name, taken);
        assert_eq!(free("api", &[]), "/root/repo");
        assert_eq!(free("api", &["/srv/x", "/root2/repo"]), "/root/repo");
        assert_eq!(free("api", &["/root/repo"]), "/root/api");
        assert_eq!(free("repo", &["/root/repo"]), "/root/repo-2");
        assert_eq!(free("api", &["/root/repo", "/root/api"]), "/root/api-2");
        assert_eq!(free("api", &["/root/api/deep", "/root/api-2"]), "/root/api-3");
        // Nothing is free there: it is refused where it is made.
        assert_eq!(free("api", &["/root"]), "/root/api");
    }

    #[test]
    fn a_name_of_the_hosts_hides_nothing_and_is_no_option() {
        for (path, name) in [
            ("/home/a/api", "api"),
            ("/home/a/.dotfiles", "dotfiles"),
            ("/home/a/--force", "force"),
            ("/home/a/My Repo", "My Repo"),
            ("/home/a/...", "repo"),
            ("/home/a/b\nc", "repo"),
            ("/", "repo"),
        ] {
            assert_eq!(own_name(Path::new(path)), name, "{path}");
        }
        assert_eq!(own_name(Path::new(OsStr::from_bytes(b"/a/\xff"))), "repo");
    }
}
