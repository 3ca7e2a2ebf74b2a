//! What a guest was given: a line for each path, beside the VM's `workspace.json`.

use banger_doc::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

/// The longest line.
const MAX_LINE: u64 = 64 << 10;
/// The most lines.
const MAX_LINES: usize = 5_000_000;

/// What sort of thing was given.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sort {
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// An empty directory.
    Dir,
    /// Nothing: a tracked path that a sparse checkout leaves out.
    Sparse,
    /// Nothing: the place of a submodule, whose files follow as [`Sort::Inner`].
    Module,
    /// A file or link of a submodule or of git's own, part of no tree of this repository.
    Inner,
}

/// How something was taken along that nobody tracks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Beside {
    /// No rule ignored it.
    Untracked,
    /// A rule ignored it; it was asked for.
    Ignored,
}

/// What lstat(2) said of a file when its content was known.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Seen {
    /// Size, in bytes.
    pub(crate) size: u64,
    /// Modification time.
    pub(crate) mtime_ns: i64,
    /// Change time.
    pub(crate) ctime_ns: i64,
    /// Inode number.
    pub(crate) ino: u64,
}

/// What a guest was given at one path.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Given {
    /// What sort of thing it is.
    pub(crate) sort: Sort,
    /// Type and permissions, as in a tree of git.
    pub(crate) mode: u32,
    /// SHA-256 of the content or of the link's target, in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) sum: String,
    /// The object of git that stands for it; empty if none is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) oid: String,
    /// How it was taken along if the host tracks it not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) beside: Option<Beside>,
    /// The file on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<Seen>,
    /// The file in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guest: Option<Seen>,
}

impl Given {
    /// Returns what stands for an object of git of which no file lies there.
    pub(crate) fn of_object(sort: Sort, mode: u32, oid: String) -> Self {
        Self { sort, mode, sum: String::new(), oid, beside: None, host: None, guest: None }
    }

    /// Says whether both stand for the same content and permissions.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.sort, self.mode, &self.sum) == (other.sort, other.mode, &other.sum)
    }

    /// Says whether something lies at the path in the guest.
    pub(crate) fn is_there(&self) -> bool {
        matches!(self.sort, Sort::File | Sort::Link | Sort::Dir | Sort::Inner)
    }
}

/// All that a guest was given, by path.
pub(crate) type Tree = BTreeMap<Vec<u8>, Given>;

/// Returns what was given that the host tracks not.
pub(crate) fn beside(tree: &Tree) -> impl Iterator<Item = &Vec<u8>> {
    tree.iter().filter(|(_, given)| given.beside.is_some()).map(|(path, _)| path)
}

#[derive(Deserialize, Serialize)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_bytes: Option<Vec<u8>>,
    #[serde(flatten)]
    given: Given,
}

/// Writes a tree to a new file.
pub(crate) fn write(path: &Path, tree: &Tree) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut writer = BufWriter::new(File::create(path)?);
        for (path, given) in tree {
            let text = String::from_utf8(path.clone()).ok();
            let path_bytes = text.is_none().then(|| path.clone());
            let line = Line { path: text, path_bytes, given: given.clone() };
            serde_json::to_writer(&mut writer, &line)?;
            writer.write_all(b"\n")?;
        }
        writer.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_data()
    };
    write().with_context(|| format!("cannot write '{}'", path.display()))
}

/// Reads a tree.
pub(crate) fn read(path: &Path) -> Result<Tree> {
    let bad = |error: Error| -> Error {
        Error::failed(format!("cannot read '{}'", path.display())).because(error)
    };
    let file = File::open(path).with_context(|| format!("cannot open '{}'", path.display()))?;
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut tree = Tree::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let size = std::io::Read::take(&mut reader, MAX_LINE)
            .read_until(b'\n', &mut line)
            .with_context(|| format!("cannot read '{}'", path.display()))?;
        if size == 0 {
            return Ok(tree);
        }
        let line: Line = serde_json::from_slice(&line)
            .map_err(|error| bad(Error::failed("a line is damaged").because(error)))?;
        let name = line
            .path
            .map(String::into_bytes)
            .or(line.path_bytes)
            .ok_or_else(|| bad(Error::failed("a line has no path")))?;
        tree.insert(name, line.given);
        if tree.len() > MAX_LINES {
            return Err(bad(Error::failed("it has too many lines")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tree");
        let given = Given {
            sort: Sort::File,
            mode: 0o100_644,
            sum: "ab".into(),
            oid: String::new(),
            beside: Some(Beside::Ignored),
            host: Some(Seen { size: 1, mtime_ns: -2, ctime_ns: 3, ino: 4 }),
            guest: None,
        };
        let tree: Tree = [&b"a\nb"[..], b"\xff\xfe", "ü \"".as_bytes()]
            .map(|path| (path.to_vec(), given.clone()))
            .into();
        write(&file, &tree).unwrap();
        assert_eq!(read(&file).unwrap(), tree);
        std::fs::write(&file, "{}\n").unwrap();
        assert!(read(&file).is_err());
    }
}
