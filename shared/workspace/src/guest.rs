//! Looking at what a guest made of what it was given, believing nothing it says.

mod commits;
mod compare;
mod found;
mod ignored;
mod inside;
mod position;
mod tree;

pub(crate) use commits::own_commits;
pub(crate) use compare::is_alike;
pub(crate) use found::{Changes, How, Look, is_no_directory, seen, small_files};
pub(crate) use inside::linked_heads;
pub(crate) use position::{STASH, index_is_committed, staged_only, stashes};
pub(crate) use tree::{differences, tree_of};

use crate::{
    git::split_zero,
    host::source::is_absent,
    path::shown,
    prepare::plan::{has_git, is_safe},
    record::given::{Given, Sort, Tree},
    record::store::Store,
};
use banger_channel::files::{Files, MARK, What};
use banger_doc::{Error, Result, Work, WorkKind, Workspace};
use compare::compare;
use found::{ENTRY, MAX_LEFT, holds};
use ignored::ignored;
use inside::{linked_work_trees, moved_modules};
use position::read_position;
use std::collections::BTreeSet;

/// Looks at the guest's tree. A path that is as in `given` or as in `next` is no change.
pub(crate) fn look(
    files: &Files<'_>,
    record: &Workspace,
    store: &Store,
    given: &Tree,
    next: Option<&Tree>,
    keeps_mode: bool,
) -> Result<Look> {
    let (root, is_repository) = (record.guest_path.as_str(), record.is_repository);
    let mut look = Look { is_there: true, is_empty: true, ..Look::default() };
    let mut inner_repositories = Vec::new();
    let mut has_git_dir = false;
    let budget = files.budget();
    let scanned = files.scan(root, |mut entry| {
        look.is_empty = false;
        budget.take_name(entry.path.len() + entry.target.len() + ENTRY)?;
        let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        has_git_dir |= entry.path == b".git";
        if entry.what != What::Dir && name.starts_with(MARK.as_bytes()) {
            look.litter.push(entry.path);
        } else if let Some(dir) = entry.path.strip_suffix(b"/.git") {
            let inside = [&entry.path[..], b"/"].concat();
            let was_given =
                given.contains_key(&entry.path) || holds(given.range(inside.clone()..), &inside);
            if !was_given && !has_git(dir) {
                inner_repositories.push([dir, b"/"].concat());
            }
        } else if entry.path != b".git" && !has_git(&entry.path) {
            if entry.what == What::Closed {
                look.closed.insert(entry.path);
            } else {
                look.entries.insert(std::mem::take(&mut entry.path), entry);
            }
        }
        Ok(())
    });
    match scanned {
        Err(error) if is_absent(&error) => {
            look.is_there = false;
            return Ok(look);
        }
        other => other?,
    }
    for path in look.entries.keys().chain(&look.closed) {
        let parent = path.iter().rposition(|byte| *byte == b'/').map(|at| &path[..at]);
        let parent = parent.and_then(|parent| look.entries.get(parent));
        if parent.is_some_and(|parent| parent.what != What::Dir) {
            let path = path.escape_ascii();
            return Err(Error::failed(format!(
                "the guest's agent has '{path}' below no directory"
            ))
            .hint("the guest may be broken or hostile"));
        }
    }
    let mut rules = None;
    if is_repository {
        rules = read_position(files, root, &mut look, store.oid_len)?;
    } else if has_git_dir {
        let words = "commits of a repository that the guest made";
        look.left.push(Work::new(WorkKind::Repository, words).at("."));
    }
    let places = set_apart(&mut look, given, &inner_repositories, is_repository);
    compare(files, root, &mut look, given, next, keeps_mode)?;
    let known = |path: &Vec<u8>, is_tracked: bool| {
        let is_known = |given: Option<&Given>| {
            given
                .is_some_and(|given| given.is_there() && !(is_tracked && given.sort == Sort::Inner))
        };
        is_known(given.get(path)) || is_known(next.and_then(|next| next.get(path)))
    };
    let untracked = left_the_index(store, record, &mut look, given, next)?;
    let added: Vec<&Vec<u8>> = look
        .entries
        .iter()
        .filter(|(path, entry)| {
            matches!(entry.what, What::File | What::Link)
                && !known(path, look.index.tracked.contains(*path))
        })
        .map(|(path, _)| path)
        .collect();
    let asked: Vec<&Vec<u8>> = added.iter().copied().chain(&untracked).collect();
    let dirs: Vec<&[u8]> = places.iter().map(|(dir, _)| dir.as_slice()).collect();
    let ignored =
        ignored(files, root, store, &look, rules.as_deref(), &asked, &dirs, is_repository)?;
    for path in added {
        if look.index.tracked.contains(path) || !ignored.contains(path) {
            budget.take_name(2 * path.len())?;
            look.changes.insert(path.clone(), How::Added);
        }
    }
    let mut kept = 0;
    for path in untracked {
        if ignored.contains(&path) {
            look.changes.insert(path, How::Deleted);
        } else {
            kept += 1;
        }
    }
    left_out(&mut look, given, next);
    if kept > 0 {
        let s = if kept == 1 { "" } else { "s" };
        let words = format!("the removal of {kept} file{s} from the index, which no rule ignores");
        look.left.push(Work::new(WorkKind::Untracked, words).times(kept));
    }
    for (dir, work) in &places {
        if !ignored.contains(dir) {
            look.is_in_the_way = true;
            look.left.push(work.clone());
        }
    }
    if is_repository {
        linked_work_trees(files, root, &mut look, &places, &ignored)?;
        moved_modules(files, root, store, &mut look, given, next)?;
    }
    let refused: Vec<Vec<u8>> =
        look.changes.keys().filter(|path| !is_safe(path)).cloned().collect();
    for path in refused {
        look.changes.remove(&path);
        let path = shown(&path);
        let words = format!("'{path}', which git refuses as a path");
        look.left.push(Work::new(WorkKind::Unreadable, words).at(path));
    }
    let count = look.left.len();
    if count > MAX_LEFT {
        look.left.truncate(MAX_LEFT);
        let more = count - MAX_LEFT;
        look.left.push(Work::new(WorkKind::More, format!("{more} more such places")).times(more));
    }
    look.notes.extend(look.left.iter().map(|work| format!("not in a patch: {}", work.words)));
    look.notes.extend(banger_jail::weaker().map(|why| format!("git {why}")));
    Ok(look)
}

