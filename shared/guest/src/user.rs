//! Users of the image, by its own `/etc/passwd` and `/etc/group` (passwd(5), group(5)).

use crate::read_start;
use banger_doc::{Error, Result};
use std::{fs, os::unix::fs::MetadataExt, path::Path};

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
    /// Login shell, if the image knows one.
    pub shell: Option<String>,
}

/// Stands in for a home that is no place for a workspace.
pub const WORKSPACE: &str = "/workspace";

/// The shell of who has no other (passwd(5)).
pub const SHELL: &str = "/bin/sh";

/// The largest number of a user or group, as container engines have it.
const MAX_ID: u32 = i32::MAX as u32;
/// As long as a path may be (limits.h).
const MAX_HOME: usize = 4096;

/// Directories of the system, with all that lies below them: the home of nobody, whatever a list of
/// users says, and no place for another disk.
const SYSTEMS: &[&str] = &[
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "lost+found",
    "nonexistent",
    "ostree",
    "proc",
    "run",
    "sbin",
    "sys",
    "sysroot",
    "tmp",
    "usr",
    "var",
];
/// Directories that hold homes, and are none.
const HOLDERS: &[&str] = &["home", "media", "mnt", "opt", "srv", "var/home"];
/// Where images that are updated whole keep what others have at `/home` and `/root`.
const MOVED: &[&str] = &["var/home", "var/roothome"];

/// Whose a directory is, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Directory {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its mode.
    pub mode: u32,
}

impl Directory {
    fn of(meta: &fs::Metadata) -> Option<Self> {
        let directory = Self { uid: meta.uid(), gid: meta.gid(), mode: meta.mode() };
        meta.is_dir().then_some(directory)
    }
}

impl User {
    /// Returns the directory below which a workspace and caches lie, and where the work disk is: the
    /// user's home. Where that is the root, missing, the system's or not the user's to write to,
    /// [`WORKSPACE`]; root always has a home. `root` is the root directory to look in.
    pub fn place(&self, root: &Path) -> String {
        self.place_in(|path| {
            let root = fs::canonicalize(root).ok()?;
            let real = fs::canonicalize(root.join(path)).ok()?;
            let directory = Directory::of(&fs::metadata(&real).ok()?)?;
            Some((real.strip_prefix(&root).ok()?.to_str()?.to_owned(), directory))
        })
    }

    /// The same, in a root that is no directory of this machine: `look` follows the links of a path without
    /// its first slash, and tells where it leads and whose the directory there is.
    pub fn place_in(&self, look: impl Fn(&str) -> Option<(String, Directory)>) -> String {
        let home = plain(&self.home).filter(|home| !is_systems(home));
        let owns = |home: &str| {
            look(home).is_some_and(|(real, directory)| {
                let real = plain(&real).filter(|real| !is_systems(real));
                real.is_some() && self.may_fill_one(directory)
            })
        };
        match home {
            Some(home) if self.uid == 0 || owns(&home) => format!("/{home}"),
            None if self.uid == 0 => "/root".to_owned(),
            _ => WORKSPACE.to_owned(),
        }
    }

    /// Says whether a path is a directory in which this user may make files, by its mode.
    pub fn may_fill(&self, path: &Path) -> bool {
        let directory = fs::metadata(path).ok().and_then(|meta| Directory::of(&meta));
        directory.is_some_and(|directory| self.may_fill_one(directory))
    }

    fn may_fill_one(&self, Directory { uid, gid, mode }: Directory) -> bool {
        let bits = if uid == self.uid {
            mode >> 6
        } else if self.groups.contains(&gid) {
            mode >> 3
        } else {
            mode
        };
        self.uid == 0 || bits & 0o3 == 0o3
    }

    /// Returns the shell that the list of users names, if it is there and is one: `nologin` and its like
    /// only say that there is none.
    pub fn usable_shell(&self, root: &Path) -> Option<&str> {
        let shell = self.shell.as_deref()?;
        let name = shell.rsplit('/').next().unwrap_or_default();
        let is_program = || {
            fs::metadata(root.join(shell.trim_start_matches('/')))
                .is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
        };
        let is_shell = !matches!(name, "nologin" | "false" | "true" | "sync") && is_program();
        is_shell.then_some(shell)
    }

    /// Says whether an ssh server could let this user in: it has a name and a shell.
    pub fn can_log_in(&self, root: &Path) -> bool {
        self.name.is_some() && self.usable_shell(root).is_some()
    }
}

/// Returns a path without its first slash, if it has no `..` and no oddities.
fn plain(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let is_plain = path.len() < MAX_HOME
        && !path.chars().any(char::is_control)
        && !parts.iter().any(|part| *part == ".." || part.len() > 255);
    is_plain.then(|| parts.join("/"))
}

