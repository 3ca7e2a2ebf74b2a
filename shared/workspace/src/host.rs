//! A repository of the host's, which somebody else may have written: its directories are held open, and
//! every file in them is read through one function.

pub(crate) mod attributes;
mod copy;
pub(crate) mod include;
pub(crate) mod index;
pub(crate) mod refs;
pub(crate) mod remotes;
pub(crate) mod source;
pub(crate) mod tools;
pub(crate) mod unit;
pub(crate) mod walk;

use crate::{git::is_oid, names::is_ref_name};
use banger_doc::{Context, Error, Result, shell_word};
use nix::{
    dir,
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat},
    sys::stat::{FileStat, SFlag, fstat},
};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{ErrorKind, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// The longest text that says where another directory lies.
const MAX_PLACE: u64 = 8192;
/// The most entries of all directories of objects together.
const MAX_OBJECTS: usize = 20_000_000;
/// Alternates of alternates deeper than this are refused; git itself follows five.
const MAX_ALTERNATES: usize = 5;

/// What sort of thing lies at a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sort {
    File,
    Dir,
    Link,
    /// A pipe, a socket, a device.
    Other,
}

/// A directory that is held open. What lies below it is opened through it alone.
#[derive(Clone, Debug)]
pub(crate) struct Dir {
    fd: Arc<OwnedFd>,
    path: Arc<Path>,
}

