//! Hearing of what changes below a directory and in its `.git` (inotify(7)).

use crate::{
    host::{Dir, HostGit, Sort},
    prepare::ready::UNFINISHED,
};
use banger_doc::{Context, Error, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
    time::{Duration, Instant},
};

/// How many directories a user may watch.
const LIMIT: &str = "/proc/sys/fs/inotify/max_user_watches";
/// The most directories of references.
const MAX_REF_DIRS: usize = 50_000;

/// Files of a `.git` by which a prepare sends something else, beside those of an unfinished merge.
const OF_GIT: &[&str] = &["HEAD", "index", "packed-refs", "config", "config.worktree", "shallow"];

/// What was heard since somebody last looked.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Paths at which something may have changed.
    pub(super) changed: BTreeSet<Vec<u8>>,
    /// Files that somebody writes to, and when that was last heard.
    pub(super) written: BTreeMap<Vec<u8>, Instant>,
    /// Directories that came or went, with all below them.
    pub(super) dirs: BTreeSet<Vec<u8>>,
    /// Whether git's own files changed.
    pub(super) git: bool,
    /// Whether there was too much to hear.
    pub(super) overflow: bool,
    /// Whether the root was moved or removed.
    pub(super) root_moved: bool,
}

impl Heard {
    /// Says whether files of the tree may have changed.
    pub(super) fn has_files(&self) -> bool {
        self.overflow || !self.changed.is_empty() || !self.dirs.is_empty()
    }
}

#[derive(Clone, Debug)]
enum Place {
    /// A directory of the tree, by its path.
    Tree(Vec<u8>),
    /// The directory of a `.git`, of which single files count.
    Git,
    /// A directory of which everything counts.
    All(Dir, Vec<u8>),
}

/// What listens.
pub(super) struct Listener {
    inotify: Inotify,
    places: HashMap<WatchDescriptor, Place>,
    dirs: BTreeMap<Vec<u8>, WatchDescriptor>,
    /// How many directories there are of which everything counts: mostly those of references.
    ref_dirs: usize,
}