/// Takes out of the entries what belongs to repositories of its own, and returns those, and other
/// places that are in no patch, with words for each. As git has it, a directory with files that the
/// outer repository tracks stays a part of that one.
fn set_apart(
    look: &mut Look,
    given: &Tree,
    inner_repositories: &[Vec<u8>],
    is_repository: bool,
) -> Vec<(Vec<u8>, Work)> {
    let mut places = Vec::new();
    let links = look.index.modules.keys();
    let links: BTreeSet<Vec<u8>> = links
        .filter(|path| !given.get(*path).is_some_and(|given| given.sort == Sort::Module))
        .map(|path| [path.as_slice(), b"/"].concat())
        .collect();
    for dir in inner_repositories.iter().chain(&links) {
        let is_link = links.contains(dir);
        let is_part = if is_repository {
            let mut tracked = look.index.tracked.range(dir.clone()..).map(|path| (path, ()));
            holds(&mut tracked, dir)
        } else {
            holds(given.range(dir.clone()..), dir)
        };
        if !is_part || is_link {
            let end = [&dir[..dir.len() - 1], b"0"].concat();
            let inside: Vec<_> =
                look.entries.range(dir.clone()..end).map(|(path, _)| path.clone()).collect();
            for path in inside {
                // What was given, or is listed, is not gone because a repository lies about it.
                if is_link || !(given.contains_key(&path) || look.index.tracked.contains(&path)) {
                    look.entries.remove(&path);
                }
            }
        }
    }
    for dir in inner_repositories {
        let dir = dir.strip_suffix(b"/").unwrap_or(dir);
        let path = shown(dir);
        let words = format!("the repository '{path}' inside the workspace");
        places.push((dir.to_vec(), Work::new(WorkKind::Repository, words).at(path)));
    }
    for path in &look.closed {
        let place = shown(path);
        let words = format!("'{place}', which could not be looked into");
        places.push((path.clone(), Work::new(WorkKind::Unreadable, words).at(place)));
    }
    places
}

