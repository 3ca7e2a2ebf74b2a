//! Trees that others made: how deep they may be, and how they go again.
//!
//! A guest, an archive or a VMM that was broken out of decides how a tree looks that then lies on the
//! host. [`MAX_DEPTH`] is what banger itself ever makes of such words; [`remove_tree`] takes away what is
//! there, however it came about.

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat, renameat},
    sys::stat::{FchmodatFlags, Mode, fchmodat, fstat},
    unistd::{UnlinkatFlags, unlinkat},
};
use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// The most names in a path that a guest, an archive or a layer may give.
pub const MAX_DEPTH: usize = 255;

/// How many directories are held open above one another. What lies deeper is moved up first.
const HELD: usize = 32;
/// How often a directory is emptied into which somebody goes on writing.
const TRIES: u32 = 100;

/// How a directory is opened: itself, and no link in its place.
const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Removes what lies at `path`: a file, a link, or a directory with all it holds, however deep. Follows
/// no link below `path` and holds a bounded number of descriptors. A directory that is closed to its owner
/// is opened first. What vanishes meanwhile is no failure; nothing at `path` is
/// [`io::ErrorKind::NotFound`].
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    match unlink(AT_FDCWD, &name)? {
        Was::Gone => Err(io::ErrorKind::NotFound.into()),
        Was::Removed => Ok(()),
        Was::Directory => Ok(remove_dir(AT_FDCWD, &name, HELD)?),
    }
}

/// Removes what lies at `path` as [`remove_tree`] does, if anything does.
pub fn remove_tree_if_there(path: &Path) -> io::Result<()> {
    match remove_tree(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// What a name stood for.
enum Was {
    Gone,
    Removed,
    Directory,
}

/// Removes a name that is no directory's, or an empty directory.
fn unlink(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<Was> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) => Ok(Was::Removed),
        Err(Errno::ENOENT) => Ok(Was::Gone),
        // POSIX has the second for a directory, and Linux for a file that may not go.
        Err(refused @ (Errno::EISDIR | Errno::EPERM)) => rmdir(dir, name, refused),
        // Nobody may remove anything there until its directory is opened.
        Err(Errno::EACCES) => {
            allow(dir)?;
            match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
                Err(refused @ (Errno::EISDIR | Errno::EPERM)) => rmdir(dir, name, refused),
                done => done.map(|()| Was::Removed),
            }
        }
        Err(errno) => Err(errno),
    }
}

fn rmdir(dir: BorrowedFd<'_>, name: &CStr, refused: Errno) -> nix::Result<Was> {
    match unlinkat(dir, name, UnlinkatFlags::RemoveDir) {
        Ok(()) => Ok(Was::Removed),
        Err(Errno::ENOENT) => Ok(Was::Gone),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(Was::Directory),
        Err(Errno::ENOTDIR) => Err(refused),
        Err(errno) => Err(errno),
    }
}

/// Gives the owner of an open directory all rights to it.
fn allow(dir: BorrowedFd<'_>) -> nix::Result<()> {
    if dir.as_raw_fd() == AT_FDCWD.as_raw_fd() {
        return Err(Errno::EACCES);
    }
    let mode = Mode::from_bits_truncate(fstat(dir)?.st_mode & 0o7777);
    if mode.contains(Mode::S_IRWXU) {
        return Err(Errno::EACCES);
    }
    nix::sys::stat::fchmod(dir, mode | Mode::S_IRWXU)
}

/// Opens a directory, which is opened to its owner first if it has to be.
fn open(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    match openat(dir, name, DIRECTORY, Mode::empty()) {
        Err(Errno::EACCES) => {
            let held = allow_below(dir, name)?;
            openat(&held, c".", DIRECTORY, Mode::empty())
        }
        opened => opened,
    }
}

/// Gives the owner of a directory all rights to it, and returns it.
fn allow_below(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    // A descriptor of the directory itself: its name may stand for a link by now.
    let held = openat(dir, name, DIRECTORY | OFlag::O_PATH, Mode::empty())?;
    let mode = Mode::from_bits_truncate(fstat(&held)?.st_mode & 0o7777);
    if mode.contains(Mode::S_IRWXU) {
        return Err(Errno::EACCES);
    }
    let own = format!("/proc/self/fd/{}", held.as_raw_fd());
    match fchmodat(AT_FDCWD, own.as_str(), mode | Mode::S_IRWXU, FchmodatFlags::FollowSymlink) {
        // Without '/proc' it stays closed; it is not gone.
        Err(Errno::ENOENT) => Err(Errno::EACCES),
        done => done.map(|()| held),
    }
}

/// Removes a directory and all it holds. `held` says how many more may be open above one another.
fn remove_dir(parent: BorrowedFd<'_>, name: &CStr, held: usize) -> nix::Result<()> {
    let fd = match open(parent, name) {
        Err(Errno::ENOENT) => return Ok(()),
        // It became something else meanwhile.
        Err(Errno::ENOTDIR | Errno::ELOOP) => return unlink(parent, name).map(drop),
        opened => opened?,
    };
    for _ in 0..TRIES {
        empty(&fd, held)?;
        if !matches!(unlink(parent, name)?, Was::Directory) {
            return Ok(());
        }
    }
    Err(Errno::ENOTEMPTY)
}

/// Removes what an open directory holds.
fn empty(fd: &OwnedFd, held: usize) -> nix::Result<()> {
    let mut moved = 0u64;
    loop {
        let before = moved;
        each(fd, |name| match unlink(fd.as_fd(), name)? {
            Was::Directory if held > 0 => remove_dir(fd.as_fd(), name, held - 1),
            Was::Directory => flatten(fd.as_fd(), name, &mut moved),
            _ => Ok(()),
        })?;
        if moved == before {
            return Ok(());
        }
    }
}

/// Removes a directory after its directories have been moved up to where it lies itself.
fn flatten(above: BorrowedFd<'_>, name: &CStr, moved: &mut u64) -> nix::Result<()> {
    let fd = match open(above, name) {
        Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTDIR | Errno::ELOOP) => return unlink(above, name).map(drop),
        opened => opened?,
    };
    for _ in 0..TRIES {
        each(&fd, |inner| match unlink(fd.as_fd(), inner)? {
            Was::Directory => lift(&fd, inner, above, moved),
            _ => Ok(()),
        })?;
        if !matches!(unlink(above, name)?, Was::Directory) {
            return Ok(());
        }
    }
    Err(Errno::ENOTEMPTY)
}

/// Moves a directory up, under a name that nothing has there.
fn lift(from: &OwnedFd, name: &CStr, to: BorrowedFd<'_>, moved: &mut u64) -> nix::Result<()> {
    loop {
        *moved += 1;
        let new = CString::new(format!(".gone-{moved}")).expect("because it has no zero byte");
        match renameat(from, name, to, new.as_c_str()) {
            // Another directory that is going has it, or a file.
            Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
            Err(Errno::ENOENT) => return Ok(()),
            // To move a directory is to write to it.
            Err(Errno::EACCES) => drop(allow_below(from.as_fd(), name)?),
            done => return done,
        }
    }
}

/// Calls `act` with every name in an open directory.
fn each(fd: &OwnedFd, mut act: impl FnMut(&CStr) -> nix::Result<()>) -> nix::Result<()> {
    let mut dir = match Dir::openat(fd, c".", DIRECTORY, Mode::empty()) {
        // Somebody else removed it.
        Err(Errno::ENOENT) => return Ok(()),
        dir => dir?,
    };
    for entry in dir.iter() {
        let entry = match entry {
            Err(Errno::ENOENT) => return Ok(()),
            entry => entry?,
        };
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            act(name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
