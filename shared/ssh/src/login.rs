//! Whom one logs in as: the guest's own user, where a server could let it in.

use crate::host_name;
use banger_channel::control::{Account, account};
use banger_doc::{Context, Name, Result};
use banger_state::{VmFolder, place, replace};
use std::{fs, io::ErrorKind, path::Path, time::Duration};

/// Whom one logs in as.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// Why it is not the guest's own user, in words.
    pub instead: Option<String>,
}

/// How long the guest's agent may take to say who its user is: it has to have the image's root for that.
const ASK_LIMIT: Duration = Duration::from_secs(30);

impl Login {
    /// Asks a running VM. An agent that does not answer is said by whoever needs it next.
    pub fn ask(folder: &VmFolder) -> Self {
        let asked = folder
            .short_path(place::VM_CHANNEL)
            .and_then(|(_dir, channel)| account(&channel, None, ASK_LIMIT));
        let unknown = Self { user: "root".to_owned(), instead: None };
        asked.map_or(unknown, |account| Self::of(&account))
    }

    /// Returns whom a guest's server can let in: the guest's own user, or else root.
    pub fn of(account: &Account) -> Self {
        let root = |why: String| Self { user: "root".to_owned(), instead: Some(why) };
        match &account.name {
            Some(name) if account.can_log_in => Self { user: name.clone(), instead: None },
            _ if account.uid == 0 => Self { user: "root".to_owned(), instead: None },
            Some(name) => root(format!("user '{name}' of the guest has no shell to log in with")),
            None => root(format!("user {} of the guest has no name in /etc/passwd", account.uid)),
        }
    }
}

/// Says whether ssh takes the right user before a guest has said who that is: an earlier run has noted it, or
/// it is root, whom ssh takes where nothing is noted.
pub fn is_noted(folder: &Path, user: Option<&str>) -> bool {
    let name = user.unwrap_or_default().split(':').next().unwrap_or_default();
    matches!(name, "" | "0" | "root") || folder.join(place::VM_SSH_LOGIN).exists()
}

/// Writes down in the folder of a VM that has just come up whom ssh logs in
/// as, by what its agent says of its user. Where that cannot be told, nothing is there, and ssh takes root.
pub fn note_login(folder: &Path, vm: &Name, account: Result<Account>) -> Result<()> {
    let path = folder.join(place::VM_SSH_LOGIN);
    let login = account.map(|account| Login::of(&account));
    let said = || format!("cannot write '{}'", path.display());
    match login {
        Ok(login) => {
            let text = format!("Host {}\n    User {}\n", host_name(vm), login.user);
            // At nearly every start it is what it was: then no disk has to be waited for.
            if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
                return Ok(());
            }
            replace(&path, text.as_bytes()).with_context(said)
        }
        Err(error) => match fs::remove_file(&path) {
            Err(failed) if failed.kind() != ErrorKind::NotFound => Err(failed).with_context(said),
            _ => Err(error).context("cannot tell whom ssh is to log in as; it takes root"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_user_that_no_run_has_noted_is_to_be_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        for root in [None, Some(""), Some("root"), Some("0"), Some("0:0"), Some("root:wheel")] {
            assert!(is_noted(folder.path(), root), "{root:?}");
        }
        for other in [Some("dev"), Some("1000"), Some("dev:root"), Some("rooty")] {
            assert!(!is_noted(folder.path(), other), "{other:?}");
        }
        fs::create_dir(folder.path().join("ssh")).unwrap();
        fs::write(folder.path().join(place::VM_SSH_LOGIN), "x").unwrap();
        assert!(is_noted(folder.path(), Some("dev")));
    }

    #[test]
    fn one_logs_in_as_the_guests_user_or_as_root() {
        let account = |name: Option<&str>, uid, can_log_in| Account {
            name: name.map(ToOwned::to_owned),
            uid,
            gid: uid,
            home: "/".into(),
            place: "/workspace".into(),
            can_log_in,
        };
        let login = |name, uid, can| Login::of(&account(name, uid, can));
        assert_eq!(login(Some("dev"), 1000, true), Login { user: "dev".into(), instead: None });
        for (name, words) in
            [(Some("app"), "'app' of the guest has no shell"), (None, "user 10001")]
        {
            let login = login(name, 10_001, false);
            assert_eq!(login.user, "root");
            assert!(login.instead.unwrap().contains(words));
        }
        // Root's shell is root's affair.
        assert_eq!(login(Some("root"), 0, false).instead, None);
        assert_eq!(login(None, 0, false).user, "root");
    }
}
