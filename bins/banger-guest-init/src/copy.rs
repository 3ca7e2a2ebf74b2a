//! Copying a tree with all that its files are: owner, mode, times, extended attributes, links.

use crate::say;
use banger_doc::{Context, Error, Result};
use nix::{
    errno::Errno,
    libc,
    sys::{
        stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat},
        time::TimeSpec,
    },
};
use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    fs,
    io::ErrorKind,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown, symlink},
    },
    path::{Path, PathBuf},
};

/// Extended attributes of one file are at most this large together (listxattr(2)).
const MAX_ATTRIBUTES: usize = 64 << 10;

/// Copies what is below `from` to below `to`, which is there, and the attributes of `from` itself; returns
/// how many files there were. The first that cannot be copied ends it, and no file is left cut short.
/// Names of `except` right below `from` are left out.
pub(crate) fn tree(from: &Path, to: &Path, except: &[&str]) -> Result<usize> {
    let mut count = 0;
    let mut links: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut rest = vec![(from.to_owned(), to.to_owned())];
    // A directory gets its times when nothing more is put into it.
    let mut dirs = Vec::new();
    while let Some((from, to)) = rest.pop() {
        let failed = || format!("cannot list '{}'", from.display());
        for entry in fs::read_dir(&from).with_context(failed)? {
            let name = entry.with_context(failed)?.file_name();
            if dirs.is_empty() && except.iter().any(|left| name == *left) {
                continue;
            }
            count += 1;
            let (below, copied) = (from.join(&name), to.join(&name));
            if one(&below, &copied, &mut links)? {
                rest.push((below, copied));
            }
        }
        dirs.push((from, to));
    }
    for (from, to) in dirs.iter().rev() {
        attributes(from, to)?;
    }
    Ok(count)
}

/// Returns the bytes that a copy of what is below a directory takes on a disk, about.
pub(crate) fn size(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut rest = vec![dir.to_owned()];
    while let Some(dir) = rest.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            bytes += if meta.is_dir() { 4096 } else { meta.blocks() * 512 / meta.nlink().max(1) };
            if meta.is_dir() {
                rest.push(entry.path());
            }
        }
    }
    bytes
}

/// Says whether an error is that of a disk without room.
pub(crate) fn is_full(error: &Error) -> bool {
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = cause {
        let io = one.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let errno = one.downcast_ref::<Errno>();
        if io.is_some_and(|kind| full.contains(&kind))
            || matches!(errno, Some(Errno::ENOSPC | Errno::EDQUOT))
        {
            return true;
        }
        cause = one.source();
    }
    false
}

/// Copies one file without its contents if it is a directory; says whether it is one.
fn one(from: &Path, to: &Path, links: &mut HashMap<(u64, u64), PathBuf>) -> Result<bool> {
    let failed = || format!("cannot copy '{}'", from.display());
    let meta = fs::symlink_metadata(from).with_context(failed)?;
    let kind = SFlag::from_bits_truncate(meta.mode()) & SFlag::S_IFMT;
    // A socket is of the process that made it, so of nobody here, whatever else it is called.
    if kind == SFlag::S_IFSOCK {
        return Ok(false);
    }
    if kind != SFlag::S_IFDIR && meta.nlink() > 1 {
        if let Some(first) = links.get(&(meta.dev(), meta.ino())) {
            fs::hard_link(first, to).with_context(failed)?;
            return Ok(false);
        }
        links.insert((meta.dev(), meta.ino()), to.to_owned());
    }
    match kind {
        SFlag::S_IFDIR => {
            fs::DirBuilder::new().mode(0o700).create(to).with_context(failed)?;
            return Ok(true);
        }
        SFlag::S_IFREG => {
            fs::copy(from, to)
                .inspect_err(|_| {
                    let _ = fs::remove_file(to);
                })
                .with_context(failed)?;
        }
        SFlag::S_IFLNK => {
            let target = fs::read_link(from).with_context(failed)?;
            symlink(target, to).with_context(failed)?;
        }
        _ => mknod(to, kind, Mode::from_bits_truncate(meta.mode() & 0o7777), meta.rdev())
            .with_context(failed)?,
    }
    attributes(from, to)?;
    Ok(false)
}

