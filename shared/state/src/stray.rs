//! What killed programs left behind.

use crate::{State, file::is_abandoned};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// No folder of the state lies deeper; what does is a guest's or a repository's.
const DEPTH: u32 = 5;

impl State {
    /// Lists temporary files whose writers are gone, in all folders but those whose contents are
    /// not banger's own: repositories, and blobs of the cache.
    pub fn abandoned_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(self.root(), DEPTH, &mut found);
        found.sort();
        found
    }
}

fn walk(dir: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            let foreign =
                path.extension().is_some_and(|end| end == "git") || path.ends_with("blobs");
            if depth > 0 && !foreign {
                walk(&path, depth - 1, found);
            }
        } else if is_abandoned(&path) {
            found.push(path);
        }
    }
}
