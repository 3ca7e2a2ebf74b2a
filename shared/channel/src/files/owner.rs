//! Writing with the rights of a user of the guest, whatever that user makes of its own directories
//! meanwhile: the kernel refuses what the user itself could not do.

use banger_doc::{Context, Result};
use nix::{
    errno::Errno,
    libc,
    unistd::{Gid, Uid, getegid, geteuid, getgroups, setfsgid, setfsuid},
};
use std::{
    collections::VecDeque,
    ffi::{CString, OsString},
    fs,
    io::ErrorKind,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, lchown},
    },
    path::{Component, Path, PathBuf},
};

/// As many links as Linux follows.
const MAX_LINKS: u32 = 40;

/// A user of this machine, by numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owner {
    /// Number of the user.
    pub uid: u32,
    /// Number of the first group.
    pub gid: u32,
    /// Numbers of all groups.
    pub groups: Vec<u32>,
}

/// The rights of an [`Owner`] over files, had by this thread alone until it is dropped.
#[derive(Debug)]
pub struct Acting {
    /// The thread's own groups; none if nothing was changed.
    before: Option<Vec<Gid>>,
}

impl Owner {
    /// Says whether there is nobody else to be than who runs this: root, or whoever cannot become
    /// anybody.
    pub fn is_self(&self) -> bool {
        self.uid == 0 || !geteuid().is_root()
    }

    /// Takes the owner's rights over files, and gives up those of root, for this thread (setfsuid(2)).
    pub fn act(&self) -> Result<Acting> {
        if self.is_self() {
            return Ok(Acting { before: None });
        }
        let failed = || format!("cannot act as user {}", self.uid);
        let before = getgroups().with_context(failed)?;
        set_groups(&self.groups.iter().copied().map(Gid::from_raw).collect::<Vec<_>>())
            .with_context(failed)?;
        let acting = Acting { before: Some(before) };
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setfsgid(gid);
        setfsuid(uid);
        // Neither call says whether it was obeyed; an invalid number asks.
        let nobody = (Uid::from_raw(u32::MAX), Gid::from_raw(u32::MAX));
        if (setfsuid(nobody.0), setfsgid(nobody.1)) != (uid, gid) {
            drop(acting);
            return Err(Errno::EPERM).with_context(failed);
        }
        Ok(acting)
    }

    /// Makes a directory and those missing above it, all the owner's. Where the first that is missing
    /// belongs into a directory that the owner may not write to, root makes it, if nobody but root
    /// can change the way there.
    pub fn make_dirs(&self, dir: &Path) -> Result<()> {
        let failed = || format!("cannot make '{}'", dir.display());
        if !self.is_self() {
            let mut first = None;
            let mut there = dir;
            while is_missing(there) {
                first = Some(there);
                there = there.parent().unwrap_or(Path::new("/"));
            }
            if let Some(first) = first.filter(|_| self.needs_root(there)) {
                let made = fs::DirBuilder::new().mode(0o755).create(first);
                made.and_then(|()| lchown(first, Some(self.uid), Some(self.gid)))
                    .with_context(failed)?;
            }
        }
        let _acting = self.act()?;
        fs::create_dir_all(dir).with_context(failed)
    }

    /// Says whether root has to make and may make what belongs into a directory: the owner may not, and
    /// nobody but root can change the way there.
    pub(super) fn needs_root(&self, dir: &Path) -> bool {
        !self.is_self() && is_roots_alone(dir) && !self.may_fill(dir)
    }

    /// Says whether the owner may make files in a directory, as the kernel sees it.
    fn may_fill(&self, dir: &Path) -> bool {
        let Ok(path) = CString::new(dir.as_os_str().as_bytes()) else { return false };
        let Ok(_acting) = self.act() else { return false };
        let mode = libc::W_OK | libc::X_OK;
        // SAFETY: the path is terminated. Not the function of the same name, which in some libraries
        // knows nothing of the rights that were taken.
        let done = unsafe {
            libc::syscall(
                libc::SYS_faccessat2,
                libc::AT_FDCWD,
                path.as_ptr(),
                mode,
                libc::AT_EACCESS,
            )
        };
        done == 0
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if let Some(groups) = self.before.take() {
            setfsuid(geteuid());
            setfsgid(getegid());
            let _ = set_groups(&groups);
        }
    }
}

