//! What the guest's ssh server is given.

use crate::keys::{MAX_KEY, ensure_user_key, line, make_host_key};
use banger_doc::{GuestFile, ImageConfig, Result};
use banger_state::{State, VmFolder, place, read_limited};

/// Part of the document for a guest, and contents of files.
#[derive(Debug, Default)]
pub struct GuestSide {
    /// Lines for `authorized_keys`.
    pub authorized_keys: Vec<String>,
    /// Files to write before the image's init runs.
    pub files: Vec<GuestFile>,
    /// What is in them: a path inside the archive, and bytes.
    pub contents: Vec<(String, Vec<u8>)>,
}

impl GuestSide {
    fn file(&mut self, path: &str, mode: u32, bytes: Vec<u8>) {
        let content = format!("banger/ssh/{}", self.files.len());
        self.files.push(GuestFile { path: path.to_owned(), mode, content: content.clone() });
        self.contents.push((content, bytes));
    }
}

/// Returns what a guest is given, making the keys that are missing.
pub fn guest_side(state: &State, folder: &VmFolder, image: &ImageConfig) -> Result<GuestSide> {
    ensure_user_key(state)?;
    make_host_key(folder.path(), folder.name())?;
    let mut side = GuestSide {
        authorized_keys: vec![line(&state.path(place::SSH_PUBLIC_KEY))?],
        ..GuestSide::default()
    };
    let key = read_limited(&folder.join(place::VM_HOST_KEY), MAX_KEY)?;
    let public = read_limited(&folder.join(place::VM_PUBLIC_HOST_KEY), MAX_KEY)?;
    side.file("/etc/ssh/ssh_host_ed25519_key", 0o600, key);
    side.file("/etc/ssh/ssh_host_ed25519_key.pub", 0o644, public);
    side.file("/etc/ssh/sshd_config.d/10-banger.conf", 0o644, drop_in(image).into_bytes());
    Ok(side)
}

/// What the server is told (sshd_config(5)): keys only, those of banger's own lists too, and the image's
/// environment.
fn drop_in(image: &ImageConfig) -> String {
    let mut text = "# Written by banger at every boot.\n\
         PermitRootLogin prohibit-password\n\
         PubkeyAuthentication yes\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         AuthorizedKeysCommand /bin/cat /run/banger/ssh/%u\n\
         AuthorizedKeysCommandUser root\n\
         HostKey /etc/ssh/ssh_host_ed25519_key\n"
        .to_owned();
    let mut words: Vec<String> = image.env.iter().filter_map(|entry| set_env(entry)).collect();
    // As for commands that need no ssh.
    if !image.env.iter().any(|entry| entry.starts_with("IS_SANDBOX=")) {
        words.push("IS_SANDBOX=1".to_owned());
    }
    // Only the first such line counts.
    text.extend(["SetEnv ", &words.join(" "), "\n"]);
    text
}

/// Quotes a variable; one that a line of configuration cannot hold is left out.
fn set_env(entry: &str) -> Option<String> {
    let (name, value) = entry.split_once('=')?;
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let fits = !value.contains(['"', '\\', '\n', '\r', '\0']) && value.len() < 4096;
    (plain && fits).then(|| format!("\"{name}={value}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_guest_gets_keys_and_the_images_environment() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().join("state")).unwrap();
        let vm = state.path("vms/web");
        fs::create_dir(&vm).unwrap();
        fs::write(vm.join(place::VM_DOCUMENT), "{}").unwrap();
        let folder = state.vm(&"web".parse().unwrap()).unwrap();
        let env = ["PATH=/opt/x bin:/bin", "BAD NAME=1", "Q=say \"hi\"", "none", "TWO=a\nb"];
        let image = ImageConfig { env: env.map(String::from).to_vec(), ..ImageConfig::default() };
        let side = guest_side(&state, &folder, &image).unwrap();
        assert!(side.authorized_keys[0].starts_with("ssh-ed25519 "));
        let at = side.files.iter().position(|file| file.path.ends_with("10-banger.conf")).unwrap();
        let text = String::from_utf8(side.contents[at].1.clone()).unwrap();
        assert!(text.contains("\nPasswordAuthentication no\n"), "{text}");
        assert!(text.ends_with("\nSetEnv \"PATH=/opt/x bin:/bin\" IS_SANDBOX=1\n"), "{text}");
        assert_eq!(side.files[0].mode, 0o600);
        let again = guest_side(&state, &folder, &image).unwrap();
        assert_eq!(again.contents, side.contents);
    }
}