impl Listener {
    pub(super) fn new() -> Result<Self> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Inotify::init(flags).map_err(|errno| match errno {
            Errno::EMFILE => Error::unavailable("no more programs of this user may watch files")
                .hint("'sudo sysctl fs.inotify.max_user_instances=1024' allows more; 'sysctl fs.inotify' shows how many now"),
            errno => Error::failed("cannot watch for changes").because(errno),
        })?;
        Ok(Self { inotify, places: HashMap::new(), dirs: BTreeMap::new(), ref_dirs: 0 })
    }

    /// Returns how many directories of the tree are listened to.
    pub(super) fn count(&self) -> usize {
        self.dirs.len()
    }

    /// Begins to listen to directories of the tree; returns those that are new to it, and leaves out what is
    /// not there.
    pub(super) fn add(&mut self, root: &Dir, dirs: &BTreeSet<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let mut new = Vec::new();
        for path in dirs {
            if self.dirs.contains_key(path) {
                continue;
            }
            // Through no link, wherever a path leads by now.
            let Ok(dir) = root.dir(path) else { continue };
            let flags = AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MOVED_FROM
                | AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_CLOSE_WRITE
                | AddWatchFlags::IN_MODIFY
                | AddWatchFlags::IN_ATTRIB
                | AddWatchFlags::IN_MOVE_SELF
                | AddWatchFlags::IN_DELETE_SELF;
            let needed = dirs.len();
            if let Some(wd) = self.watch(&dir, flags, needed)? {
                // One directory under two names is the later one.
                if let Some(Place::Tree(old)) = self.places.insert(wd, Place::Tree(path.clone())) {
                    self.dirs.remove(&old);
                }
                self.dirs.insert(path.clone(), wd);
                new.push(path.clone());
            }
        }
        Ok(new)
    }

    /// Begins to listen to what a repository says of itself.
    pub(super) fn add_git(&mut self, host: &HostGit) -> Result<()> {
        for dir in [&host.git, &host.common] {
            if let Some(wd) = self.watch(dir, of_git(), 1)? {
                self.places.insert(wd, Place::Git);
            }
        }
        for (dir, name) in [(&host.git, "info"), (&host.common, "info"), (&host.common, "reftable")]
        {
            self.add_all(dir, name.as_bytes())?;
        }
        self.add_refs(&host.common, b"refs".to_vec())
    }

    fn add_refs(&mut self, common: &Dir, first: Vec<u8>) -> Result<()> {
        let mut waiting = vec![first];
        while let Some(path) = waiting.pop() {
            if self.ref_dirs >= MAX_REF_DIRS || !self.add_all(common, &path)? {
                continue;
            }
            for (name, sort) in common.list(&path, usize::MAX).unwrap_or_default() {
                if sort == Sort::Dir {
                    waiting.push([&path, &b"/"[..], &name].concat());
                }
            }
        }
        Ok(())
    }

    fn add_all(&mut self, dir: &Dir, path: &[u8]) -> Result<bool> {
        let Ok(found) = dir.dir(path) else { return Ok(false) };
        let Some(wd) = self.watch(&found, of_git(), 1)? else { return Ok(false) };
        // A repository is added again after each prepare.
        let is_new = self.places.insert(wd, Place::All(dir.clone(), path.to_vec())).is_none();
        self.ref_dirs += usize::from(is_new);
        Ok(true)
    }

    fn watch(
        &self,
        dir: &Dir,
        flags: AddWatchFlags,
        needed: usize,
    ) -> Result<Option<WatchDescriptor>> {
        match self.inotify.add_watch(&dir.itself(), flags | AddWatchFlags::IN_ONLYDIR) {
            Ok(wd) => Ok(Some(wd)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => Ok(None),
            Err(Errno::ENOSPC) => Err(too_many(needed.max(self.places.len()))),
            Err(errno) => {
                Err(errno).with_context(|| format!("cannot watch '{}'", dir.path().display()))
            }
        }
    }

    /// Forgets a directory that is gone from its place, and all below it.
    fn forget(&mut self, dir: &[u8]) {
        let inside = [dir, b"/"].concat();
        let below = self.dirs.range(dir.to_vec()..);
        let gone: Vec<_> = below
            .take_while(|(path, _)| path.starts_with(dir))
            .filter(|(path, _)| *path == dir || path.starts_with(&inside))
            .map(|(path, wd)| (path.clone(), *wd))
            .collect();
        for (path, wd) in gone {
            self.dirs.remove(&path);
            self.places.remove(&wd);
            // The kernel has done so where the directory itself is gone.
            let _ = self.inotify.rm_watch(wd);
        }
    }

    /// Waits until there is something to hear, or until a signal came; says whether there is.
    pub(super) fn wait(&self, limit: Duration) -> Result<bool> {
        let timeout = PollTimeout::try_from(limit.as_millis()).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => Ok(false),
            Ok(_) => Ok(true),
            Err(errno) => Err(errno).context("cannot wait for changes"),
        }
    }

    /// Adds what there is to hear; says whether any of it matters.
    pub(super) fn hear(&mut self, heard: &mut Heard) -> Result<bool> {
        let mut matters = false;
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        matters |= self.take(&event, heard)?;
                    }
                }
                Err(Errno::EAGAIN) => return Ok(matters),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("cannot read what changed"),
            }
        }
    }

    fn take(&mut self, event: &InotifyEvent, heard: &mut Heard) -> Result<bool> {
        let is = |flag| event.mask.contains(flag);
        if is(AddWatchFlags::IN_Q_OVERFLOW) {
            (heard.overflow, heard.git) = (true, true);
            return Ok(true);
        }
        let Some(place) = self.places.get(&event.wd).cloned() else { return Ok(false) };
        if is(AddWatchFlags::IN_IGNORED) {
            self.places.remove(&event.wd);
            match place {
                Place::Tree(path) if self.dirs.get(&path) == Some(&event.wd) => {
                    self.dirs.remove(&path);
                }
                Place::All(..) => self.ref_dirs = self.ref_dirs.saturating_sub(1),
                _ => {}
            }
            return Ok(false);
        }
        let name = event.name.as_ref().map_or(&b""[..], |name| name.as_bytes());
        match place {
            Place::Tree(dir) if name.is_empty() => {
                let moved = AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
                let is_moved = dir.is_empty() && event.mask.intersects(moved);
                heard.root_moved |= is_moved;
                Ok(is_moved)
            }
            Place::Tree(dir) => {
                let path =
                    if dir.is_empty() { name.to_vec() } else { [&dir, &b"/"[..], name].concat() };
                if dir.is_empty() && name == b".git" {
                    return Ok(false);
                }
                if is(AddWatchFlags::IN_ISDIR) {
                    let came = AddWatchFlags::IN_CREATE
                        | AddWatchFlags::IN_MOVED_TO
                        | AddWatchFlags::IN_MOVED_FROM
                        | AddWatchFlags::IN_DELETE;
                    if !event.mask.intersects(came) {
                        return Ok(false);
                    }
                    self.forget(&path);
                    heard.changed.insert(path.clone());
                    heard.dirs.insert(path);
                } else if is(AddWatchFlags::IN_MODIFY) {
                    if !heard.changed.contains(&path) {
                        heard.written.insert(path, Instant::now());
                    }
                    return Ok(false);
                } else {
                    heard.written.remove(&path);
                    heard.changed.insert(path);
                }
                Ok(true)
            }
            Place::Git => {
                let counts = OF_GIT.iter().chain(UNFINISHED).any(|known| known.as_bytes() == name);
                heard.git |= counts;
                Ok(counts)
            }
            Place::All(dir, path) => {
                if name.is_empty() || name.ends_with(b".lock") {
                    return Ok(false);
                }
                if is(AddWatchFlags::IN_ISDIR) && path.starts_with(b"refs") {
                    self.add_refs(&dir, [&path, &b"/"[..], name].concat())?;
                }
                heard.git = true;
                Ok(true)
            }
        }
    }
}