/// Sets the groups of this thread: the C library's function would set those of all threads.
fn set_groups(groups: &[Gid]) -> nix::Result<()> {
    // SAFETY: a Gid is the number that the kernel reads, and there are as many as said.
    let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    Errno::result(done).map(drop)
}

fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Says whether nobody but root can change what a path leads to: all on the way to it, links and where
/// they lead included, is root's, and nobody else may write there.
pub(super) fn is_roots_alone(path: &Path) -> bool {
    let parts = |path: &Path| -> Vec<OsString> {
        path.components().map(|part| part.as_os_str().to_owned()).collect()
    };
    let mut rest: VecDeque<OsString> = parts(path).into();
    let mut at = PathBuf::from("/");
    let mut links = 0;
    if !path.is_absolute() || !is_roots(&at) {
        return false;
    }
    while let Some(part) = rest.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::Normal(name)) => at.push(name),
            Some(Component::ParentDir) => {
                at.pop();
                continue;
            }
            Some(Component::RootDir) => {
                at = PathBuf::from("/");
                continue;
            }
            _ => continue,
        }
        if !is_roots(&at) {
            return false;
        }
        if let Ok(target) = fs::read_link(&at) {
            links += 1;
            if links > MAX_LINKS {
                return false;
            }
            at.pop();
            for part in parts(&target).into_iter().rev() {
                rest.push_front(part);
            }
        }
    }
    true
}