/// Finds what the guest took out of its index: a submodule or a path that is absent on purpose is
/// then deleted. Returns files of the prepared commit that still lie there.
fn left_the_index(
    store: &Store,
    record: &Workspace,
    look: &mut Look,
    given: &Tree,
    next: Option<&Tree>,
) -> Result<Vec<Vec<u8>>> {
    if !look.index.is_whole {
        return Ok(Vec::new());
    }
    let mut lying = Vec::new();
    for (path, was) in given {
        let is_next = next.is_none_or(|next| next.get(path).is_some_and(|n| n.sort == was.sort));
        if look.index.tracked.contains(path) || !is_next {
            continue;
        }
        match was.sort {
            Sort::Sparse | Sort::Module if !look.changes.contains_key(path) => {
                look.changes.insert(path.clone(), How::Deleted);
            }
            Sort::File | Sort::Link if look.entries.contains_key(path) => lying.push(path.clone()),
            _ => {}
        }
    }
    for (path, oid) in &look.index.modules {
        let same = |given: Option<&Given>| {
            given.is_some_and(|given| given.sort == Sort::Module && given.oid == *oid)
        };
        if !same(given.get(path)) && !same(next.and_then(|next| next.get(path))) {
            let how = if given.contains_key(path) { How::Modified } else { How::Added };
            look.changes.insert(path.clone(), how);
        }
    }
    let Some(commit) = record.base_commit.as_ref().filter(|_| !lying.is_empty()) else {
        return Ok(Vec::new());
    };
    let git = store.git_for_guest(None);
    let listed = git.run(["ls-tree", "-r", "-z", "--name-only", commit], b"")?;
    let listed: BTreeSet<&[u8]> = split_zero(&listed).collect();
    lying.retain(|path| listed.contains(path.as_slice()));
    Ok(lying)
}

/// Notes versions of files that lie in commits or the index, and whose files are absent on purpose.
fn left_out(look: &mut Look, given: &Tree, next: Option<&Tree>) {
    let is_given = |path: &Vec<u8>, staged: &(u32, String)| {
        let is_same = |given: &Given| (given.mode, &given.oid) == (staged.0, &staged.1);
        given.get(path).is_some_and(is_same)
            || next.and_then(|next| next.get(path)).is_some_and(is_same)
    };
    let absent = look.index.skipped.iter().filter(|path| !look.entries.contains_key(*path));
    let staged = absent.filter_map(|path| Some((path, look.index.staged.get(path)?)));
    let changed: Vec<&Vec<u8>> =
        staged.filter(|(path, staged)| !is_given(path, staged)).map(|(path, _)| path).collect();
    if let Some(path) = changed.first() {
        let path = shown(path);
        let words = match changed.len() {
            1 => format!("a version of '{path}', which is absent on purpose"),
            count => {
                format!("versions of {count} files that are absent on purpose, as of '{path}'")
            }
        };
        look.left.push(Work::new(WorkKind::Index, words).at(path).times(changed.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn an_index_of_links_alone_takes_no_time() {
        let mut look = Look::default();
        for n in 0..100_000 {
            look.index.modules.insert(format!("link-{n}").into_bytes(), "f".repeat(40));
        }
        let begin = Instant::now();
        let places = set_apart(&mut look, &Tree::new(), &[], true);
        assert!(places.is_empty() && begin.elapsed() < Duration::from_secs(5));
    }
}
