//! Places below people's homes where engines of containers keep layers without root. A home is full of what its
//! user made of it, so what is missing there is made with the user's rights, and no link leads further.

use crate::{reach, say};
use banger_channel::files::Owner;
use banger_doc::{Context, Result};
use banger_guest::user;
use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// What podman, docker, containerd, buildkit have there.
const PLACES: &[&str] = &[
    ".local/share/containers",
    ".local/share/docker",
    ".local/share/containerd",
    ".local/share/buildkit",
];
/// Users whose homes are looked at are at most so many, from this number on, where people begin, to that of
/// `nobody` (login.defs(5)).
const MOST_HOMES: usize = 16;
const FIRST_PERSON: u32 = 1000;
const LAST_PERSON: u32 = 60_000;

/// Returns the places in the homes that are there, as paths without links.
pub(crate) fn places(root: &Path) -> Vec<PathBuf> {
    let passwd = user::list(&root.join("etc/passwd"));
    let mut places = Vec::new();
    for (uid, gid, home) in people(&passwd) {
        let Some(home) = reach::existing(root, &home).filter(|home| home.is_dir()) else {
            continue;
        };
        let owner = Owner { uid, gid, groups: vec![gid] };
        for name in PLACES {
            places.extend(say::or_warn(place(&home, name, &owner)).flatten());
        }
    }
    places
}

/// Returns a directory below a home, and makes it where it is missing. There is none where a link or a file of
/// the user's is in the way, or where the user may not make it: its programs could not either.
fn place(home: &Path, name: &str, owner: &Owner) -> Result<Option<PathBuf>> {
    let _acting = owner.act()?;
    let mut path = home.to_owned();
    for part in Path::new(name) {
        path.push(part);
        let failed = || format!("cannot make '{}'", path.display());
        let found = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::DirBuilder::new().mode(0o755).create(&path).map(|()| true)
            }
            found => found.map(|meta| meta.is_dir()),
        };
        match found {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
            Err(error) => return Err(error).with_context(failed),
        }
    }
    Ok(Some(path))
}

/// Returns number, group and home of the users of a passwd(5) who are people.
fn people(passwd: &str) -> Vec<(u32, u32, String)> {
    let person = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        let home = fields.get(5)?.trim_end_matches('/');
        let is_person = (FIRST_PERSON..LAST_PERSON).contains(&uid) && home.starts_with('/');
        is_person.then(|| (uid, gid, home.to_owned()))
    };
    let mut people: Vec<_> = passwd.lines().filter_map(person).collect();
    people.sort();
    people.dedup_by(|one, other| one.2 == other.2);
    people.truncate(MOST_HOMES);
    people
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, chown, symlink};

    #[test]
    fn homes_of_people_are_found_and_no_others() {
        let passwd = "root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:\n# note\nshort:x:1001:1001\n\
            app:x:1000:1000:app:/home/app/:/bin/sh\ntwin:x:1002:1002::/home/app:\nbare:x:1003:1003::/:\n\
            nobody:x:65534:65534::/nonexistent:\n";
        assert_eq!(
            people(passwd),
            [(1000, 1000, "/home/app".to_owned()), (1002, 1002, "/home/app".to_owned())][..1]
        );
        let many: Vec<_> = (1000..1100).map(|n| format!("u:x:{n}:{n}::/home/{n}")).collect();
        assert_eq!(people(&many.join("\n")).len(), MOST_HOMES);
    }

    #[test]
    fn a_users_links_lead_nobody_out_of_the_home() {
        let world = tempfile::tempdir().unwrap();
        let root = world.path();
        fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // A home may itself lie behind a link, and its user may be shut out of another's.
        symlink("var/home", root.join("home")).unwrap();
        let homes = root.join("var/home");
        let is_root = nix::unistd::geteuid().is_root();
        for (home, uid) in [("ann", 54_001), ("bob", 54_002), ("eve", 54_003)] {
            fs::create_dir_all(homes.join(home)).unwrap();
            fs::create_dir_all(root.join("etc/units")).unwrap();
            if is_root && home != "bob" {
                chown(homes.join(home), Some(uid), Some(uid)).unwrap();
            }
        }
        let share = homes.join("eve/.local/share");
        fs::create_dir_all(&share).unwrap();
        if is_root {
            chown(&share, Some(54_003), Some(54_003)).unwrap();
        }
        symlink("/etc/units/ssh.service.d", share.join("containers")).unwrap();
        symlink("../../../../../etc/units/missing", share.join("docker")).unwrap();
        symlink("/", share.join("containerd")).unwrap();
        fs::write(share.join("buildkit"), "no folder").unwrap();
        let passwd = "ann:x:54001:54001::/home/ann:\nbob:x:54002:54002::/home/bob:\n\
            eve:x:54003:54003::/home/eve:\nnone:x:54004:54004::/home/none:\n";
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        let found = places(root);
        let anns: Vec<_> = PLACES.iter().map(|name| homes.join("ann").join(name)).collect();
        assert_eq!(found.iter().filter(|path| !path.starts_with(homes.join("bob"))).count(), 4);
        assert_eq!(found[..4], anns);
        if is_root {
            assert_eq!(found.len(), 4);
            for path in [homes.join("ann/.local"), anns[0].clone()] {
                assert_eq!(fs::metadata(path).unwrap().uid(), 54_001);
            }
        }
        assert_eq!(fs::read_dir(root.join("etc/units")).unwrap().count(), 0);
        // So does one on the way there.
        fs::remove_dir_all(homes.join("eve/.local")).unwrap();
        symlink(root.join("etc/units"), homes.join("eve/.local")).unwrap();
        assert!(!places(root).iter().any(|path| path.starts_with(homes.join("eve"))));
        assert_eq!(fs::read_dir(root.join("etc/units")).unwrap().count(), 0);
    }
}
