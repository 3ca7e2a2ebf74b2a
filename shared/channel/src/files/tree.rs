//! A tree of files below an open root, which the guest's end and the host's write to. Links are never
//! followed below a root, so that what is written lands where it was meant to, whatever others make of
//! the tree meanwhile.
use super::wire::{MARK, PRESENT, is_inside};
use banger_doc::{Context, Error, Result};
use banger_tar::Kind as Sort;
use banger_tree::MAX_DEPTH;
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat},
    sys::{
        stat::{
            FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat,
            futimens, mkdirat, mknodat, utimensat,
        },
        time::TimeSpec,
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchownat, geteuid, linkat, symlinkat, syncfs, unlinkat},
};
use std::{
    cell::{Cell, RefCell},
    ffi::{CString, OsStr},
    fs::File,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

/// An open root.
pub(super) struct Tree {
    fd: OwnedFd,
    path: PathBuf,
    /// What is in the way of a directory stays, and so do directories as they are.
    keeps: bool,
    /// The root gets the mode and the time that a stream says, whatever else is kept.
    fresh: bool,
    /// What is made belongs to who makes it and has no setuid or setgid bit, whatever a stream says.
    plain: bool,
    /// What is made belongs to who makes it, whatever a stream says.
    own: bool,
    /// Permission bits that nothing gets, whatever a stream says.
    masked: u32,
    /// Permission bits of directories until a stream has filled them.
    unfinished: u32,
    /// The directory that was written to last: a stream has many files of one in a row.
    last: RefCell<Option<(Vec<u8>, Rc<OwnedFd>)>>,
    /// The time of the youngest file that was written, in seconds.
    youngest_s: Cell<i64>,
}

impl Tree {
    /// Opens a directory. What stands in the way of what is written below it goes, and everything gets
    /// the owner and the mode that a stream says.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        match openat(AT_FDCWD, path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self {
                fd,
                path: path.to_owned(),
                keeps: false,
                fresh: false,
                plain: false,
                own: false,
                masked: 0,
                unfinished: 0o755,
                last: RefCell::new(None),
                youngest_s: Cell::new(0),
            }),
            // Nothing can be there under a name that is too long.
            Err(Errno::ENOENT | Errno::ENAMETOOLONG) => {
                Err(Error::not_found(format!("no '{}'", path.display())))
            }
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                Err(Error::conflict(format!("'{}' is no directory", path.display())))
            }
            Err(errno) => Err(errno).context(format!("cannot open '{}'", path.display())),
        }
    }

    /// Directories stay as they are, and so does what stands where one would be made.
    pub(super) fn keeping(mut self, keeps: bool) -> Self {
        self.keeps = keeps;
        self
    }

    /// The root itself is not kept: it was made for what is written.
    pub(super) fn in_fresh_root(mut self, fresh: bool) -> Self {
        self.fresh = fresh;
        self
    }

    /// What is made belongs to whoever makes it and has no setuid or setgid bit.
    pub(super) fn plain(mut self, plain: bool) -> Self {
        self.plain = plain;
        self
    }

    /// What is made belongs to whoever makes it.
    pub(super) fn owned_by_maker(mut self, own: bool) -> Self {
        self.own = own;
        self
    }

    /// Nothing that is made gets these permission bits.
    pub(super) fn without_bits(mut self, masked: u32) -> Self {
        self.masked = masked;
        self
    }

    /// Nobody else may look into a directory until it is filled.
    pub(super) fn closed_until_filled(mut self) -> Self {
        self.unfinished = 0o700;
        self
    }

    /// Opens what is below the root, following no link on the way.
    pub(super) fn at(&self, path: &[u8], flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        openat2(&self.fd, path, how)
    }

    /// Opens the directory that holds `path` and returns it with the last name.
    pub(super) fn parent<'p>(&self, path: &'p [u8]) -> nix::Result<(OwnedFd, &'p OsStr)> {
        let (dir, name) = split(path);
        Ok((self.at(dir, OFlag::O_DIRECTORY | OFlag::O_PATH)?, OsStr::from_bytes(name)))
    }

    /// Names a path below the root, as an error does.
    pub(super) fn said(&self, path: &[u8]) -> String {
        format!("'{}/{}'", self.path.display(), path.escape_ascii())
    }

    /// Returns once everything below the root is on its disk.
    pub(super) fn sync(&self) -> Result<()> {
        syncfs(&self.fd).context("cannot sync")
    }

    /// Gives directories their modes and times: last, for one that may not be written to.
    pub(super) fn finish_dirs(&self, mut dirs: Vec<Finish>) -> Result<()> {
        // What lies deeper first: a directory may forbid the way to what it holds.
        while let Some(Finish { path, mode, mtime }) = dirs.pop() {
            let set = || -> nix::Result<()> {
                let dir = self.at(&path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                fchmod(&dir, Mode::from_bits_truncate(mode))?;
                futimens(&dir, &mtime, &mtime)
            };
            set().with_context(|| format!("cannot write {}", self.said(&path)))?;
        }
        Ok(())
    }

    /// Makes what an entry of a tar stream describes; `fill` writes what is in a file. Directories still
    /// have to be finished.
    pub(super) fn make(
        &self,
        item: &Item<'_>,
        fill: &mut dyn FnMut(&mut File) -> std::io::Result<()>,
        path: &[u8],
        replace: bool,
        dirs: &mut Vec<Finish>,
    ) -> std::io::Result<()> {
        let mode = item.mode & if self.plain { 0o1777 } else { 0o7777 } & !self.masked;
        let (uid, gid) = (item.uid, item.gid);
        let mtime_s = if item.mtime_s as u64 == PRESENT {
            present_s(self.youngest_s.get())
        } else {
            if item.sort != Sort::Directory {
                self.youngest_s.set(self.youngest_s.get().max(item.mtime_s));
            }
            item.mtime_s
        };
        let mtime = TimeSpec::new(mtime_s, 0);
        let owner = |dir: &OwnedFd, name: &OsStr| -> nix::Result<()> {
            // What is made belongs to who makes it.
            if self.plain || self.own || !geteuid().is_root() || (uid, gid) == (0, 0) {
                return Ok(());
            }
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
        };
        let (dir, name) = split(path);
        if item.sort != Sort::File {
            self.last.take();
        }
        match item.sort {
            Sort::Directory => {
                let is_kept = self.keeps && !(self.fresh && path == b".");
                if is_kept && self.at(path, OFlag::O_DIRECTORY | OFlag::O_PATH).is_ok() {
                    return Ok(());
                }
                self.make_dirs(path)?;
                let (parent, name) = self.parent(path)?;
                owner(&parent, name)?;
                dirs.push(Finish { path: path.to_vec(), mode, mtime });
                Ok(())
            }
            Sort::File => {
                let parent = self.parent_of(dir)?;
                let temporary = temporary_name(name, replace);
                let flags = OFlag::O_WRONLY
                    | OFlag::O_CREAT
                    | OFlag::O_EXCL
                    | OFlag::O_NOFOLLOW
                    | OFlag::O_CLOEXEC;
                let private = Mode::S_IRUSR | Mode::S_IWUSR;
                let open = || openat(&*parent, temporary.as_c_str(), flags, private);
                let mut file = File::from(match open() {
                    // What an agent that was killed left, or the same name twice.
                    Err(Errno::EEXIST) => {
                        unlinkat(&*parent, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
                        open()?
                    }
                    file => file?,
                });
                if let Err(error) = fill(&mut file) {
                    let _ = unlinkat(&*parent, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir);
                    return Err(error);
                }
                owner(&parent, OsStr::from_bytes(temporary.as_bytes()))?;
                fchmod(&file, Mode::from_bits_truncate(mode))?;
                futimens(&file, &mtime, &mtime)?;
                swap_in(&parent, &temporary, name)
            }
            Sort::Symlink => {
                let parent = self.make_dirs(dir)?;
                let temporary = temporary_name(name, replace);
                let _ = unlinkat(&parent, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir);
                symlinkat(OsStr::from_bytes(item.link), &parent, temporary.as_c_str())?;
                owner(&parent, OsStr::from_bytes(temporary.as_bytes()))?;
                let flag = UtimensatFlags::NoFollowSymlink;
                utimensat(&parent, temporary.as_c_str(), &mtime, &mtime, flag)?;
                swap_in(&parent, &temporary, name)
            }
            Sort::Hardlink => self.link(plain_path(item.link), path, replace),
            Sort::Character | Sort::Block | Sort::Fifo => {
                let (kind, device) = match item.sort {
                    Sort::Character => (SFlag::S_IFCHR, item.device),
                    Sort::Block => (SFlag::S_IFBLK, item.device),
                    _ => (SFlag::S_IFIFO, 0),
                };
                let parent = self.make_dirs(dir)?;
                let temporary = temporary_name(name, replace);
                let _ = unlinkat(&parent, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir);
                let mode = Mode::from_bits_truncate(mode);
                mknodat(&parent, temporary.as_c_str(), kind, Mode::empty(), device)?;
                owner(&parent, OsStr::from_bytes(temporary.as_bytes()))?;
                fchmodat(&parent, temporary.as_c_str(), mode, FchmodatFlags::FollowSymlink)?;
                swap_in(&parent, &temporary, name)
            }
        }
    }

    /// Gives the file at `target` below the root another name.
    pub(super) fn link(&self, target: &[u8], path: &[u8], replace: bool) -> std::io::Result<()> {
        if !is_inside(target) {
            return Err(std::io::Error::other(format!(
                "a hard link that leaves the root, or has more than {MAX_DEPTH} names"
            )));
        }
        let (from, file) = self.parent(target)?;
        let (dir, name) = split(path);
        let parent = self.make_dirs(dir)?;
        let temporary = temporary_name(name, replace);
        let _ = unlinkat(&parent, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir);
        linkat(&from, file, &parent, temporary.as_c_str(), AtFlags::empty())?;
        swap_in(&parent, &temporary, name)?;
        // Where both are the same file already, renaming leaves both names (rename(2)).
        if temporary.as_bytes() != name {
            let _ = unlinkat(&parent, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
        Ok(())
    }

    /// Opens the directory that files are written to, as [`Tree::make_dirs`] does.
    fn parent_of(&self, path: &[u8]) -> nix::Result<Rc<OwnedFd>> {
        if let Some((last, dir)) = &*self.last.borrow()
            && last == path
        {
            return Ok(dir.clone());
        }
        let dir = Rc::new(self.make_dirs(path)?);
        self.last.replace(Some((path.to_vec(), dir.clone())));
        Ok(dir)
    }

    /// Opens a directory, making it and what is missing above it. A file or a link in the way goes.
    fn make_dirs(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        match self.at(path, flags) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) if path != b"." => {}
            done => return done,
        }
        let (dir, name) = split(path);
        let parent = self.make_dirs(dir)?;
        let name = OsStr::from_bytes(name);
        let mode = Mode::from_bits_truncate(self.unfinished);
        if let Err(errno) = mkdirat(&parent, name, mode) {
            if self.keeps || errno != Errno::EEXIST {
                return Err(errno);
            }
            let stat = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            if kind(&stat) == SFlag::S_IFDIR {
                return Err(errno);
            }
            unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?;
            mkdirat(&parent, name, mode)?;
        }
        self.at(path, flags)
    }

    /// Removes what is at `paths`, and the directories above that are left with nothing in them.
    pub(super) fn remove(&self, paths: &[&[u8]]) -> Result<()> {
        for path in paths {
            let (mut dir, mut name) = split(path);
            let mut flag = UnlinkatFlags::NoRemoveDir;
            loop {
                let parent = match self.at(dir, OFlag::O_DIRECTORY | OFlag::O_PATH) {
                    Ok(parent) => parent,
                    // Gone, or behind a link or a file that took a directory's place.
                    Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => break,
                    Err(errno) => {
                        return Err(errno).context(format!("cannot open {}", self.said(dir)));
                    }
                };
                match unlinkat(&parent, OsStr::from_bytes(name), flag) {
                    Ok(()) | Err(Errno::ENOENT) if dir != b"." => {
                        (dir, name) = split(dir);
                        flag = UnlinkatFlags::RemoveDir;
                    }
                    // The directory that stays for what else is in it.
                    Err(Errno::ENOTEMPTY | Errno::EEXIST)
                        if matches!(flag, UnlinkatFlags::RemoveDir) =>
                    {
                        break;
                    }
                    Ok(()) | Err(Errno::ENOENT | Errno::EISDIR) => break,
                    Err(errno) => {
                        return Err(errno).context(format!("cannot remove {}", self.said(path)));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns the present second, once the second `youngest` is over if that is now or next. Git takes
/// files for unchanged by their times where they are older than its index: an index of the same second
/// would have it read them all, a younger one miss an edit in the rest of that second.
fn present_s(youngest: i64) -> i64 {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let second = now.as_secs() as i64;
        let is_over = youngest < second || youngest > second + 1;
        if is_over || Instant::now() >= end {
            return second;
        }
        thread::sleep(Duration::from_nanos(1_000_000_000 - u64::from(now.subsec_nanos())));
    }
}

/// What an entry of a tar stream describes, but for its path and its content.
pub(super) struct Item<'a> {
    pub(super) sort: Sort,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime_s: i64,
    /// Where a link leads.
    pub(super) link: &'a [u8],
    /// The number of a device.
    pub(super) device: u64,
}

/// A directory that has to be finished.
pub(super) struct Finish {
    path: Vec<u8>,
    mode: u32,
    mtime: TimeSpec,
}

/// Splits a path into its directory, `.` for the root, and its last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b".", path),
    }
}

/// A name that no other stream uses, whoever writes to the same directory meanwhile.
fn temporary_name(name: &[u8], replace: bool) -> CString {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = if replace {
        format!("{MARK}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)).into()
    } else {
        name.to_vec()
    };
    CString::new(name).expect("because a path inside a root holds no zero byte")
}

fn swap_in(parent: &OwnedFd, temporary: &CString, name: &[u8]) -> std::io::Result<()> {
    if temporary.as_bytes() == name {
        return Ok(());
    }
    let name = OsStr::from_bytes(name);
    let swapped = match renameat(parent, temporary.as_c_str(), parent, name) {
        Err(Errno::EISDIR | Errno::ENOTEMPTY | Errno::EEXIST) => {
            unlinkat(parent, name, UnlinkatFlags::RemoveDir)
                .and_then(|()| renameat(parent, temporary.as_c_str(), parent, name))
        }
        done => done,
    };
    if swapped.is_err() {
        let _ = unlinkat(parent, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir);
    }
    Ok(swapped?)
}

/// Takes `./` before a path and slashes after it away; what is left of the root itself is `.`.
pub(super) fn plain_path(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"./") {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/").filter(|rest| !rest.is_empty()) {
        path = rest;
    }
    if path.is_empty() { b"." } else { path }
}

/// Returns what sort of thing a status is of.
pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}