impl Dir {
    /// Opens a directory by a path that leads through no link.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let said = || format!("cannot open '{}'", path.display());
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let fd = openat2(nix::fcntl::AT_FDCWD, path, how)
            .map_err(std::io::Error::from)
            .with_context(said)?;
        Ok(Self { fd: Arc::new(fd), path: path.into() })
    }

    /// Returns where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where something below it lies.
    pub(crate) fn join(&self, below: &[u8]) -> PathBuf {
        match below {
            b"" => self.path.to_path_buf(),
            below => self.path.join(OsStr::from_bytes(below)),
        }
    }

    /// The one way to what lies below: no link is followed, and no pipe is waited for.
    fn at(&self, below: &[u8], flags: OFlag) -> std::io::Result<OwnedFd> {
        let mut flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        if !flags.contains(OFlag::O_PATH) {
            flags |= OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        }
        let how = OpenHow::new().flags(flags).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
        let below: &[u8] = if below.is_empty() { b"." } else { below };
        Ok(openat2(&self.fd, below, how)?)
    }

    /// Says what lies below, if anything does.
    pub(crate) fn stat(&self, below: &[u8]) -> std::io::Result<Option<FileStat>> {
        match self.at(below, OFlag::O_PATH) {
            Ok(fd) => Ok(Some(fstat(fd)?)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says what sort of thing lies below, if anything does.
    pub(crate) fn sort(&self, below: &[u8]) -> std::io::Result<Option<Sort>> {
        Ok(self.stat(below)?.map(|stat| sort_of(&stat)))
    }

    /// Opens a regular file below.
    pub(crate) fn file(&self, below: &[u8]) -> std::io::Result<File> {
        // A look before, since a device may do something when it is opened.
        let stat = fstat(self.at(below, OFlag::O_PATH)?)?;
        let must_be_file = |stat: &FileStat| match sort_of(stat) {
            Sort::File => Ok(()),
            Sort::Link => Err(std::io::Error::from(Errno::ELOOP)),
            Sort::Dir => Err(std::io::Error::from(ErrorKind::IsADirectory)),
            Sort::Other => Err(std::io::Error::other("it is no regular file")),
        };
        must_be_file(&stat)?;
        let fd = self.at(below, OFlag::O_RDONLY)?;
        must_be_file(&fstat(&fd)?)?;
        Ok(File::from(fd))
    }

    /// Reads where a link below leads to.
    pub(crate) fn link(&self, below: &[u8]) -> std::io::Result<Vec<u8>> {
        let target = readlinkat(self.at(below, OFlag::O_PATH)?, "")?;
        Ok(target.as_bytes().to_vec())
    }

    /// Returns a path that leads to the directory itself, wherever it lies by now.
    pub(crate) fn itself(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// Opens a directory below.
    pub(crate) fn dir(&self, below: &[u8]) -> std::io::Result<Self> {
        let fd = self.at(below, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        Ok(Self { fd: Arc::new(fd), path: self.join(below).into() })
    }

    /// Lists a directory below: names and what they are, at most `most`.
    pub(crate) fn list(&self, below: &[u8], most: usize) -> std::io::Result<Vec<(Vec<u8>, Sort)>> {
        let fd = self.at(below, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let mut found = Vec::new();
        for entry in dir::Dir::from_fd(fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let sort = match entry.file_type() {
                Some(dir::Type::File) => Some(Sort::File),
                Some(dir::Type::Directory) => Some(Sort::Dir),
                Some(dir::Type::Symlink) => Some(Sort::Link),
                Some(_) => Some(Sort::Other),
                // Some file systems say it only of the file itself.
                None if below.is_empty() => self.sort(name)?,
                None => self.sort(&[below, b"/", name].concat())?,
            };
            if found.len() >= most {
                return Err(std::io::Error::other(format!("it has more than {most} entries")));
            }
            found.extend(sort.map(|sort| (name.to_vec(), sort)));
        }
        Ok(found)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Says whether an error means that nothing is there.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(Errno::ENAMETOOLONG as i32)
}

fn is_link(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ELOOP as i32)
}

pub(crate) fn sort_of(stat: &FileStat) -> Sort {
    match stat.st_mode & SFlag::S_IFMT.bits() {
        kind if kind == SFlag::S_IFREG.bits() => Sort::File,
        kind if kind == SFlag::S_IFDIR.bits() => Sort::Dir,
        kind if kind == SFlag::S_IFLNK.bits() => Sort::Link,
        _ => Sort::Other,
    }
}

/// Directories outside a repository that the user says belong to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trusted(Vec<Dir>);

impl Trusted {
    /// Opens directories that the user named.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self> {
        let open = |path: &PathBuf| {
            let real = fs::canonicalize(path).map_err(|error| {
                let said = format!("no directory '{}' to trust", path.display());
                let hint = "'--trust-git-dir' and 'trusted_git_dirs' name a directory of git's";
                Error::usage(said).because(error).hint(hint)
            })?;
            if !real.is_dir() {
                return Err(Error::usage(format!("'{}' is no directory", path.display()))
                    .hint("'--trust-git-dir' takes the directory that a file lies in"));
            }
            Dir::open(&real)
        };
        let mut dirs: Vec<Dir> = Vec::new();
        for dir in paths.iter().map(open) {
            let dir = dir?;
            // The configuration, the command line and what was said before may name the same.
            if dirs.iter().all(|known| known.path() != dir.path()) {
                dirs.push(dir);
            }
        }
        Ok(Self(dirs))
    }

    /// Returns where they lie, to be written down.
    pub(crate) fn paths(&self) -> Result<Vec<String>> {
        let text = |dir: &Dir| {
            dir.path().to_str().map(ToOwned::to_owned).ok_or_else(|| {
                Error::usage(format!(
                    "'{}' cannot be remembered: its path is not UTF-8",
                    dir.path().display()
                ))
                .hint("rename it")
            })
        };
        self.0.iter().map(text).collect()
    }

    /// Returns the root that a path without links lies below, and the way from there.
    fn holding<'a>(
        &'a self,
        own: impl IntoIterator<Item = &'a Dir>,
        real: &Path,
    ) -> Option<(&'a Dir, Vec<u8>)> {
        own.into_iter().chain(&self.0).find_map(|dir| {
            let below = real.strip_prefix(dir.path()).ok()?;
            Some((dir, below.as_os_str().as_bytes().to_vec()))
        })
    }
}

/// Says that a repository leads to where the user did not say that it may.
fn leads_out(at: &Path, real: &Path) -> Error {
    let dir = if real.is_dir() { real } else { real.parent().unwrap_or(real) };
    Error::usage(format!(
        "'{}' leads out of the repository, to '{}'",
        at.display().to_string().escape_debug(),
        real.display().to_string().escape_debug()
    ))
    .hint(format!(
        "'--trust-git-dir {}' takes it along; say so only if you made it lead there, not whoever wrote the \
         repository",
        shell_word(dir)
    ))
}

/// A work tree and its git directories.
#[derive(Clone, Debug)]
pub(crate) struct HostGit {
    /// The work tree.
    pub(crate) root: Dir,
    /// What belongs to this work tree.
    pub(crate) git: Dir,
    /// What all work trees share.
    pub(crate) common: Dir,
    /// What else may be read.
    trusted: Trusted,
    /// What the directory outside has to be that a `.git` file led to.
    back_link: BackLink,
}

/// What has to name a root back, where its `.git` is a file that leads out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum BackLink {
    /// Nothing: it lies inside, or the user said so.
    None,
    /// The file `gitdir` of a linked work tree.
    Linked,
    /// The setting `core.worktree` of a submodule.
    Module,
}

/// Returns the directory at or above `path` that has a `.git` of any kind. A bare repository on the way is
/// none that somebody asked for: it may be part of what somebody else wrote.
pub(crate) fn find(path: &Path) -> Result<Option<&Path>> {
    for dir in path.ancestors() {
        match fs::symlink_metadata(dir.join(".git")) {
            Ok(_) => return Ok(Some(dir)),
            Err(error) if is_absent(&error) => {}
            Err(error) => {
                return Err(error)
                    .context(format!("cannot look for a '.git' in '{}'", dir.display()));
            }
        }
        if !looks_bare(dir) {
            continue;
        }
        let shown = path.display();
        if dir.file_name() == Some(OsStr::new(".git")) {
            return Err(Error::usage(format!("'{shown}' is not in a work tree"))
                .hint("give the directory that holds the files"));
        }
        let is_here = if dir == path { "is" } else { "lies inside" };
        return Err(Error::usage(format!("'{shown}' {is_here} a bare repository"))
            .hint("give a work tree of it: 'git worktree add' or 'git clone' makes one"));
    }
    Ok(None)
}

/// Says whether git could take a directory itself for the inside of a `.git`.
fn looks_bare(dir: &Path) -> bool {
    let has = |name: &str| fs::symlink_metadata(dir.join(name)).is_ok();
    let is_dir = |name: &str| fs::metadata(dir.join(name)).is_ok_and(|meta| meta.is_dir());
    let is_whole = is_dir("objects") && is_dir("refs");
    is_whole && (has("HEAD") || has("config") || has("packed-refs"))
        || has("HEAD") && has("commondir")
}

fn unnamed(at: &Path, git: &Path, root: &Path) -> Error {
    Error::usage(format!(
        "'{}' leads out of the repository, to '{}', which does not name '{}' as its work tree",
        at.display().to_string().escape_debug(),
        git.display().to_string().escape_debug(),
        root.display().to_string().escape_debug()
    ))
    .hint(format!(
        "'--trust-git-dir {}' takes it along, if you made it lead there; 'git worktree repair' mends a \
         work tree that was moved",
        shell_word(git)
    ))
}

/// Says by the place of a git directory what of it could name a root back: those of linked work trees lie in
/// `worktrees`, those of submodules in `modules` of the repository around.
fn back_link_of(git: &Path, root: &Path) -> Option<BackLink> {
    let name = |dir: &Path| dir.file_name().map(OsStr::to_owned);
    let above = git.parent()?;
    let of_module = above.ancestors().find_map(|dir| {
        let around = dir.parent()?;
        if name(dir).as_deref() != Some(OsStr::new("modules")) {
            return None;
        }
        let holds = |tree: &Path| root != tree && root.starts_with(tree);
        let is_around =
            name(around).as_deref() == Some(OsStr::new(".git")) && holds(around.parent()?);
        let is_linked = || {
            let is_place =
                around.parent().and_then(name).as_deref() == Some(OsStr::new("worktrees"));
            let dir = is_place.then(|| Dir::open(around).ok()).flatten()?;
            let text = read(&dir.file(b"gitdir").ok()?, MAX_PLACE, around).ok()?;
            let tree = dir.join(trimmed(&text));
            fs::canonicalize(tree.parent()?).ok().filter(|tree| holds(tree))
        };
        (is_around || is_linked().is_some()).then_some(BackLink::Module)
    });
    // A submodule may be called so too.
    let is_linked = name(above).as_deref() == Some(OsStr::new("worktrees"));
    of_module.or(is_linked.then_some(BackLink::Linked))
}

impl HostGit {
    /// Opens the repository whose work tree begins at `root`, a path without links.
    pub(crate) fn open(root: &Path, trusted: &Trusted) -> Result<Self> {
        let root = Dir::open(root)?;
        let at = root.join(b".git");
        let cannot = |why: String| {
            Error::failed(format!("cannot use '{}'", root.path().display())).because(why).hint(
                format!("'git -C {} status' shows what git thinks of it", shell_word(root.path())),
            )
        };
        let said = || format!("cannot look at '{}'", at.display());
        let mut back_link = BackLink::None;
        let git = match root.sort(b".git").with_context(said)? {
            Some(Sort::Dir) => root.dir(b".git").with_context(said)?,
            Some(Sort::Link) => {
                let real = fs::canonicalize(&at).map_err(|error| {
                    cannot(format!("'{}' is a link that leads nowhere: {error}", at.display()))
                })?;
                let held = trusted.holding(None, &real);
                let (dir, below) = held.ok_or_else(|| leads_out(&at, &real))?;
                dir.dir(&below).with_context(|| format!("cannot open '{}'", real.display()))?
            }
            Some(Sort::File) => {
                let text = read(&root.file(b".git").with_context(said)?, MAX_PLACE, &at)?;
                let Some(place) = text.strip_prefix(b"gitdir: ") else {
                    return Err(cannot(format!("'{}' does not say where git is", at.display())));
                };
                let place = root.join(trimmed(place));
                let real = fs::canonicalize(&place).map_err(|error| {
                    cannot(format!("'{}' names '{}': {error}", at.display(), place.display()))
                })?;
                if !real.is_dir() {
                    return Err(cannot(format!("'{}' is no directory", real.display())));
                }
                if trusted.holding([&root], &real).is_none() {
                    // By its place alone, so that nothing is read of what is none.
                    back_link = back_link_of(&real, root.path())
                        .ok_or_else(|| unnamed(&at, &real, root.path()))?;
                }
                Dir::open(&real)?
            }
            _ => return Err(cannot(format!("'{}' is no directory and no file", at.display()))),
        };
        let common = git.clone();
        let mut host = Self { root, git, common, trusted: trusted.clone(), back_link };
        host.find_common(&at)?;
        Ok(host)
    }

    /// Finds what all work trees share, and checks that a linked work tree is one.
    fn find_common(&mut self, at: &Path) -> Result<()> {
        let Some(text) = self.read_in(&self.git, b"commondir", MAX_PLACE)? else {
            let is_linked = self.back_link == BackLink::Linked;
            return if is_linked { Err(self.unnamed(at)) } else { Ok(()) };
        };
        let file = self.git.join(b"commondir");
        let place = self.git.join(trimmed(&text));
        let real = fs::canonicalize(&place).with_context(|| {
            format!(
                "cannot use '{}': '{}' is not there",
                self.root.path().display(),
                place.display()
            )
        })?;
        if real == self.git.path() {
            return Ok(());
        }
        let is_linked = self.git.path().parent() == Some(real.join("worktrees").as_path());
        let is_ours = is_linked && self.is_named_by_its_git()?;
        if self.back_link == BackLink::Linked && !is_ours {
            return Err(self.unnamed(at));
        }
        if !is_ours && self.trusted.holding([&self.root], &real).is_none() {
            return Err(leads_out(&file, &real));
        }
        if is_ours {
            self.back_link = BackLink::None;
        }
        self.common = Dir::open(&real)?;
        Ok(())
    }

    /// Says whether the directory of a linked work tree names this root.
    fn is_named_by_its_git(&self) -> Result<bool> {
        let Some(text) = self.read_in(&self.git, b"gitdir", MAX_PLACE)? else { return Ok(false) };
        let named = self.git.join(trimmed(&text));
        let is_git = named.file_name() == Some(OsStr::new(".git"));
        let real = named.parent().and_then(|dir| fs::canonicalize(dir).ok());
        Ok(is_git && real.as_deref() == Some(self.root.path()))
    }

    fn unnamed(&self, at: &Path) -> Error {
        unnamed(at, self.git.path(), self.root.path())
    }

    /// Says whether it is a work tree beside others.
    pub(crate) fn is_linked(&self) -> bool {
        self.common.path() != self.git.path()
    }

    /// Checks what its settings say of the work tree, which `core.worktree` and `core.bare` are.
    pub(crate) fn check_work_tree(&self, worktree: Option<&str>, is_bare: bool) -> Result<()> {
        let root = self.root.path().display();
        // Git heeds neither for a linked work tree.
        if !self.is_linked() {
            if let Some(worktree) = worktree {
                let named = self.git.path().join(worktree);
                if fs::canonicalize(&named).ok().as_deref() != Some(self.root.path()) {
                    return Err(Error::usage(format!(
                        "'{root}' is not in a work tree: 'core.worktree' says that the files are in '{}'",
                        named.display().to_string().escape_debug()
                    ))
                    .hint("give the directory that holds the files, with a '.git' in it"));
                }
                return Ok(());
            }
            if is_bare {
                return Err(Error::usage(format!("'{root}' is a bare repository"))
                    .hint("give a work tree of it: 'git worktree add' or 'git clone' makes one"));
            }
        }
        if self.back_link != BackLink::None {
            return Err(self.unnamed(&self.root.join(b".git")));
        }
        Ok(())
    }

    /// Finds what lies at a name of a git directory: links are followed to where the user said that they may
    /// lead, and nowhere else.
    fn follow(&self, dir: &Dir, name: &[u8]) -> Result<Option<(Dir, Vec<u8>)>> {
        let at = dir.join(name);
        match fs::canonicalize(&at) {
            Ok(real) => match self.trusted.holding([&self.git, &self.common], &real) {
                Some((dir, below)) => Ok(Some((dir.clone(), below))),
                None => Err(leads_out(&at, &real)),
            },
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error).context(format!("cannot follow '{}'", at.display())),
        }
    }

    /// Opens a file of a git directory, if there is one.
    pub(crate) fn file_in(&self, dir: &Dir, name: &[u8]) -> Result<Option<File>> {
        let opened = match dir.file(name) {
            Err(error) if is_link(&error) => match self.follow(dir, name)? {
                Some((dir, below)) => dir.file(&below),
                None => return Ok(None),
            },
            opened => opened,
        };
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => {
                let at = dir.join(name);
                Err(Error::failed(format!("cannot read '{}'", at.display())).because(error))
            }
        }
    }

    /// Reads a file of a git directory of at most `most` bytes, if there is one.
    pub(crate) fn read_in(&self, dir: &Dir, name: &[u8], most: u64) -> Result<Option<Vec<u8>>> {
        let file = self.file_in(dir, name)?;
        file.map(|file| read(&file, most, &dir.join(name))).transpose()
    }

    /// Lists a directory of a git directory; one that is not there has nothing in it.
    pub(crate) fn list_in(
        &self,
        dir: &Dir,
        name: &[u8],
        most: usize,
    ) -> Result<Vec<(Vec<u8>, Sort)>> {
        let listed = match dir.list(name, most) {
            Err(error) if is_link(&error) || error.kind() == ErrorKind::NotADirectory => {
                match self.follow(dir, name)? {
                    Some((dir, below)) => dir.list(&below, most),
                    None => return Ok(Vec::new()),
                }
            }
            listed => listed,
        };
        match listed {
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            listed => listed.with_context(|| format!("cannot list '{}'", dir.join(name).display())),
        }
    }

    /// Reads HEAD, which may be a link in old repositories.
    pub(crate) fn head(&self) -> Result<Vec<u8>> {
        if self.git.sort(b"HEAD").ok().flatten() == Some(Sort::Link)
            && let Ok(target) = fs::read_link(self.git.join(b"HEAD"))
            && target.starts_with("refs")
        {
            return Ok([b"ref: ", target.as_os_str().as_bytes(), b"\n"].concat());
        }
        Ok(self.read_in(&self.git, b"HEAD", MAX_PLACE)?.unwrap_or_default())
    }

    /// Returns where the objects lie, its own first, after a look at all that git could open there: links,
    /// pipes and alternates that lead out are refused.
    pub(crate) fn objects(&self) -> Result<Vec<PathBuf>> {
        let at = self.common.join(b"objects");
        let first = match self.common.sort(b"objects").context("cannot look at the objects")? {
            Some(Sort::Link) => match self.follow(&self.common, b"objects")? {
                Some((dir, below)) => dir.dir(&below),
                None => return Ok(vec![at]),
            },
            None => return Ok(vec![at]),
            _ => self.common.dir(b"objects"),
        };
        let first = first.with_context(|| format!("cannot open '{}'", at.display()))?;
        let mut seen = vec![first.path().to_owned()];
        let mut left = MAX_OBJECTS;
        let mut waiting = vec![(first, 0)];
        while let Some((dir, depth)) = waiting.pop() {
            self.check_objects(&dir, &mut left)?;
            let Some(text) = self.read_in(&dir, b"info/alternates", 1 << 20)? else { continue };
            for line in text.split(|byte| *byte == b'\n') {
                if line.is_empty() || line.starts_with(b"#") {
                    continue;
                }
                if line.starts_with(b"\"") || depth >= MAX_ALTERNATES {
                    let file = dir.join(b"info/alternates");
                    return Err(Error::failed(format!(
                        "'{}' names '{}', which is not followed",
                        file.display(),
                        line.escape_ascii()
                    ))
                    .hint("'git repack -a -d' and removing that file makes it whole"));
                }
                // As git does: '..' is taken away before a link is looked at.
                let place = plain(&dir.join(line));
                let Ok(real) = fs::canonicalize(&place) else { continue };
                if seen.contains(&real) {
                    continue;
                }
                let held = self.trusted.holding([&self.git, &self.common], &real);
                let Some((root, below)) = held else {
                    return Err(leads_out(&dir.join(b"info/alternates"), &real));
                };
                let next = root.dir(&below);
                let next = next.with_context(|| format!("cannot open '{}'", real.display()))?;
                seen.push(real);
                waiting.push((next, depth + 1));
            }
        }
        Ok(seen)
    }

    /// Looks at the sort of everything in a directory of objects.
    fn check_objects(&self, objects: &Dir, left: &mut usize) -> Result<()> {
        let mut waiting: Vec<(Dir, Vec<u8>, usize)> = vec![(objects.clone(), Vec::new(), 0)];
        while let Some((dir, below, depth)) = waiting.pop() {
            let at = dir.join(&below);
            let said = || format!("cannot list '{}'", at.display());
            let entries = match dir.list(&below, *left) {
                // Git tidies up now and then, and objects move into packs.
                Err(error) if depth > 0 && is_absent(&error) => continue,
                entries => entries.with_context(said)?,
            };
            *left -= entries.len();
            for (name, sort) in entries {
                let path =
                    if below.is_empty() { name } else { [&below, &b"/"[..], &name].concat() };
                match sort {
                    Sort::File => {}
                    Sort::Dir if depth < 4 => waiting.push((dir.clone(), path, depth + 1)),
                    Sort::Link if depth < 4 => {
                        let Some((root, real)) = self.follow(&dir, &path)? else { continue };
                        if root.sort(&real).with_context(said)? == Some(Sort::Dir) {
                            waiting.push((root, real, depth + 1));
                        } else if root.file(&real).is_err() {
                            return Err(no_object(&dir.join(&path)));
                        }
                    }
                    _ => return Err(no_object(&dir.join(&path))),
                }
            }
        }
        Ok(())
    }
}

