//! The guest's user, and where that user's work lies.

use crate::{copy, reach, say};
use banger_channel::files::Owner;
use banger_doc::{Context, Guest, Result};
use banger_guest::{
    place,
    user::{self, User, WORKSPACE},
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

/// Notes on the work disk at which directory it lies, as an extended attribute: a home that is made or
/// goes later moves nothing.
const LIES_AT: &str = "trusted.banger.place";
/// Where a work disk lies that does not say.
const USUAL: &str = "/root";

/// The guest's user, and the directory of its work.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) user: User,
    /// Where the work disk lies.
    pub(crate) place: String,
}

impl Home {
    /// Finds the guest's user, root if the image has nobody of that name, and where its work lies.
    /// `is_seeded` says whether the work disk holds something already.
    pub(crate) fn choose(guest: &Guest, is_seeded: bool) -> Self {
        let root = Path::new("/");
        let wanted = guest.config.user.as_deref().unwrap_or_default();
        let found = user::find(root, wanted).or_else(|error| {
            say::warn(&error.chain());
            user::find(root, "0")
        });
        let user = found.unwrap_or_else(|_| User {
            uid: 0,
            gid: 0,
            groups: vec![0],
            name: None,
            home: USUAL.to_owned(),
            shell: None,
        });
        let noted = copy::attribute_of(Path::new(place::WORK), LIES_AT);
        let noted = noted.and_then(|bytes| String::from_utf8(bytes).ok());
        let noted = noted.filter(|path| path.starts_with('/') && path.len() > 1);
        let place = match noted {
            Some(noted) => noted,
            None if is_seeded => USUAL.to_owned(),
            None => user.place(root),
        };
        Self { user, place }
    }

    /// Says where the work lies, for the agent.
    pub(crate) fn announce(&self) {
        say::or_warn(
            fs::write(place::PLACE, &self.place).context("cannot say where the work lies"),
        );
    }

    /// Makes the directory where it is missing, and notes where the disk lies. Returns it without links: they
    /// may lead to where there is nothing yet.
    pub(crate) fn make(&self) -> Result<PathBuf> {
        let path = Path::new(&self.place);
        let failed = || format!("cannot make '{}'", self.place);
        say::or_warn(copy::set_attribute(Path::new(place::WORK), LIES_AT, self.place.as_bytes()));
        let is_there = path.is_dir();
        if !is_there && self.place == WORKSPACE {
            // What is no directory, a link to nowhere too, gives way.
            let _ = fs::remove_file(path);
        }
        let mode = if self.user.uid == 0 { 0o700 } else { 0o755 };
        let real = reach::directory(Path::new("/"), &self.place, mode)?;
        if !is_there {
            chown(&real, Some(self.user.uid), Some(self.user.gid)).with_context(failed)?;
        }
        Ok(real)
    }

    /// Gives a directory that stands in for a home to the user, if it is another's.
    pub(crate) fn give(&self, dir: &Path) -> Result<()> {
        let failed = || format!("cannot give '{}' to its user", self.place);
        if self.user.may_fill(dir) {
            return Ok(());
        }
        chown(dir, Some(self.user.uid), Some(self.user.gid)).with_context(failed)?;
        let mode = fs::metadata(dir).with_context(failed)?.mode() & 0o7777;
        fs::set_permissions(dir, Permissions::from_mode(mode | 0o700)).with_context(failed)
    }

    /// Returns who writes what is the user's.
    pub(crate) fn owner(&self) -> Owner {
        let User { uid, gid, groups, .. } = self.user.clone();
        Owner { uid, gid, groups }
    }
}