fn is_roots(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| {
        let is_others = meta.mode() & 0o022 != 0;
        meta.uid() == 0 && (meta.is_symlink() || (meta.is_dir() && !is_others))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Budget, Files, Put, serve_for};
    use banger_doc::Kind;
    use std::{
        os::unix::{
            fs::{PermissionsExt, symlink},
            net::UnixStream,
        },
        thread,
    };

    const DEV: u32 = 54_321;
    const GROUP: u32 = 54_322;

    /// A directory to which nobody but root can change the way, with one of the user's in it; nothing for
    /// who is not root.
    fn world() -> Option<tempfile::TempDir> {
        let dir = geteuid().is_root().then(|| tempfile::tempdir_in("/run").unwrap())?;
        let home = dir.path().join("home");
        for (path, uid) in [(&home, DEV), (&dir.path().join("roots"), 0)] {
            fs::create_dir(path).unwrap();
            lchown(path, Some(uid), Some(uid)).unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Some(dir)
    }

    fn dev() -> Owner {
        Owner { uid: DEV, gid: DEV, groups: vec![DEV, GROUP] }
    }

    fn files(or_root: bool) -> Files<'static> {
        let open = || {
            let (here, there) = UnixStream::pair().context("no pair")?;
            thread::spawn(move || serve_for(there, &|_| Ok(dev())));
            Ok(here)
        };
        Files::new(Budget::new(std::time::Duration::from_mins(5)), open).by("", or_root)
    }

    fn put(files: &Files<'_>, root: &Path, how: Put) -> Result<()> {
        files.put(root.to_str().unwrap(), how, |writer| {
            let mut builder = tar::Builder::new(writer);
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_uid(7);
            header.set_gid(7);
            header.set_mtime(1_000_000_000);
            header.set_size(2);
            builder.append_data(&mut header, "sub/file", &b"x\n"[..]).context("cannot write")?;
            builder.finish().context("cannot write")
        })
    }

    fn owner_of(path: &Path) -> (u32, u32) {
        let meta = fs::symlink_metadata(path).unwrap();
        (meta.uid(), meta.gid())
    }

    #[test]
    fn what_a_user_writes_is_the_users_and_other_threads_stay_root() {
        let Some(world) = world() else { return };
        let home = world.path().join("home");
        let roots = world.path().join("roots/file");
        thread::scope(|scope| {
            // A thread has the rights of who starts it, so this one is there before.
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let other = scope.spawn(|| {
                wait.into_iter().next();
                fs::write(&roots, "")
            });
            let _acting = dev().act().unwrap();
            fs::write(home.join("own"), "").unwrap();
            assert_eq!(fs::write(&roots, "").unwrap_err().kind(), ErrorKind::PermissionDenied);
            drop(go);
            other.join().unwrap().unwrap();
        });
        assert_eq!(owner_of(&home.join("own")), (DEV, DEV));
        fs::write(world.path().join("roots/again"), "").unwrap();
        assert_eq!(owner_of(&world.path().join("roots/again")), (0, 0));
        for (how, repo) in [(Put::Fresh, "a/b/repo"), (Put::Aside, "a/b/repo"), (Put::Into, "")] {
            put(&files(false), &home.join(repo), how).unwrap();
            for path in ["sub", "sub/file"] {
                assert_eq!(owner_of(&home.join(repo).join(path)), (DEV, DEV), "{repo}/{path}");
            }
        }
        assert_eq!(owner_of(&home.join("a/b")), (DEV, DEV));
        assert_eq!(owner_of(&home.join("a/b/repo.before-1/sub")), (DEV, DEV));
    }

    #[test]
    fn a_users_link_leads_nowhere_but_where_the_user_may_write() {
        let Some(world) = world() else { return };
        let (home, roots) = (world.path().join("home"), world.path().join("roots"));
        fs::create_dir(roots.join("sub")).unwrap();
        fs::write(roots.join("sub/file"), "root's").unwrap();
        symlink(&roots, home.join("evil")).unwrap();
        for or_root in [false, true] {
            let files = files(or_root);
            for (how, path) in [
                (Put::Into, "evil"),
                (Put::Within, "evil"),
                (Put::Fresh, "evil/new"),
                (Put::Fresh, "evil/new/deep"),
                (Put::Aside, "evil/sub"),
            ] {
                let error = put(&files, &home.join(path), how).unwrap_err();
                assert!(error.chain().contains("denied"), "{path}: {}", error.chain());
            }
            let evil = home.join("evil");
            let error = files.remove(evil.to_str().unwrap(), &[b"sub/file"]);
            assert_eq!(error.unwrap_err().kind(), Kind::Failed);
        }
        assert_eq!(fs::read_to_string(roots.join("sub/file")).unwrap(), "root's");
        assert_eq!(fs::read_dir(&roots).unwrap().count(), 1);
        // The link itself is the user's to replace.
        put(&files(false), &home.join("evil"), Put::Aside).unwrap();
        assert!(home.join("evil/sub/file").exists() && home.join("evil.before-1").is_symlink());
    }

    #[test]
    fn root_helps_where_only_root_can_change_the_way() {
        let Some(world) = world() else { return };
        let roots = world.path().join("roots");
        for repo in ["repo", "deep/er/repo"] {
            put(&files(false), &roots.join(repo), Put::Fresh).unwrap();
            assert_eq!(owner_of(&roots.join(repo).join("sub/file")), (DEV, DEV), "{repo}");
        }
        assert_eq!((owner_of(&roots), owner_of(&roots.join("deep"))), ((0, 0), (DEV, DEV)));
        put(&files(false), &roots.join("repo"), Put::Aside).unwrap();
        put(&files(false), &roots.join("repo"), Put::Within).unwrap();
        let error = put(&files(false), &roots, Put::Into).unwrap_err();
        assert!(error.chain().contains("denied"), "{}", error.chain());
        // Told to, root writes in its own directories, and what it writes is as the stream says.
        put(&files(true), &roots, Put::Into).unwrap();
        assert_eq!(owner_of(&roots.join("sub/file")), (7, 7));
        put(&files(true), &roots.join("fresh"), Put::Fresh).unwrap();
        assert_eq!(owner_of(&roots.join("fresh/sub")), (0, 0));
        put(&files(true), &world.path().join("home"), Put::Into).unwrap();
        assert_eq!(owner_of(&world.path().join("home/sub/file")), (DEV, DEV));
    }

    #[test]
    fn a_way_is_roots_alone_only_with_all_its_links() {
        let Some(world) = world() else { return };
        let (dir, home) = (world.path(), world.path().join("home"));
        assert!(is_roots_alone(&dir.join("roots")));
        assert!(!is_roots_alone(&home) && !is_roots_alone(Path::new("roots")));
        symlink("roots", dir.join("good")).unwrap();
        symlink("home/../roots", dir.join("by-home")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        symlink("roots", dir.join("theirs")).unwrap();
        lchown(dir.join("theirs"), Some(DEV), Some(DEV)).unwrap();
        assert!(is_roots_alone(&dir.join("good")));
        for bad in ["by-home", "loop", "theirs", "none"] {
            assert!(!is_roots_alone(&dir.join(bad)), "{bad}");
        }
        let open = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(dir.join("roots"), open).unwrap();
        assert!(!is_roots_alone(&dir.join("roots")));
    }
}
