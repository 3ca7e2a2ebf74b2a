//! Which of the files that were given are as they were.

use super::found::{How, Look, mode_of, seen};
use crate::{
    git::{DIR, LINK, MODULE},
    names::hex,
    prepare::plan::has_git,
    record::given::{Given, Sort, Tree},
};
use banger_channel::files::{Entry, Files, What};
use banger_doc::Result;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Says whether what lies in the guest is of the sort and has the mode that were given.
pub(crate) fn is_alike(given: &Given, entry: &Entry, keeps_mode: bool) -> bool {
    match entry.what {
        What::Dir => given.mode == DIR || given.mode == MODULE,
        What::Link => given.mode == LINK && !given.sum.is_empty(),
        What::File => {
            given.mode == mode_of(entry)
                || (keeps_mode && given.mode & 0o170_000 == 0o100_000)
                || (given.mode == LINK && given.sort == Sort::File)
        }
        What::Other | What::Closed => false,
    }
}

pub(super) fn compare(
    files: &Files<'_>,
    root: &str,
    look: &mut Look,
    given: &Tree,
    next: Option<&Tree>,
    keeps_mode: bool,
) -> Result<()> {
    let empty = Tree::new();
    let next = next.unwrap_or(&empty);
    let paths: BTreeSet<&Vec<u8>> = given.keys().chain(next.keys()).collect();
    let mut unsure: Vec<&Vec<u8>> = Vec::new();
    for path in paths {
        if has_git(path) || look.is_hidden(path) {
            continue;
        }
        let candidates: Vec<&Given> =
            [given.get(path), next.get(path)].into_iter().flatten().collect();
        let may_be_absent = candidates.iter().any(|given| !given.is_there())
            || (!next.is_empty() && (!next.contains_key(path) || !given.contains_key(path)));
        let Some(entry) = look.entries.get(path) else {
            if !may_be_absent {
                look.changes.insert(path.clone(), How::Deleted);
            }
            continue;
        };
        let alike: Vec<&&Given> =
            candidates.iter().filter(|given| is_alike(given, entry, keeps_mode)).collect();
        let is_same = match entry.what {
            What::Dir => !alike.is_empty(),
            What::Link => {
                let sum = hex(&Sha256::digest(&entry.target));
                alike.iter().any(|given| given.sum == sum)
            }
            _ => alike.iter().any(|given| given.guest == Some(seen(entry))),
        };
        if is_same {
            look.same.insert(path.clone(), seen(entry));
        } else if entry.what == What::File && !alike.is_empty() {
            unsure.push(path);
        } else if entry.what != What::Dir || candidates.iter().all(|given| given.is_there()) {
            look.changes.insert(path.clone(), How::Modified);
        }
    }
    let asked: Vec<&[u8]> = unsure.iter().map(|path| path.as_slice()).collect();
    if asked.is_empty() {
        return Ok(());
    }
    let sums = files.hash(root, &asked)?;
    for (path, sum) in unsure.into_iter().zip(sums) {
        let sum = sum.map(|sum| hex(&sum)).unwrap_or_default();
        let is_same = [given.get(path), next.get(path)]
            .into_iter()
            .flatten()
            .any(|given| given.sum == sum && (!given.oid.is_empty() || given.sort == Sort::Inner));
        match look.entries.get(path) {
            Some(entry) if is_same => {
                look.same.insert(path.clone(), seen(entry));
            }
            _ => {
                look.changes.insert(path.clone(), How::Modified);
            }
        }
    }
    Ok(())
}
