//! Where the guest's own git stands: HEAD, references, index.

use super::{
    found::{Look, is_no_directory, small, small_files},
    ignored::MAX_RULES,
};
use crate::{
    git::{DIR, MODULE, is_oid, lines},
    host::index::{self, index_line, index_sum},
    names::is_ref_name,
    prepare::ready::parse_packed_refs,
    record::store::Store,
};
use banger_channel::files::{Files, Got, What};
use banger_doc::{Context, Result, Work, WorkKind};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
};

/// The last of what was put aside; the others are in its log alone.
pub(crate) const STASH: &str = "refs/stash";
/// The largest log of it that is read.
const MAX_STASH: u64 = 256 << 10;

/// Reads HEAD, the references and the index of the guest's repository, and returns what it ignores
/// beside the rules in its tree.
pub(super) fn read_position(
    files: &Files<'_>,
    root: &str,
    look: &mut Look,
    oid_len: usize,
) -> Result<Option<Vec<u8>>> {
    let names: [&[u8]; 3] = [b".git/HEAD", b".git/packed-refs", b".git/index"];
    let mut read = small_files(files, root, &names, u64::MAX)?;
    let rules = small_files(files, root, &[b".git/info/exclude"], MAX_RULES)?.remove(&0);
    let head = read.remove(&0).unwrap_or_default();
    look.position.head = String::from_utf8_lossy(&head).trim().chars().take(1100).collect();
    let packed = read.remove(&1).unwrap_or_default();
    let budget = files.budget();
    let lines = packed.split(|byte| *byte == b'\n').count() as u64;
    budget.take_names(lines, packed.len() as u64)?;
    look.position.refs = parse_packed_refs(&packed);
    let mut loose: Vec<Vec<u8>> = Vec::new();
    let scanned = files.within(small).scan(&format!("{root}/.git/refs"), |entry| {
        budget.take_names(2, 2 * entry.path.len() as u64)?;
        if entry.what == What::File && entry.size < 4096 {
            loose.push([b"refs/", entry.path.as_slice()].concat());
        }
        Ok(())
    });
    match scanned {
        Err(error) if is_no_directory(&error) => {}
        other => other?,
    }
    let branch = look.position.head.strip_prefix("ref: ");
    if branch.is_some_and(|branch| !is_ref_name(branch)) {
        // So it is where they lie in tables.
        look.left.push(Work::new(WorkKind::Commits, "branches in a form that is not read"));
    }
    let asked: Vec<&[u8]> = loose.iter().map(Vec::as_slice).collect();
    if !asked.is_empty() {
        let refs = &mut look.position.refs;
        files.within(small).get(&format!("{root}/.git"), &asked, |index, got| {
            if let Got::File { content, size, .. } = got {
                let mut text = String::new();
                let whole = content.take(4096).read_to_string(&mut text);
                let name = String::from_utf8_lossy(asked[index]).into_owned();
                let oid = text.trim();
                if size < 4096
                    && whole.is_ok()
                    && is_ref_name(&name)
                    && (is_oid(oid) || oid.starts_with("ref: "))
                {
                    refs.insert(name, oid.to_owned());
                }
            }
            Ok(())
        })?;
    }
    // What the guest fetched from elsewhere is no work of its own.
    look.position.refs.retain(|name, _| !name.starts_with("refs/remotes/"));
    let bytes = read.remove(&2).unwrap_or_default();
    if !bytes.is_empty() {
        match index::parse(&bytes, oid_len, index::MOST_OF_GUEST) {
            Ok(index) => {
                look.position.index_sha256 = index_sum(&index);
                look.index.is_whole = !index.is_partial;
                for entry in index.entries {
                    // It goes into two lists, with the name of its object.
                    budget.take_names(2, 2 * entry.path.len() as u64 + 64)?;
                    if entry.skip_worktree {
                        look.index.skipped.insert(entry.path.clone());
                    }
                    let is_plain = entry.stage == 0 && !entry.intent_to_add;
                    if is_plain && entry.mode == MODULE {
                        look.index.modules.insert(entry.path.clone(), entry.oid);
                    } else if is_plain && entry.mode != DIR {
                        look.index.staged.insert(entry.path.clone(), (entry.mode, entry.oid));
                    }
                    look.index.tracked.insert(entry.path);
                }
                if index.is_partial {
                    look.left.push(Work::new(WorkKind::Index, "a split or sparse index"));
                }
            }
            Err(_) => look.left.push(Work::new(WorkKind::Index, "an index that cannot be read")),
        }
    }
    Ok(rules)
}

