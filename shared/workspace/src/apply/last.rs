//! What a checkout got from the guest the last time: the next apply begins from there.

use super::{
    decide::File,
    merge::{MOST, is_text},
};
use crate::{
    host::{self, Dir},
    record::given::{self, Given, Sort},
    temporary::{Temporary, remove},
};
use banger_doc::{Context, Result, Workspace};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Where it lies, in the folder of a workspace.
const PLACE: &str = "applied";
const ABOUT: &str = "about.json";
const FILES: &str = "tree.jsonl";
/// The largest file that is kept to merge with, and the most bytes of all of them.
const MOST_EACH: u64 = 4 << 20;
const MOST_OF_ALL: u64 = 256 << 20;

/// Of which checkout it is.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
struct About {
    root: PathBuf,
    prepared_unix_ms: u64,
    prepared_tree: String,
}

impl About {
    fn of(record: &Workspace, root: &Path) -> Self {
        let prepared_tree = record.prepared_tree.clone();
        Self { root: root.to_owned(), prepared_unix_ms: record.prepared_unix_ms, prepared_tree }
    }
}

/// What a checkout got: what of it is not as it went in.
#[derive(Debug)]
pub(super) struct Last {
    dir: PathBuf,
    files: BTreeMap<Vec<u8>, Option<File>>,
}

impl Last {
    /// Reads what the checkout at `root` got since the workspace was prepared, if it got anything.
    pub(super) fn read(folder: &Path, record: &Workspace, root: &Path) -> Option<Self> {
        let dir = folder.join(PLACE);
        let about = banger_state::read_limited(&dir.join(ABOUT), 1 << 20).ok()?;
        let about: About = serde_json::from_slice(&about).ok()?;
        if about != About::of(record, root) {
            return None;
        }
        let file = |given: Given| {
            let is_there = given.sort != Sort::Sparse;
            is_there.then_some(File { mode: given.mode, sum: given.sum, oid: given.oid })
        };
        let files = given::read(&dir.join(FILES)).ok()?;
        Some(Self { dir, files: files.into_iter().map(|(path, g)| (path, file(g))).collect() })
    }

    /// Returns the paths that were not as they went in.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.files.keys()
    }

    /// Returns what a path was, if it was not as it went in.
    pub(super) fn file(&self, path: &[u8]) -> Option<&Option<File>> {
        self.files.get(path)
    }

    /// Returns the text of a file, if it was kept.
    pub(super) fn text(&self, file: &File) -> Option<Vec<u8>> {
        let dir = Dir::open(&self.dir).ok()?;
        let name = file.sum.as_bytes();
        host::read(&dir.file(name).ok()?, MOST, &dir.join(name)).ok()
    }
}

/// Writes down what a checkout got: `files` of the guest's that are not as they went in, of which `text` reads
/// the content.
pub(super) fn write(
    folder: &Path,
    record: &Workspace,
    root: &Path,
    files: &BTreeMap<Vec<u8>, Option<File>>,
    text: impl Fn(&[u8], u64) -> Option<Vec<u8>>,
) -> Result<()> {
    let new = Temporary::beside(folder)?;
    let said = || format!("cannot write '{}'", folder.join(PLACE).display());
    let absent = Given {
        sort: Sort::Sparse,
        mode: 0,
        sum: String::new(),
        oid: String::new(),
        beside: None,
        host: None,
        guest: None,
    };
    let mut left = MOST_OF_ALL;
    let mut tree = given::Tree::new();
    for (path, file) in files {
        let Some(file) = file else {
            tree.insert(path.clone(), absent.clone());
            continue;
        };
        let sort = if file.is_link() { Sort::Link } else { Sort::File };
        let (mode, sum, oid) = (file.mode, file.sum.clone(), file.oid.clone());
        tree.insert(path.clone(), Given { sort, mode, sum, oid, ..absent.clone() });
        if sort == Sort::File
            && let Some(bytes) = text(path, MOST_EACH.min(left)).filter(|bytes| is_text(bytes))
        {
            left -= bytes.len() as u64;
            fs::write(new.path().join(&file.sum), bytes).with_context(said)?;
        }
    }
    given::write(&new.path().join(FILES), &tree)?;
    let about = serde_json::to_vec(&About::of(record, root)).with_context(said)?;
    fs::write(new.path().join(ABOUT), about).with_context(said)?;
    let place = folder.join(PLACE);
    remove(&place)?;
    fs::rename(new.path(), &place).with_context(said)
}
