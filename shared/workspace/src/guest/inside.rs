//! Repositories, work trees and submodules inside a guest's workspace.

use super::{
    found::{Look, is_no_directory, small, small_files},
    ignored::Ignored,
};
use crate::{
    git::MODULE,
    host::index,
    names::hex,
    path::{parents, shown},
    record::given::Tree,
    record::store::Store,
};
use banger_channel::files::{Files, What, is_inside};
use banger_doc::{Result, Work, WorkKind};
use std::collections::{BTreeMap, BTreeSet};

/// How many linked work trees are looked at.
const MAX_WORK_TREES: usize = 4096;

/// Notes the work trees that the guest linked to its repository: what is edited or staged there is
/// in no patch, nor are commits that only its HEAD names.
pub(super) fn linked_work_trees(
    files: &Files<'_>,
    root: &str,
    look: &mut Look,
    places: &[(Vec<u8>, Work)],
    ignored: &Ignored,
) -> Result<()> {
    let dir = format!("{root}/.git/worktrees");
    let mut names: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut has_more = false;
    let scanned = files.within(small).scan(&dir, |entry| {
        if !entry.path.contains(&b'/') && entry.what == What::Dir {
            if names.len() < MAX_WORK_TREES {
                names.insert(entry.path);
            } else {
                has_more = true;
            }
        }
        Ok(())
    });
    match scanned {
        Err(error) if is_no_directory(&error) => return Ok(()),
        other => other?,
    }
    if has_more {
        look.left.push(Work::new(WorkKind::More, "more linked work trees"));
    }
    let of = |file: &[u8]| names.iter().map(|name| [name, file].concat()).collect::<Vec<_>>();
    let (places_of, heads_of) = (of(b"/gitdir"), of(b"/HEAD"));
    let asked: Vec<&[u8]> = places_of.iter().chain(&heads_of).map(Vec::as_slice).collect();
    let mut read =
        if asked.is_empty() { BTreeMap::new() } else { small_files(files, &dir, &asked, 8192)? };
    let counted: BTreeSet<&[u8]> =
        places.iter().map(|(dir, _)| dir.as_slice()).filter(|dir| !ignored.contains(dir)).collect();
    let mut trees = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let place = read.remove(&at).unwrap_or_default();
        let place = place.trim_ascii_end();
        let place = place.strip_suffix(b"/.git").unwrap_or(place).to_vec();
        let inside = place.strip_prefix(root.as_bytes()).and_then(|path| path.strip_prefix(b"/"));
        if !inside.is_some_and(|inside| counted.contains(inside)) {
            let head = read.remove(&(names.len() + at)).unwrap_or_default();
            trees.push((name, place, String::from_utf8_lossy(&head).trim().to_owned()));
        }
    }
    let below =
        |place: &'_ [u8]| place.strip_prefix(b"/").filter(|at| is_inside(at)).map(<[u8]>::to_vec);
    let asked: Vec<Vec<u8>> = trees.iter().filter_map(|(_, place, _)| below(place)).collect();
    let asked: Vec<&[u8]> = asked.iter().map(Vec::as_slice).collect();
    let found =
        if asked.is_empty() { Vec::new() } else { files.within(small).stat("/", &asked)? };
    let mut found = found.into_iter();
    let known: BTreeSet<&String> = look.position.refs.values().collect();
    for (name, place, head) in trees {
        let is_gone = below(&place).is_some() && found.next().is_some_and(|found| found.is_none());
        let is_known =
            head.starts_with("ref: ") || look.position.head == head || known.contains(&head);
        if !is_gone {
            let place = shown(&place);
            let words = format!("the work tree '{place}'");
            look.left.push(Work::new(WorkKind::WorkTree, words).at(place));
        } else if !is_known {
            let words = format!("commits of the work tree '{}', which is gone", shown(name));
            look.left.push(Work::new(WorkKind::WorkTree, words));
        }
    }
    Ok(())
}

/// Returns what the HEAD of each linked work tree holds.
pub(crate) fn linked_heads(files: &Files<'_>, root: &str) -> Result<Vec<String>> {
    let dir = format!("{root}/.git/worktrees");
    let mut paths: Vec<Vec<u8>> = Vec::new();
    let scanned = files.within(small).scan(&dir, |entry| {
        if entry.path.ends_with(b"/HEAD") && paths.len() < MAX_WORK_TREES {
            paths.push(entry.path);
        }
        Ok(())
    });
    match scanned {
        Err(error) if is_no_directory(&error) => return Ok(Vec::new()),
        other => other?,
    }
    let asked: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
    let read =
        if asked.is_empty() { BTreeMap::new() } else { small_files(files, &dir, &asked, 8192)? };
    Ok(read.values().map(|head| String::from_utf8_lossy(head).trim().to_owned()).collect())
}