/// Says whether a path without its first slash is the system's.
fn is_systems(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or_default();
    let is_moved = MOVED.iter().any(|moved| {
        path.strip_prefix(moved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    path.is_empty() || HOLDERS.contains(&path) || (SYSTEMS.contains(&first) && !is_moved)
}

/// Finds the user that an image configuration names: `user`, `uid`, `user:group`, `uid:gid`; root if it
/// names none (OCI image-spec, `config.md`). `root` is the root directory to look in. A line of the
/// lists may be short: what it lacks is zero, or empty, as it is for container engines
/// (github.com/moby/sys, `user`).
pub fn find(root: &Path, wanted: &str) -> Result<User> {
    find_in(&list(&root.join("etc/passwd")), &list(&root.join("etc/group")), wanted)
}

/// The same, in lists that were read already.
pub fn find_in(passwd: &str, groups: &str, wanted: &str) -> Result<User> {
    let (who, group) = match wanted.split_once(':') {
        Some((who, group)) => (who, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let who = if who.is_empty() { "0" } else { who };
    let wanted_uid = digits(who);
    let known = lines(passwd).find(|fields| {
        let uid = fields.get(2).and_then(|uid| digits(uid));
        fields[0] == who || (wanted_uid.is_some() && uid == wanted_uid)
    });
    let mut user = match (&known, wanted_uid) {
        (Some(fields), _) => {
            let field = |at: usize| fields.get(at).copied().filter(|field| !field.is_empty());
            User {
                uid: field(2).map_or(Ok(0), number)?,
                gid: field(3).map_or(Ok(0), number)?,
                groups: Vec::new(),
                name: Some(fields[0].to_owned()).filter(|name| !name.is_empty()),
                home: field(5).unwrap_or("/").to_owned(),
                // A line that ends before it is none to a C library, so nobody logs in by it.
                shell: fields.get(6).map(|_| field(6).unwrap_or(SHELL).to_owned()),
            }
        }
        (None, _) if is_number(who) || who == "root" => {
            let uid = if who == "root" { 0 } else { number(who)? };
            let home = if uid == 0 { "/root" } else { "/" };
            User { uid, gid: 0, groups: Vec::new(), name: None, home: home.into(), shell: None }
        }
        _ => return Err(Error::not_found(format!("the image has no user '{who}'"))),
    };
    if let Some(group) = group {
        let wanted_gid = digits(group);
        let known = lines(groups).find(|fields| {
            let gid = fields.get(2).and_then(|gid| digits(gid));
            fields[0] == group || (wanted_gid.is_some() && gid == wanted_gid)
        });
        user.gid = match known {
            Some(fields) => {
                fields.get(2).filter(|gid| !gid.is_empty()).map_or(Ok(0), |n| number(n))?
            }
            None if is_number(group) => number(group)?,
            None => return Err(Error::not_found(format!("the image has no group '{group}'"))),
        };
    } else if let Some(name) = &user.name {
        let member = |fields: &Vec<&str>| {
            fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
        };
        user.groups = lines(groups).filter(member).filter_map(|fields| digits(fields[2])).collect();
    }
    if !user.groups.contains(&user.gid) {
        user.groups.insert(0, user.gid);
    }
    Ok(user)
}

/// Splits a list into lines and fields; a comment and an empty line are none.
fn lines(list: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = list.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split(':').collect())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads the number of a user or group.
fn digits(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| is_number(text) && *number <= MAX_ID)
}

fn number(text: &str) -> Result<u32> {
    digits(text).ok_or_else(|| {
        Error::failed(format!(
            "'{}' is no number of a user or group, from 0 to {MAX_ID}",
            text.escape_debug()
        ))
    })
}

/// Reads a list of the image; one that is absent or no file is empty.
pub fn list(path: &Path) -> String {
    String::from_utf8_lossy(&read_start(path, MAX_LIST).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt, os::unix::fs::symlink};

    /// A root with these lists.
    fn root(passwd: &str, group: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        fs::write(dir.path().join("etc/group"), group).unwrap();
        dir
    }

    #[test]
    fn users_are_found_by_name_and_number_and_groups_with_them() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(dir.path(), "").unwrap().home, "/root");
        assert_eq!(find(dir.path(), "1000:5").unwrap().gid, 5);
        let dir = root(
            "root:x:0:0::/root:/bin/sh\napp:x:7:8::/srv:\nodd:x:7x:8::/:\n",
            "root:x:0:\nextra:x:20:x,app\nwheel:x:10:\nbad\n",
        );
        let root = dir.path();
        let app = find(root, "app").unwrap();
        assert_eq!((app.uid, app.gid, &app.groups[..], &*app.home), (7, 8, &[8, 20][..], "/srv"));
        assert_eq!(find(root, "7").unwrap(), app);
        assert_eq!(find(root, "app:wheel").unwrap().groups, [10]);
        assert_eq!(find(root, "app:10").unwrap().groups, [10]);
        assert_eq!(find(root, ":998").unwrap().gid, 998);
        assert_eq!(find(root, "app:").unwrap(), app);
        assert_eq!(find(root, "").unwrap().shell.as_deref(), Some("/bin/sh"));
        for bad in ["nobody-here", "app:nothing", "99999999999", "4294967295", "2147483648", "odd"]
        {
            assert!(find(root, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_short_line_lacks_is_zero_or_empty() {
        let dir = root(
            "# app:x:3:3\n\n  root:x:0:0::/root:/bin/sh\nshort:x:10001:10001\nuid:x:12\nname\n\
             empty:x:14:15::",
            "short\nextra:x:7:short\n",
        );
        let root = dir.path();
        let all = |who: &str| {
            let user = find(root, who).unwrap();
            (user.uid, user.gid, user.groups, user.home, user.name.unwrap_or_default())
        };
        let short = (10001, 10001, vec![10001, 7], "/".to_owned(), "short".to_owned());
        assert_eq!(all("short"), short);
        assert_eq!(all("10001"), short);
        assert_eq!(all("uid"), (12, 0, vec![0], "/".into(), "uid".into()));
        assert_eq!(all("12").4, "uid");
        assert_eq!(all("name").0, 0);
        // A line without a number is nobody's by number.
        assert_eq!(all("0").4, "root");
        assert_eq!(all("empty"), (14, 15, vec![15], "/".into(), "empty".into()));
        assert!(find(root, "app").is_err() && find(root, "# app").is_err());
    }

    #[test]
    fn a_pipe_instead_of_a_list_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let mode = nix::sys::stat::Mode::S_IRWXU;
        nix::unistd::mkfifo(&dir.path().join("etc/passwd"), mode).unwrap();
        assert_eq!(find(dir.path(), "5").unwrap().uid, 5);
    }

    #[test]
    fn work_lies_at_home_unless_that_is_no_place_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let uid = nix::unistd::geteuid().as_raw();
        // Somebody who is not root even if the test is: then everything here is another's.
        let (own, other) = if uid == 0 { (0o777, 0o755) } else { (0o755, 0o555) };
        for (path, mode) in [
            ("home/dev", own),
            ("home/locked", other),
            ("var/home/dev", own),
            ("var/lib/db", own),
            ("usr/share/app", own),
            ("app", own),
            ("opt/app", own),
            ("tmp/x", own),
            ("workspace", own),
        ] {
            fs::create_dir_all(root.join(path)).unwrap();
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("../usr/share/app", root.join("home/linked")).unwrap();
        symlink("dev", root.join("home/same")).unwrap();
        symlink("../../../../../../tmp", root.join("home/out")).unwrap();
        let user = |uid: u32, home: &str| User {
            uid,
            gid: 4242,
            groups: vec![4242],
            name: None,
            home: home.into(),
            shell: None,
        };
        let place = |home: &str| user(if uid == 0 { 4242 } else { uid }, home).place(root);
        for home in ["/home/dev", "/app", "/opt/app", "/var/home/dev", "/home/same", "/workspace"] {
            assert_eq!(place(home), home);
        }
        assert_eq!(place("/home//dev/"), "/home/dev");
        for home in [
            "/",
            "",
            "/home",
            "/home/none",
            "/home/locked",
            "/home/linked",
            "/home/out",
            "/opt",
            "/var",
            "/var/lib/db",
            "/usr/share/app",
            "/etc",
            "/nonexistent",
            "/tmp",
            "/tmp/x",
            "/home/../home/dev",
            "/proc/self",
            "/bin",
            "/run/user",
            "/ho\nme",
        ] {
            assert_eq!(place(home), WORKSPACE, "{home:?}");
        }
        // Root's is where it is, or is made.
        for (home, is) in [("/root", "/root"), ("/", "/root"), ("/home/root", "/home/root")] {
            assert_eq!(user(0, home).place(root), is);
        }
    }

    #[test]
    fn who_has_a_name_and_a_shell_can_log_in() {
        let dir = root(
            "a:x:1:1::/:/bin/sh\nb:x:2:2::/:/usr/sbin/nologin\nc:x:3:3::/:/bin/none\nd:x:4:4::/:\ne:x:6:6::/\n",
            "",
        );
        let root = dir.path();
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("usr/sbin")).unwrap();
        for shell in ["bin/sh", "usr/sbin/nologin"] {
            fs::write(root.join(shell), "").unwrap();
            fs::set_permissions(root.join(shell), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let can = |who: &str| find(root, who).unwrap().can_log_in(root);
        assert!(can("a") && can("d"));
        assert!(!can("b") && !can("c") && !can("e") && !can("5"));
    }
}
