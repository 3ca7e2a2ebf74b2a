//! Where the host has what it renamed, so that the guest's changes go there.

use super::{checkout::Checkout, decide::File, work::text};
use crate::{
    export::sides::Sides, git::split_zero, host::index::index_line, host::walk,
    temporary::Temporary,
};
use banger_doc::{Context, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

/// The most files that one may have been renamed to, and the largest.
const MOST: usize = 1000;
const LARGEST: u64 = 1 << 20;

/// Finds new files of the host's that are like those of `lost`, which went in and are not there.
pub(super) fn renamed_on_host(
    folder: &Path,
    sides: &Sides,
    checkout: &Checkout,
    lost: &BTreeMap<&Vec<u8>, &File>,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let Some(repository) = checkout.repository.as_ref().filter(|_| !lost.is_empty()) else {
        return Ok(BTreeMap::new());
    };
    let listed = repository.index.entries.iter().filter(|entry| entry.stage == 0);
    let mut new: BTreeSet<Vec<u8>> = listed.map(|entry| entry.path.clone()).collect();
    new.extend(walk::untracked(repository, None)?.files);
    new.retain(|path| !sides.given.contains_key(path));
    if new.len() > MOST {
        return Ok(BTreeMap::new());
    }
    let copies = Temporary::beside(folder)?;
    let (mut paths, mut names) = (Vec::new(), String::new());
    for path in new {
        // What is gone meanwhile, a link or large is none of them.
        let Ok(Some(bytes)) = text(&checkout.root, &path, LARGEST) else { continue };
        let copy = copies.path().join(paths.len().to_string());
        fs::write(&copy, bytes).context("cannot write a copy to compare")?;
        let _ = writeln!(names, "{}", copy.display());
        paths.push(path);
    }
    if paths.is_empty() {
        return Ok(BTreeMap::new());
    }
    let store = &sides.store;
    let seen = [store.dir.clone(), store.local.clone(), copies.path().to_owned()];
    let git = sides.git_for_guest().jailed(seen, Some(sides.scratch.path()));
    let oids = git.run(["hash-object", "-w", "--no-filters", "--stdin-paths"], names.as_bytes())?;
    let oids = String::from_utf8_lossy(&oids).into_owned();
    let tree = |name: &str, lines: &[u8]| {
        let git = git.clone().env("GIT_INDEX_FILE", sides.scratch.path().join(name));
        git.run(["update-index", "-z", "--index-info"], lines)?;
        git.text(["write-tree", "--missing-ok"])
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (path, file) in lost {
        index_line(&mut before, 0o100_644, &file.oid, path);
    }
    for (path, oid) in paths.iter().zip(oids.lines()) {
        index_line(&mut after, 0o100_644, oid, path);
    }
    let (before, after) = (tree("renames-before", &before)?, tree("renames-after", &after)?);
    let words =
        ["diff-tree", "-r", "-z", "-M", "--diff-filter=R", "--name-status", &before, &after];
    let answer = git.run(words, b"")?;
    let mut fields = split_zero(&answer);
    let mut renamed = BTreeMap::new();
    while let (Some(_), Some(from), Some(to)) = (fields.next(), fields.next(), fields.next()) {
        renamed.insert(from.to_vec(), to.to_vec());
    }
    Ok(renamed)
}