/// Gives one file the owner, mode, extended attributes and times of another.
pub(crate) fn attributes(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("cannot copy the attributes of '{}'", from.display());
    let meta = fs::symlink_metadata(from).with_context(failed)?;
    lchown(to, Some(meta.uid()), Some(meta.gid())).with_context(failed)?;
    if !meta.is_symlink() {
        // After the owner: changing that takes the setuid bit away.
        fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))
            .with_context(failed)?;
    }
    for name in attribute_names(from)? {
        // Those of overlayfs are about the other file system, not about the file.
        if name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let value = attribute(from, &name)?;
        match set(to, &name, &value) {
            Ok(()) => {}
            // In memory there are fewer than on a disk.
            Err(Errno::EOPNOTSUPP) => say::warn(&format!(
                "'{}' is without its attribute '{}', which its file system does not have",
                to.display(),
                name.to_string_lossy()
            )),
            Err(errno) => return Err(errno).with_context(failed),
        }
    }
    let time = |s, ns| TimeSpec::new(s, ns);
    let (accessed, modified) =
        (time(meta.atime(), meta.atime_nsec()), time(meta.mtime(), meta.mtime_nsec()));
    utimensat(nix::fcntl::AT_FDCWD, to, &accessed, &modified, UtimensatFlags::NoFollowSymlink)
        .with_context(failed)
}

/// Says whether a file has an extended attribute.
pub(crate) fn has_attribute(path: &Path, name: &str) -> bool {
    CString::new(name).is_ok_and(|name| attribute(path, &name).is_ok())
}

/// Returns an extended attribute, if the file has it.
pub(crate) fn attribute_of(path: &Path, name: &str) -> Option<Vec<u8>> {
    attribute(path, &CString::new(name).ok()?).ok()
}

/// Sets an extended attribute.
pub(crate) fn set_attribute(path: &Path, name: &str, value: &[u8]) -> Result<()> {
    let name = CString::new(name).context("the name of an attribute has a zero byte")?;
    set(path, &name, value).map_err(|errno| failed(path, errno))
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).context("a path has a zero byte")
}

fn attribute_names(path: &Path) -> Result<Vec<CString>> {
    let c = c_path(path)?;
    let mut names = vec![0_u8; MAX_ATTRIBUTES];
    // SAFETY: the path is terminated, and the buffer is as long as said.
    let length = unsafe { libc::llistxattr(c.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let length = match Errno::result(length) {
        Ok(length) => length as usize,
        Err(Errno::EOPNOTSUPP) => 0,
        Err(errno) => return Err(failed(path, errno)),
    };
    Ok(names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect())
}

fn attribute(path: &Path, name: &CStr) -> Result<Vec<u8>> {
    let c = c_path(path)?;
    let mut value = vec![0_u8; MAX_ATTRIBUTES];
    let (at, size) = (value.as_mut_ptr(), value.len());
    // SAFETY: path and name are terminated, and the buffer is as long as said.
    let length = unsafe { libc::lgetxattr(c.as_ptr(), name.as_ptr(), at.cast(), size) };
    let length = Errno::result(length).map_err(|errno| failed(path, errno))?;
    value.truncate(length as usize);
    Ok(value)
}

fn set(path: &Path, name: &CStr, value: &[u8]) -> nix::Result<()> {
    let c = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: path and name are terminated, and the value is as long as said.
    let done = unsafe {
        libc::lsetxattr(c.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Errno::result(done).map(drop)
}

fn failed(path: &Path, errno: Errno) -> Error {
    Error::failed(format!("cannot copy the attributes of '{}'", path.display())).because(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_owner_mode_times_attributes_and_links() {
        let dir = std::env::temp_dir().join(format!("banger-copy-{}", std::process::id()));
        let (from, to) = (dir.join("from"), dir.join("to"));
        fs::create_dir_all(from.join("sub/deep")).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(from.join("sub/file"), "text").unwrap();
        fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(from.join("sub/file"), from.join("other")).unwrap();
        symlink("/nowhere", from.join("link")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap());
        fs::hard_link(from.join("socket"), from.join("sub/socket")).unwrap();
        nix::unistd::mkfifo(&from.join("pipe"), Mode::S_IRWXU).unwrap();
        let attribute_set = set_attribute(&from.join("sub/file"), "user.note", b"x").is_ok();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o710)).unwrap();
        let old = TimeSpec::new(1_000_000, 5);
        for path in ["sub", "sub/file"] {
            utimensat(
                nix::fcntl::AT_FDCWD,
                &from.join(path),
                &old,
                &old,
                UtimensatFlags::NoFollowSymlink,
            )
            .unwrap();
        }
        tree(&from, &to, &[]).unwrap();
        let meta = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
        assert_eq!(fs::read(to.join("sub/file")).unwrap(), b"text");
        assert_eq!(meta("sub/file").mode() & 0o7777, 0o4751);
        assert_eq!(meta("sub/file").ino(), meta("other").ino());
        assert_eq!(meta("sub").mtime(), 1_000_000);
        assert_eq!(meta("sub/file").mtime_nsec(), 5);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/nowhere"));
        assert!(meta("sub/deep").is_dir());
        assert!(!to.join("socket").exists() && !to.join("sub/socket").exists());
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o710);
        assert_eq!(has_attribute(&to.join("sub/file"), "user.note"), attribute_set);
        fs::remove_dir_all(&dir).unwrap();
    }
}