/// Returns what of the guest's index is on no host and in no tree: the object of each path.
pub(crate) fn staged_only(store: &Store, look: &Look) -> Result<BTreeMap<Vec<u8>, String>> {
    let oids: BTreeSet<&String> = look.index.staged.values().map(|(_, oid)| oid).collect();
    if oids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let git = store.git_for_guest(None);
    let answer = git.run(["cat-file", "--batch-check"], lines(oids).as_bytes())?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let missing: BTreeSet<&str> =
        answer.lines().filter_map(|line| line.strip_suffix(" missing")).collect();
    let staged = look.index.staged.iter().filter(|(_, (_, oid))| missing.contains(oid.as_str()));
    Ok(staged.map(|(path, (_, oid))| (path.clone(), oid.clone())).collect())
}

/// Returns the commits of the guest's stash, the last one first; nothing if not all of them can be told.
pub(crate) fn stashes(
    files: &Files<'_>,
    root: &str,
    look: &Look,
    oid_len: usize,
) -> Result<Vec<String>> {
    let Some(last) = look.position.refs.get(STASH) else { return Ok(Vec::new()) };
    let log = small_files(files, root, &[b".git/logs/refs/stash"], MAX_STASH)?.remove(&0);
    let Some(log) = log else { return Ok(Vec::new()) };
    let text = String::from_utf8_lossy(&log);
    let oids = text.lines().map(|line| line.split(' ').nth(1).unwrap_or_default().to_owned());
    let mut oids: Vec<String> = oids.collect();
    oids.reverse();
    let is_whole = oids.iter().all(|oid| is_oid(oid) && oid.len() == 2 * oid_len);
    Ok(if is_whole && oids.first() == Some(last) { oids } else { Vec::new() })
}

/// Says whether the guest's index lists what the commit `head` holds, if that is known.
pub(crate) fn index_is_committed(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    look: &Look,
    head: &str,
) -> Result<Option<bool>> {
    if !is_oid(head) {
        return Ok(None);
    }
    // Apart from all else, since what lies there under that name is the guest's word.
    let scratch = store.scratch()?;
    let git = store.git_for_guest(Some(&scratch));
    let path = format!(".git/objects/{}/{}", &head[..2], &head[2..]);
    if let Some(object) = small_files(files, root, &[path.as_bytes()], 64 << 10)?.remove(&0) {
        let dir = scratch.objects().join(&head[..2]);
        fs::create_dir_all(&dir).context("cannot make a scratch directory")?;
        fs::write(dir.join(&head[2..]), object).context("cannot write an object")?;
    }
    let commit = git.attempt(["cat-file", "commit", head], b"")?;
    let tree = commit.answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Some(tree) = tree.strip_prefix(b"tree ") else { return Ok(None) };
    let mut lines = Vec::new();
    for (path, (mode, oid)) in &look.index.staged {
        index_line(&mut lines, *mode, oid, path);
    }
    for (path, oid) in &look.index.modules {
        index_line(&mut lines, MODULE, oid, path);
    }
    if !git.attempt(["update-index", "-z", "--index-info"], &lines)?.status.success() {
        return Ok(None);
    }
    let listed = git.attempt(["write-tree", "--missing-ok"], b"")?;
    Ok(listed.status.success().then(|| listed.answer.trim_ascii() == tree))
}
