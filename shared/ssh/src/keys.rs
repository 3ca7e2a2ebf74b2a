//! Keys, made by ssh-keygen(1).

use crate::SUFFIX;
use banger_doc::{Context, Error, Name, Result};
use banger_state::{Lock, State, VmFolder, place, read_limited, replace};
use banger_tree::remove_tree_if_there;
use std::{
    fs::{self, DirBuilder},
    io::ErrorKind,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Longer files hold no key of ours.
pub(crate) const MAX_KEY: u64 = 16 << 10;
/// How long another program may take to make banger's key.
const LOCK_LIMIT: Duration = Duration::from_secs(20);

/// Returns the path of banger's own private key, whether it is there or not.
pub fn user_key(state: &State) -> PathBuf {
    state.path(place::SSH_KEY)
}

/// Returns the path of banger's own private key, which is made if it is missing.
pub fn ensure_user_key(state: &State) -> Result<PathBuf> {
    let key = user_key(state);
    let public = state.path(place::SSH_PUBLIC_KEY);
    if key.is_file() && public.is_file() {
        return Ok(key);
    }
    let dir = state.path(place::SSH);
    let _lock = Lock::exclusive_dir(&dir, LOCK_LIMIT, "the folder of ssh keys")?;
    if key.is_file() && public.is_file() {
        return Ok(key);
    }
    let new = dir.join(".new-key");
    remove_tree_if_there(&new).with_context(|| format!("cannot remove '{}'", new.display()))?;
    make_dir(&new)?;
    make(&new.join("key"), "banger")?;
    // The public key comes last: with both there, both belong together.
    let _ = fs::remove_file(&public);
    let publish = || -> std::io::Result<()> {
        fs::rename(new.join("key"), &key)?;
        fs::rename(new.join("key.pub"), &public)?;
        fs::remove_dir(&new)
    };
    publish().with_context(|| format!("cannot write '{}'", key.display()))?;
    Ok(key)
}

/// Makes the host key of a VM in its folder, which may be one nobody sees yet. A key that is there
/// already is kept.
pub fn make_host_key(folder: &Path, vm: &Name) -> Result<()> {
    let known = folder.join(place::VM_KNOWN_HOST);
    if known.is_file() {
        return Ok(());
    }
    make_dir(&folder.join(place::VM_SSH))?;
    let key = folder.join(place::VM_HOST_KEY);
    let public = folder.join(place::VM_PUBLIC_HOST_KEY);
    for file in [&key, &public] {
        let _ = fs::remove_file(file);
    }
    make(&key, &host_name(vm))?;
    let text = line(&public)?;
    // Written last, so with it all is there.
    replace(&known, format!("{} {text}\n", host_name(vm)).as_bytes())
}

/// Returns what a VM is called where a host name is wanted.
pub fn host_name(vm: &Name) -> String {
    format!("{vm}{SUFFIX}")
}

/// Returns the line of known_hosts (sshd(8)) that a VM is known by.
pub fn known_host(folder: &VmFolder) -> Result<String> {
    let path = folder.join(place::VM_KNOWN_HOST);
    if !path.is_file() {
        return Err(Error::not_found(format!("VM '{}' has no host key", folder.name()))
            .hint(format!("'banger vm restart {}' gives it one", folder.name())));
    }
    line(&path)
}

/// Reads a file of one line.
pub(crate) fn line(path: &Path) -> Result<String> {
    let bytes = read_limited(path, MAX_KEY)?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    if text.is_empty() || text.contains('\n') {
        return Err(Error::failed(format!("'{}' does not hold one line", path.display())));
    }
    Ok(text)
}

fn make_dir(dir: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.with_context(|| format!("cannot make '{}'", dir.display())),
    }
}

fn make(path: &Path, comment: &str) -> Result<()> {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| {
        Error::unavailable("cannot run 'ssh-keygen'")
            .because(error)
            .hint("install an ssh client (Debian, Ubuntu: openssh-client; Fedora: openssh-clients)")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let failed = format!("cannot make the key '{}'", path.display());
    // Both ssh and ssh-keygen refuse whoever has no name on this host, as in many containers.
    if words.contains("No user exists for uid") {
        return Err(Error::unavailable(failed)
            .because(std::io::Error::other(words))
            .hint("ssh needs a line for this user in /etc/passwd; all else works without"));
    }
    Err(Error::failed(failed).because(std::io::Error::other(words)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn banger_has_one_key_whoever_asks_first() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().join("state")).unwrap();
        let keys: Vec<PathBuf> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| ensure_user_key(&state).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let public = line(&state.path(place::SSH_PUBLIC_KEY)).unwrap();
        assert!(public.starts_with("ssh-ed25519 ") && public.ends_with(" banger"), "{public}");
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(fs::metadata(&keys[0]).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read(&keys[0]).unwrap();
        fs::create_dir(state.path("ssh/.new-key")).unwrap();
        ensure_user_key(&state).unwrap();
        assert_eq!(fs::read(&keys[0]).unwrap(), before);
    }

    #[test]
    fn a_host_key_is_made_once_and_known_by_the_vms_name() {
        let dir = tempfile::tempdir().unwrap();
        let vm: Name = "web".parse().unwrap();
        // What a killed program may have left.
        fs::create_dir(dir.path().join("ssh")).unwrap();
        fs::write(dir.path().join(place::VM_HOST_KEY), "half").unwrap();
        make_host_key(dir.path(), &vm).unwrap();
        let known = line(&dir.path().join(place::VM_KNOWN_HOST)).unwrap();
        assert!(known.starts_with("web.vm ssh-ed25519 AAAA"), "{known}");
        make_host_key(dir.path(), &vm).unwrap();
        assert_eq!(line(&dir.path().join(place::VM_KNOWN_HOST)).unwrap(), known);
    }
}