fn no_object(at: &Path) -> Error {
    Error::failed(format!("'{}' is nothing that belongs among objects", at.display()))
        .hint("move it away")
}

/// Reads a file of at most `most` bytes.
pub(crate) fn read(file: &File, most: u64, at: &Path) -> Result<Vec<u8>> {
    let said = || format!("cannot read '{}'", at.display());
    let size = file.metadata().with_context(said)?.len();
    let mut bytes = Vec::new();
    if size <= most {
        file.take(most + 1).read_to_end(&mut bytes).with_context(said)?;
    }
    if size.max(bytes.len() as u64) > most {
        return Err(Error::failed(format!("'{}' is larger than {most} bytes", at.display()))
            .hint("no such file is so large unless something went wrong with it; look at it, or move it away"));
    }
    Ok(bytes)
}

fn trimmed(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r'));
    &text[..end.map_or(0, |end| end + 1)]
}

/// Takes `.` and `..` out of a path without looking at what is there.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// Returns the commit that HEAD of the repository at `root` is, where a few small files say it
/// (gitrepository-layout(5)).
pub fn head_of(root: &Path, trusted: &[PathBuf]) -> Option<String> {
    let host = HostGit::open(&fs::canonicalize(root).ok()?, &Trusted::open(trusted).ok()?).ok()?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok().map(|text| text.trim().to_owned());
    let head = text(host.head().ok()?)?;
    let Some(name) = head.strip_prefix("ref: ") else { return is_oid(&head).then_some(head) };
    if !is_ref_name(name) {
        return None;
    }
    let loose = host.read_in(&host.common, name.as_bytes(), MAX_PLACE).ok()?;
    if let Some(commit) = loose.and_then(text).filter(|commit| is_oid(commit)) {
        return Some(commit);
    }
    let packed = text(host.read_in(&host.common, b"packed-refs", 64 << 20).ok()??)?;
    let line = packed.lines().find(|line| line.split_once(' ').is_some_and(|(_, n)| n == name))?;
    line.split_once(' ').map(|(commit, _)| commit.to_owned())
}
