//! Files below a folder of our own, made from untrusted names.

use banger_doc::{Context, Error, Result};
use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The most bytes one kernel's files have altogether.
pub(crate) const MAX_BYTES: u64 = 4 << 30;
/// The most files one kernel has.
pub(crate) const MAX_FILES: usize = 100_000;
/// The most directories a path of a module goes through.
const MAX_DEPTH: usize = 16;

/// What may still be read from one source.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes of the files that are wanted.
    pub(crate) bytes: u64,
    files: usize,
    /// Bytes that packages may unpack to, what is passed over included.
    pub(crate) plain: u64,
    /// Entries that packages may have.
    pub(crate) entries: usize,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { bytes: MAX_BYTES, files: MAX_FILES, plain: MAX_BYTES, entries: MAX_FILES }
    }

    fn spend(&mut self, what: &str) -> Result<()> {
        self.files = self
            .files
            .checked_sub(1)
            .ok_or_else(|| Error::failed(format!("{what} has more than {MAX_FILES} files")))?;
        Ok(())
    }

    /// Returns what is left after so many bytes.
    fn without(&self, bytes: u64, what: &str) -> Result<u64> {
        self.bytes.checked_sub(bytes).ok_or_else(|| {
            Error::failed(format!("{what} has more than {} GiB of files", MAX_BYTES >> 30))
        })
    }
}

/// Splits a path of an archive into plain names; `None` if it is not made of such.
pub(crate) fn plain(path: &[u8]) -> Option<Vec<&str>> {
    let text = std::str::from_utf8(path).ok()?;
    let names: Vec<&str> =
        text.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    let ok = |name: &&str| {
        name.len() <= 200
            && *name != ".."
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-,@~=:".contains(&b))
    };
    (names.len() <= MAX_DEPTH && names.iter().all(ok)).then_some(names)
}

/// Writes one new file below `root`. `names` come from [`plain`]; `root` holds no links.
pub(crate) fn put(
    root: &Path,
    names: &[&str],
    content: impl Read,
    budget: &mut Budget,
    what: &str,
) -> Result<PathBuf> {
    let mut content = content.take(budget.bytes + 1);
    fill(root, names, 0, budget, what, |file| {
        std::io::copy(&mut content, file).with_context(|| format!("cannot unpack {what}"))
    })
}

/// Writes one new file as [`put`] does, of at least `told` bytes. `fill` writes what is in it and returns
/// how much that is.
pub(crate) fn fill(
    root: &Path,
    names: &[&str],
    told: u64,
    budget: &mut Budget,
    what: &str,
    fill: impl FnOnce(&mut fs::File) -> Result<u64>,
) -> Result<PathBuf> {
    budget.spend(what)?;
    budget.without(told, what)?;
    let path = names.iter().fold(root.to_owned(), |path, name| path.join(name));
    let parent = path.parent().expect("because a file has a name below the root");
    make_dir(parent)?;
    let failed = || format!("cannot write '{}'", path.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&path)
        .with_context(failed)?;
    let copied = fill(&mut file)?;
    file.flush().with_context(failed)?;
    budget.bytes = budget.without(copied, what)?;
    Ok(path)
}

/// Copies a tree of modules. Links are left out: of these, a host has only those to its sources.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let what = format!("'{}'", from.display());
    let mut budget = Budget::new();
    let mut rest = vec![(from.to_owned(), Vec::<String>::new())];
    while let Some((dir, names)) = rest.pop() {
        let failed = || format!("cannot list '{}'", dir.display());
        for entry in fs::read_dir(&dir).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            let kind = entry.file_type().with_context(failed)?;
            let mut below = names.clone();
            below.push(entry.file_name().to_string_lossy().into_owned());
            let path = below.join("/");
            // What the names of modules are not made of is no module, so nothing is lost.
            let Some(plain) = plain(path.as_bytes()) else { continue };
            if kind.is_dir() && !["build", "source"].contains(&path.as_str()) {
                rest.push((entry.path(), below));
            } else if kind.is_file() {
                let file = fs::File::open(entry.path())
                    .with_context(|| format!("cannot open '{}'", entry.path().display()))?;
                put(to, &plain, file, &mut budget, &what)?;
            }
        }
    }
    make_dir(to)
}

fn make_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .with_context(|| format!("cannot make '{}'", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_become_paths() {
        assert_eq!(plain(b"./lib//modules/6.1").unwrap(), ["lib", "modules", "6.1"]);
        for bad in [&b"../x"[..], b"a/../b", b"a\nb", b"\xff", &b"a/".repeat(20), &[b'a'; 300]] {
            assert!(plain(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_copy_leaves_links_out_and_never_writes_twice() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("kernel/fs")).unwrap();
        fs::write(from.join("kernel/fs/x.ko"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", from.join("source")).unwrap();
        let to = dir.path().join("to");
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("kernel/fs/x.ko")).unwrap(), b"x");
        assert!(!to.join("source").exists());
        assert!(copy(&from, &to).is_err());
    }
}
