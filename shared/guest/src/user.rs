//! Users of the image, by its own `/etc/passwd` and `/etc/group` (passwd(5), group(5)).

use banger_doc::{Error, Result};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// No image's list of users is larger.
const MAX_LIST: u64 = 4 << 20;

/// Whom a process runs as.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// Number of the user.
    pub uid: u32,
    /// Number of the first group.
    pub gid: u32,
    /// Numbers of all groups.
    pub groups: Vec<u32>,
    /// Name, if the image knows one.
    pub name: Option<String>,
    /// Home directory.
    pub home: String,
    /// Login shell, if the image names one.
    pub shell: Option<String>,
}

/// Finds the user that an image configuration names: `user`, `uid`, `user:group`, `uid:gid`; root if it
/// names none (OCI image-spec, `config.md`). `root` is the root directory to look in.
pub fn find(root: &Path, wanted: &str) -> Result<User> {
    let (who, group) = match wanted.split_once(':') {
        Some((who, group)) => (who, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let who = if who.is_empty() { "0" } else { who };
    let passwd = list(&root.join("etc/passwd"));
    let groups = list(&root.join("etc/group"));
    let known = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 6)
        .find(|fields| fields[0] == who || (is_number(who) && fields[2] == who));
    let mut user = match &known {
        Some(fields) => User {
            uid: number(fields[2])?,
            gid: number(fields[3])?,
            groups: Vec::new(),
            name: Some(fields[0].to_owned()),
            home: if fields[5].is_empty() { "/" } else { fields[5] }.to_owned(),
            shell: fields.get(6).filter(|shell| !shell.is_empty()).map(|&shell| shell.to_owned()),
        },
        None if is_number(who) || who == "root" => {
            let uid = if who == "root" { 0 } else { number(who)? };
            let home = if uid == 0 { "/root" } else { "/" };
            User { uid, gid: 0, groups: Vec::new(), name: None, home: home.into(), shell: None }
        }
        None => return Err(Error::not_found(format!("the image has no user '{who}'"))),
    };
    let entries: Vec<Vec<&str>> = groups
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 3)
        .collect();
    if let Some(group) = group {
        user.gid = match entries.iter().find(|fields| fields[0] == group) {
            Some(fields) => number(fields[2])?,
            None if is_number(group) => number(group)?,
            None => return Err(Error::not_found(format!("the image has no group '{group}'"))),
        };
    } else if let Some(name) = &user.name {
        let member = |fields: &&Vec<&str>| {
            fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
        };
        user.groups = entries.iter().filter(member).filter_map(|f| f[2].parse().ok()).collect();
    }
    if !user.groups.contains(&user.gid) {
        user.groups.insert(0, user.gid);
    }
    Ok(user)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn number(text: &str) -> Result<u32> {
    text.parse().map_err(|_| Error::failed(format!("'{text}' is no number of a user or group")))
}

/// Reads a list of the image; one that is absent or no file is empty.
fn list(path: &PathBuf) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(MAX_LIST).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn users_are_found_by_name_and_number_and_groups_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(find(root, "").unwrap().home, "/root");
        assert_eq!(find(root, "1000:5").unwrap().gid, 5);
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:7:8::/srv:\nbad\n")
            .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nextra:x:20:x,app\nwheel:x:10:\n").unwrap();
        let app = find(root, "app").unwrap();
        assert_eq!((app.uid, app.gid, &app.groups[..], &*app.home), (7, 8, &[8, 20][..], "/srv"));
        assert_eq!(find(root, "7").unwrap(), app);
        assert_eq!(find(root, "app:wheel").unwrap().groups, [10]);
        assert_eq!(find(root, "").unwrap().shell.as_deref(), Some("/bin/sh"));
        for bad in ["nobody-here", "app:nothing", "99999999999"] {
            assert!(find(root, bad).is_err(), "{bad}");
        }
    }
}