/// Notes the submodules whose HEAD or references the guest moved, and those with versions of files that
/// their index alone has.
pub(super) fn moved_modules(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    look: &mut Look,
    given: &Tree,
    next: Option<&Tree>,
) -> Result<()> {
    let (mut asked, mut moved): (Vec<Vec<u8>>, BTreeSet<Vec<u8>>) = Default::default();
    let (mut lying, mut heads, mut dirs) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let budget = files.budget();
    let scanned = files.within(small).scan(&format!("{root}/.git/modules"), |entry| {
        budget.take_names(2, 2 * entry.path.len() as u64)?;
        if entry.what == What::Dir {
            dirs.extend(entry.path.strip_suffix(b"/objects").map(<[u8]>::to_vec));
        } else if entry.what == What::File {
            heads.extend(entry.path.strip_suffix(b"/HEAD").map(<[u8]>::to_vec));
            lying.push(entry.path);
        }
        Ok(())
    });
    match scanned {
        Err(error) if is_no_directory(&error) => return Ok(()),
        other => other?,
    }
    // As git knows a repository; the name of a module may have slashes and any words between them.
    let modules: BTreeSet<Vec<u8>> = heads.intersection(&dirs).cloned().collect();
    for path in lying {
        let Some(module) = parents(&path).filter(|dir| modules.contains(*dir)).last() else {
            continue;
        };
        let rest = &path[module.len() + 1..];
        if matches!(rest, b"HEAD" | b"packed-refs") {
            asked.push([&b".git/modules/"[..], &path].concat());
        } else if (rest.starts_with(b"refs/") && !rest.starts_with(b"refs/remotes/"))
            || rest.starts_with(b"worktrees/")
        {
            moved.insert(module.to_vec());
        }
    }
    let paths: Vec<&[u8]> = asked.iter().map(Vec::as_slice).collect();
    if paths.is_empty() {
        // A module has a HEAD, so there is none.
        return Ok(());
    }
    let sums = files.within(small).hash(root, &paths)?;
    for (path, sum) in asked.iter().zip(sums) {
        let sum = sum.map(|sum| hex(&sum)).unwrap_or_default();
        let same = |tree: &Tree| tree.get(path).is_some_and(|given| given.sum == sum);
        if !same(given) && !next.is_some_and(same) {
            let name = path.strip_prefix(b".git/modules/").unwrap_or(path);
            let name = name.strip_suffix(b"/HEAD").or_else(|| name.strip_suffix(b"/packed-refs"));
            moved.insert(name.unwrap_or(path).to_vec());
        }
    }
    let others: Vec<&Vec<u8>> = modules.iter().filter(|module| !moved.contains(*module)).collect();
    let staged = staged_in_modules(files, root, store, &others)?;
    look.is_in_the_way |= !moved.is_empty() || !staged.is_empty();
    let commits = moved.iter().map(|name| (name.as_slice(), "commits or branches of"));
    let indexes = staged.iter().map(|name| (name.as_slice(), "what is in the index of"));
    look.left.extend(commits.chain(indexes).map(|(name, what)| {
        let name = shown(name);
        let words = format!("{what} the submodule '{name}'");
        Work::new(WorkKind::Submodule, words).at(name)
    }));
    Ok(())
}

/// Returns those of `modules` whose index lists what the host has no object of, or cannot be read.
fn staged_in_modules<'a>(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    modules: &[&'a Vec<u8>],
) -> Result<Vec<&'a Vec<u8>>> {
    if modules.is_empty() {
        return Ok(Vec::new());
    }
    let of = |module: &&Vec<u8>| [b".git/modules/", module.as_slice(), b"/index"].concat();
    let paths: Vec<Vec<u8>> = modules.iter().map(of).collect();
    let asked: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
    let mut listed: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    let mut staged: BTreeSet<usize> = BTreeSet::new();
    for (at, bytes) in small_files(files, root, &asked, u64::MAX)? {
        match index::parse_or_empty(&bytes, store.oid_len, index::MOST_OF_GUEST) {
            Ok(index) if !index.is_partial => {
                files.budget().take_names(index.entries.len() as u64, 0)?;
                let plain =
                    index.entries.into_iter().filter(|e| e.mode != MODULE && !e.intent_to_add);
                listed.insert(at, plain.map(|entry| entry.oid).collect());
            }
            _ => drop(staged.insert(at)),
        }
    }
    let missing = store.missing_in_modules(listed.values().flatten())?;
    staged.extend(listed.iter().filter(|(_, oids)| !oids.is_disjoint(&missing)).map(|(at, _)| *at));
    Ok(staged.into_iter().map(|at| modules[at]).collect())
}