fn of_git() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CLOSE_WRITE
}

fn too_many(needed: usize) -> Error {
    let most = banger_state::read_limited(Path::new(LIMIT), 100).unwrap_or_default();
    let most: usize = String::from_utf8_lossy(&most).trim().parse().unwrap_or_default();
    let asked = (needed * 2).max(most * 2).max(524_288).next_power_of_two();
    Error::unavailable(format!(
        "cannot watch {needed} directories: this user may watch {most}, editors and other programs included"
    ))
    .hint(format!(
        "'sudo sysctl fs.inotify.max_user_watches={asked}' allows more until the next boot, a file in '/etc/sysctl.d' for ever; \
         a watch takes about 1 KiB of memory"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::source::Source;
    use std::fs;

    #[test]
    fn directories_of_references_count_once_and_as_long_as_they_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let refs = root.join(".git/refs");
        fs::create_dir_all(root.join(".git/objects")).unwrap();
        fs::create_dir_all(refs.join("heads")).unwrap();
        fs::write(root.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(root.join(".git/config"), "[core]\n\trepositoryformatversion = 0\n").unwrap();
        let Source::Repository(repository) = Source::open(&root, &[]).unwrap() else {
            panic!("it is a repository")
        };
        let mut listener = Listener::new().unwrap();
        let mut heard = Heard::default();
        for _ in 0..3 {
            listener.add_git(&repository.host).unwrap();
            assert_eq!(listener.ref_dirs, 2);
        }
        fs::create_dir_all(refs.join("heads/a/b")).unwrap();
        listener.hear(&mut heard).unwrap();
        assert_eq!((listener.ref_dirs, heard.git), (4, true));
        fs::remove_dir_all(refs.join("heads/a")).unwrap();
        listener.hear(&mut heard).unwrap();
        assert_eq!(listener.ref_dirs, 2);
    }
}
