//! What rules of the guest's ignore.

use super::found::{ENTRY, Look, MAX_LEFT, small};
use crate::{
    prepare::plan::is_safe,
    record::store::Store,
    scratch::{MAX_ALL_RULES, Scratch, make_dirs},
};
use banger_channel::files::{Files, Got, What};
use banger_doc::{Context, Error, Result};
use std::fs;

/// The largest list of what to ignore, or of attributes.
pub(super) const MAX_RULES: u64 = 1 << 20;

/// Returns which of `paths` and of the directories `dirs` a rule ignores, by those that lie in the
/// guest's tree and by `rules`.
#[allow(clippy::too_many_arguments, reason = "each is another part of one question")]
pub(super) fn ignored(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    look: &Look,
    rules: Option<&[u8]>,
    paths: &[&Vec<u8>],
    dirs: &[&[u8]],
    is_repository: bool,
) -> Result<Ignored> {
    if paths.is_empty() && dirs.is_empty() {
        return Ok(Ignored::default());
    }
    // Each is asked for and answered.
    let bytes: usize = paths.iter().map(|path| 2 * path.len() + ENTRY).sum();
    files.budget().take_names(0, bytes as u64)?;
    let scratch = store.scratch()?;
    let name: &[u8] = if is_repository { b".gitignore" } else { b".bangerignore" };
    write_rules(files, root, store, look, name, b".gitignore", &scratch)?;
    // The guest's list stands for the one that it was given.
    let excludes = scratch.path().join("exclude");
    fs::write(&excludes, rules.unwrap_or_default()).context("cannot write a list of rules")?;
    let mut input = Vec::with_capacity(bytes / 2);
    // Some rules are for directories alone, and git looks whether it is one.
    let dirs = dirs.iter().filter(|dir| is_safe(dir)).take(MAX_LEFT * 10);
    let tree = scratch.open_tree()?;
    for dir in dirs.clone() {
        // What cannot be made is taken for a file: at worst it counts as work.
        let _ = make_dirs(&tree, dir);
    }
    for path in paths.iter().map(|path| path.as_slice()).chain(dirs.copied()) {
        // A first ':' would be taken for a pattern's magic.
        input.extend_from_slice(b"./");
        input.extend_from_slice(path);
        input.push(0);
    }
    let git = store
        .git_for_guest(Some(&scratch))
        .work_tree(&scratch.tree())
        .set(format!("core.excludesFile={}", excludes.display()));
    let ended = git.attempt(["check-ignore", "-z", "--stdin", "--no-index"], &input)?;
    if ended.status.code().is_none_or(|code| code > 1) {
        let said = ended.words.trim().lines().next_back().unwrap_or("").to_owned();
        return Err(Error::failed("cannot tell what the guest ignores")
            .because(said.escape_debug().to_string()));
    }
    scratch.remove()?;
    Ok(Ignored::new(ended.answer))
}

/// Paths that a rule ignores, as git answered them.
#[derive(Debug, Default)]
pub(super) struct Ignored {
    answer: Vec<u8>,
    /// Where each begins and ends, in the order of the paths.
    places: Vec<(usize, usize)>,
}

impl Ignored {
    fn new(answer: Vec<u8>) -> Self {
        let mut places = Vec::new();
        let mut start = 0;
        for part in answer.split(|byte| *byte == 0) {
            if part.starts_with(b"./") {
                places.push((start + 2, start + part.len()));
            }
            start += part.len() + 1;
        }
        places.sort_unstable_by(|a, b| answer[a.0..a.1].cmp(&answer[b.0..b.1]));
        Self { answer, places }
    }

    pub(super) fn contains(&self, path: &[u8]) -> bool {
        let order = |place: &(usize, usize)| self.answer[place.0..place.1].cmp(path);
        self.places.binary_search_by(order).is_ok()
    }
}

/// Copies all files named `name` of the guest's tree to the scratch tree, as `new_name`.
#[allow(clippy::too_many_arguments, reason = "each is another part of one question")]
pub(super) fn write_rules(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    look: &Look,
    name: &[u8],
    new_name: &[u8],
    scratch: &Scratch,
) -> Result<()> {
    let rules: Vec<&[u8]> = look
        .entries
        .iter()
        .filter(|(path, entry)| {
            path.rsplit(|byte| *byte == b'/').next() == Some(name)
                && entry.what == What::File
                && entry.size <= MAX_RULES
                && is_safe(path)
        })
        .map(|(path, _)| path.as_slice())
        .collect();
    // Git reads those that are absent on purpose from the index.
    let absent = look.index.skipped.iter().filter(|path| {
        path.rsplit(|byte| *byte == b'/').next() == Some(name)
            && is_safe(path)
            && !look.entries.contains_key(*path)
    });
    let absent: Vec<_> =
        absent.filter_map(|path| Some((path, &look.index.staged.get(path)?.1))).collect();
    let oids = absent.iter().map(|(_, oid)| *oid).collect();
    let blobs = store.blobs(&oids, MAX_RULES, MAX_ALL_RULES)?;
    // As much is read from the index, where their files are absent on purpose.
    let mut left = MAX_ALL_RULES;
    for (path, oid) in absent {
        // The guest's index may name one a million times.
        let Some(rules) = blobs.get(oid).filter(|rules| rules.len() as u64 <= left) else {
            continue;
        };
        left -= rules.len() as u64;
        let dir = path.strip_suffix(name).unwrap_or_default();
        scratch.write(&[dir, new_name].concat(), false, &mut rules.as_slice())?;
    }
    if rules.is_empty() {
        return Ok(());
    }
    files.within(small).get(root, &rules, |index, got| {
        if let Got::File { content, size, .. } = got
            && size <= MAX_RULES
        {
            let dir = rules[index].strip_suffix(name).unwrap_or_default();
            scratch.write(&[dir, new_name].concat(), false, content)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_ignores_is_found_by_its_path() {
        let ignored = Ignored::new(b"./z\0./a/b\0odd\0./a\0".to_vec());
        for path in ["z", "a/b", "a"] {
            assert!(ignored.contains(path.as_bytes()), "{path}");
        }
        for path in ["odd", "b", "", "./a", "a/"] {
            assert!(!ignored.contains(path.as_bytes()), "{path}");
        }
        assert!(!Ignored::default().contains(b""));
    }
}
