//! Who a user is, by the image's own lists, and where its work lies.

use banger_channel::{control::Account, files::Owner};
use banger_doc::Result;
use banger_guest::{
    place,
    user::{self, User},
};
use std::{fs, path::Path};

/// Answers who a user is; the guest's own, `default`, if none is asked for.
pub(crate) fn of(asked: Option<&str>, default: &str) -> Result<Account> {
    let user = find(asked.unwrap_or_default(), default)?;
    let place = place_of(&user, default);
    let can_log_in = user.can_log_in(Path::new("/"));
    let User { name, uid, gid, home, .. } = user;
    Ok(Account { name, uid, gid, home, place, can_log_in })
}

/// Returns who is to write.
pub(crate) fn owner(asked: &str, default: &str) -> Result<Owner> {
    let User { uid, gid, groups, .. } = find(asked, default)?;
    Ok(Owner { uid, gid, groups })
}

fn find(asked: &str, default: &str) -> Result<User> {
    user::find(Path::new("/"), if asked.is_empty() { default } else { asked })
}

/// Returns where a user's work lies: where the work disk is, if it is the guest's own user.
pub(crate) fn place_of(user: &User, default: &str) -> String {
    let is_own = || find("", default).is_ok_and(|own| own.uid == user.uid);
    work_disk().filter(|_| is_own()).unwrap_or_else(|| user.place(Path::new("/")))
}

/// Returns where guest-init has mounted the work disk.
pub(crate) fn work_disk() -> Option<String> {
    fs::read_to_string(place::PLACE).ok().filter(|place| place.starts_with('/'))
}
