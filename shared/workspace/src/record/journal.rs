//! What was given path by path since the list of it was written: a line before a path is written to in the
//! guest, and one after. A list is long, and a watched edit is not to wait for it.

use crate::record::given::{Given, Tree};
use banger_doc::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

/// The name in the folder of a workspace.
pub(crate) const NAME: &str = "changes.jsonl";
/// The longest line.
const MAX_LINE: u64 = 64 << 10;
/// The largest that is read; one is made part of the list long before.
const MAX_SIZE: u64 = 1 << 30;

/// A step that is written down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// The guest is about to be given this.
    Announced,
    /// The guest has it.
    Done,
}

/// What it begins with.
#[derive(Deserialize, Serialize)]
struct Head {
    /// The list that it adds to.
    tree_file: String,
}

#[derive(Deserialize, Serialize)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_bytes: Option<Vec<u8>>,
    is_done: bool,
    /// None: nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given: Option<Given>,
}

/// A journal that is written.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    size: u64,
}

impl Journal {
    /// Begins one in the folder of a workspace for the list `tree_file`, in the place of any other.
    pub(crate) fn begin(folder: &Path, tree_file: &str) -> Result<Self> {
        let path = folder.join(NAME);
        let mut head = serde_json::to_vec(&Head { tree_file: tree_file.to_owned() })
            .context("cannot write a journal")?;
        head.push(b'\n');
        banger_state::replace(&path, &head)?;
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.with_context(|| format!("cannot open '{}'", path.display()))?;
        Ok(Self { file, path, size: head.len() as u64 })
    }

    /// Returns how large it is, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds steps. What is announced is on the disk when this returns.
    pub(crate) fn add<'a>(
        &mut self,
        step: Step,
        steps: impl Iterator<Item = (&'a Vec<u8>, Option<&'a Given>)>,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        for (path, given) in steps {
            let text = String::from_utf8(path.clone()).ok();
            let path_bytes = text.is_none().then(|| path.clone());
            let is_done = step == Step::Done;
            let line = Line { path: text, path_bytes, is_done, given: given.cloned() };
            serde_json::to_writer(&mut bytes, &line).context("cannot write a journal")?;
            bytes.push(b'\n');
        }
        let said = || format!("cannot write '{}'", self.path.display());
        self.file.write_all(&bytes).with_context(said)?;
        if step == Step::Announced {
            self.file.sync_data().with_context(said)?;
        }
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// A journal that was read.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The list that it adds to.
    pub(crate) tree_file: String,
    /// What the guest has.
    pub(crate) done: Vec<(Vec<u8>, Option<Given>)>,
    /// What it may have.
    pub(crate) open: Vec<(Vec<u8>, Option<Given>)>,
}

/// Reads the journal in a folder, if there is one. A last line that a kill cut off says nothing.
pub(crate) fn read(folder: &Path) -> Result<Option<Told>> {
    let path = folder.join(NAME);
    let said = || format!("cannot read '{}'", path.display());
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(said),
    };
    let mut reader = BufReader::with_capacity(256 << 10, file.take(MAX_SIZE));
    let mut line = Vec::new();
    let mut next = || -> Result<Option<Vec<u8>>> {
        line.clear();
        (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).with_context(said)?;
        Ok(line.strip_suffix(b"\n").map(<[u8]>::to_vec))
    };
    let damaged = |error: serde_json::Error| {
        Error::failed(format!("cannot read '{}'", path.display()))
            .because(Error::failed("a line is damaged").because(error))
    };
    let Some(head) = next()? else { return Ok(Some(Told::default())) };
    let head: Head = serde_json::from_slice(&head).map_err(damaged)?;
    let mut open: std::collections::BTreeMap<Vec<u8>, Option<Given>> = [].into();
    let mut told = Told { tree_file: head.tree_file, ..Told::default() };
    while let Some(line) = next()? {
        let line: Line = serde_json::from_slice(&line).map_err(damaged)?;
        let name = line.path.map(String::into_bytes).or(line.path_bytes);
        let Some(name) = name else { continue };
        if line.is_done {
            open.remove(&name);
            told.done.push((name, line.given));
        } else {
            open.insert(name, line.given);
        }
    }
    told.open = open.into_iter().collect();
    Ok(Some(told))
}

/// Makes a step of it part of a tree.
pub(crate) fn apply(tree: &mut Tree, path: &[u8], given: Option<&Given>) {
    match given {
        Some(given) => drop(tree.insert(path.to_vec(), given.clone())),
        None => drop(tree.remove(path)),
    }
}

/// Removes the journal of a folder.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    let path = folder.join(NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove '{}'", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::given::Sort;

    fn given(sum: &str) -> Given {
        let (sort, mode, oid) = (Sort::File, 0o100_644, "1".repeat(40));
        Given { sort, mode, sum: sum.into(), oid, beside: None, host: None, guest: None }
    }

    #[test]
    fn what_is_cut_off_anywhere_says_what_was_whole() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
        let mut journal = Journal::begin(dir.path(), "tree-7.jsonl").unwrap();
        let (a, b, c) = (b"a\nb".to_vec(), b"\xff".to_vec(), b"c".to_vec());
        let (one, two) = (given("1"), given("2"));
        journal.add(Step::Announced, [(&a, Some(&one)), (&b, None)].into_iter()).unwrap();
        journal.add(Step::Done, [(&a, Some(&one)), (&b, None)].into_iter()).unwrap();
        journal.add(Step::Announced, [(&c, Some(&two)), (&a, Some(&two))].into_iter()).unwrap();
        let told = read(dir.path()).unwrap().unwrap();
        assert_eq!(told.tree_file, "tree-7.jsonl");
        assert_eq!(told.done, [(a.clone(), Some(one)), (b, None)]);
        assert_eq!(told.open, [(a, Some(two.clone())), (c, Some(two))]);
        let whole = fs::read(dir.path().join(NAME)).unwrap();
        assert_eq!(journal.size(), whole.len() as u64);
        for end in 0..whole.len() {
            fs::write(dir.path().join(NAME), &whole[..end]).unwrap();
            let lines = String::from_utf8_lossy(&whole[..end]).matches('\n').count();
            let told = read(dir.path()).unwrap().unwrap();
            assert_eq!(told.done.len(), lines.saturating_sub(3).min(2), "{end}");
        }
        fs::write(dir.path().join(NAME), "{}\n").unwrap();
        assert!(read(dir.path()).is_err());
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert!(read(dir.path()).unwrap().is_none());
    }
}
