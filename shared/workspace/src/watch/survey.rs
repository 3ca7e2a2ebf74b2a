//! What goes of the host, path by path: what a prepare would send.

use crate::{
    git::{DIR, MODULE},
    host::include::Taking,
    host::index::Entry,
    host::source::{Repository, Source},
    host::unit::{Unit, units},
    host::walk::{Fate, Rules},
    host::{self, Dir},
    path::{join, parents},
    prepare::plan::{self, Item, Looker},
    prepare::wish::Wish,
    record::given::{Beside, Sort},
    record::store::Store,
};
use banger_channel::files::is_inside;
use banger_doc::{Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
};

/// The most entries of a directory that came, with all below it.
const MAX_NEWS: usize = 1_000_000;

type Paths = BTreeSet<Vec<u8>>;

/// What goes at a path, and what sort of thing it is to the record.
pub(super) type Going = (Item, Sort);

/// A repository of those that go, or the directory without git.
struct Part {
    /// Where it lies below the root; empty for the outermost.
    at: Vec<u8>,
    root: Dir,
    /// None: a directory without git.
    repository: Option<Repository>,
    rules: Rules,
}

/// The host as it lay when it was looked at, and a way to look at single paths since.
pub(super) struct Survey {
    /// The outermost directory.
    pub(super) root: Dir,
    parts: Vec<Part>,
    /// What goes that no index lists.
    taking: Taking,
    /// What went when it was looked at.
    pub(super) items: BTreeMap<Vec<u8>, Going>,
    /// Directories of which something may go.
    pub(super) dirs: BTreeSet<Vec<u8>>,
}

impl Survey {
    /// Looks at all of it.
    pub(super) fn take(
        source: Source,
        wish: &Wish,
        mut taking: Taking,
        store: &Store,
    ) -> Result<Self> {
        match source {
            Source::Directory(root) => {
                let (plan, rules) = plan::of_directory_by_rules(&root, &store.git(), &taking)?;
                taking.untracked = true;
                let mut survey = Self::new(&root, taking);
                survey.add_items(b"", plan.items, plan.dirs);
                survey.parts.push(Part { at: Vec::new(), root, repository: None, rules });
                Ok(survey)
            }
            Source::Repository(repository) => {
                let root = repository.host.root.clone();
                let units = units(Source::Repository(repository), wish, &taking, store)?;
                let mut survey = Self::new(&root, taking);
                for unit in units {
                    survey.add(unit)?;
                }
                Ok(survey)
            }
        }
    }

    fn new(root: &Dir, taking: Taking) -> Self {
        let (parts, items) = (Vec::new(), BTreeMap::new());
        Self { root: root.clone(), parts, taking, items, dirs: [Vec::new()].into() }
    }

    fn add(&mut self, unit: Unit) -> Result<()> {
        let Unit { at, repository, plan, .. } = unit;
        for entry in &repository.index.entries {
            self.dirs.extend(dirs_above(&join(&at, &entry.path)));
        }
        // The others hold nothing that could go.
        let dirs = if self.takes_new() { plan.dirs } else { BTreeSet::new() };
        self.add_items(&at, plan.items, dirs);
        let rules = Rules::of(&repository)?;
        self.parts.push(Part { at, root: plan.root, repository: Some(repository), rules });
        Ok(())
    }

    fn add_items(&mut self, at: &[u8], items: BTreeMap<Vec<u8>, Item>, dirs: BTreeSet<Vec<u8>>) {
        for (path, item) in items {
            let full = join(at, &path);
            self.dirs.extend(dirs_above(&full));
            let sort = sort_of(at, &full, &item);
            self.items.insert(full, (item, sort));
        }
        self.dirs.extend(dirs.iter().map(|dir| join(at, dir)));
    }

    /// Returns the repositories that go.
    pub(super) fn repositories(&self) -> impl Iterator<Item = &Repository> {
        self.parts.iter().filter_map(|part| part.repository.as_ref())
    }

    /// Returns the outermost repository, if it is one.
    pub(super) fn repository(&self) -> Option<&Repository> {
        self.parts.first().and_then(|part| part.repository.as_ref())
    }

    /// Says whether all goes that no index lists and no rule ignores.
    pub(super) fn is_wide(&self) -> bool {
        self.taking.untracked
    }

    /// Says whether something goes that no index lists and that did not go before.
    fn takes_new(&self) -> bool {
        self.is_wide() || self.taking.include.is_some()
    }

    /// Says whether something goes that no index lists.
    fn takes(&self, path: &[u8], fate: Fate) -> bool {
        let is_taken = fate.is_wanted || (self.is_wide() && !fate.is_ignored);
        is_taken || self.taking.before.contains(path)
    }

    /// Says whether a path is a list of rules that decides about others.
    pub(super) fn is_rules(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next();
        let rules: &[u8] =
            if self.repository().is_some() { b".gitignore" } else { b".bangerignore" };
        self.takes_new() && name == Some(rules)
    }

    /// Returns what goes at each of these paths now.
    pub(super) fn look(
        &self,
        paths: &BTreeSet<Vec<u8>>,
    ) -> Result<BTreeMap<Vec<u8>, Option<Going>>> {
        let mut looker = Looker::new(self.root.path());
        let mut found: BTreeMap<Vec<u8>, Option<Going>> = BTreeMap::new();
        let mut unlisted: Vec<(usize, Vec<u8>, Going)> = Vec::new();
        for path in paths {
            found.insert(path.clone(), None);
            let Some((number, below)) = self.part_of(path) else { continue };
            let part = &self.parts[number];
            if !part.may_have(below) {
                continue;
            }
            let Some(meta) = looker.look(path) else { continue };
            let is_file = meta.is_file() || meta.is_symlink();
            let entry = part.entry(below).filter(|_| is_file);
            let mut item = match (entry, &part.repository) {
                (Some(entry), _) if entry.mode == MODULE => continue,
                (Some(entry), Some(repository)) => Item::listed(repository, entry, &meta),
                _ => Item::of(&meta, None),
            };
            if !is_file {
                // Of these only a directory with nothing in it goes, where no git forgets it.
                let is_empty = || self.root.list(path, 1).is_ok_and(|list| list.is_empty());
                if part.repository.is_some() || path.is_empty() || !meta.is_dir() || !is_empty() {
                    continue;
                }
                item.mode = DIR;
            }
            let going = (item.clone(), sort_of(&part.at, path, &item));
            if entry.is_some() {
                found.insert(path.clone(), Some(going));
            } else if self.takes_new() || self.taking.before.contains(path) {
                unlisted.push((number, path.clone(), going));
            }
        }
        for (number, part) in self.parts.iter().enumerate() {
            let asked: Vec<Vec<u8>> = unlisted
                .iter()
                .filter(|(of, ..)| *of == number)
                .filter_map(|(_, path, _)| Some(self.part_of(path)?.1.to_vec()))
                .collect();
            if asked.is_empty() {
                continue;
            }
            let fates = part.rules.fates(&part.root, &asked, self.taking.include.as_ref())?;
            for (_, path, (item, sort)) in unlisted.iter().filter(|(of, ..)| *of == number) {
                let fate = self.part_of(path).and_then(|(_, below)| fates.get(below));
                if let Some(fate) = fate.filter(|fate| self.takes(path, **fate)) {
                    let beside = part.beside(*fate).filter(|_| item.mode != DIR);
                    found.insert(path.clone(), Some((Item { beside, ..item.clone() }, *sort)));
                }
            }
        }
        Ok(found)
    }

    /// Returns the first of these paths that is a file which stays since no index lists it, and no rule ignores it.
    pub(super) fn untracked(&self, paths: &BTreeSet<Vec<u8>>) -> Result<Option<Vec<u8>>> {
        let mut looker = Looker::new(self.root.path());
        for (number, part) in self.parts.iter().enumerate() {
            let mut asked = Vec::new();
            for path in paths {
                let Some((_, below)) = self.part_of(path).filter(|(of, _)| *of == number) else {
                    continue;
                };
                let is_file =
                    looker.look(path).is_some_and(|meta| meta.is_file() || meta.is_symlink());
                if is_file && part.may_have(below) && part.entry(below).is_none() {
                    asked.push(below.to_vec());
                }
            }
            let fates = part.rules.fates(&part.root, &asked, self.taking.include.as_ref())?;
            let full = fates.iter().map(|(below, fate)| (join(&part.at, below), fate));
            let mut stay =
                full.filter(|(path, fate)| !fate.is_ignored && !self.takes(path, **fate));
            if let Some((first, _)) = stay.next() {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// Returns what may go of a directory that came or went: paths, and directories to hear of, itself among
    /// them.
    pub(super) fn below(&self, dir: &[u8]) -> Result<(Paths, Paths)> {
        let mut paths: BTreeSet<Vec<u8>> = BTreeSet::new();
        let inside = join(dir, b"");
        for part in &self.parts {
            let listed = part.listed_below(&inside).iter();
            paths.extend(listed.map(|entry| join(&part.at, &entry.path)));
        }
        let before = self.taking.before.range(inside.clone()..);
        paths.extend(before.take_while(|path| path.starts_with(&inside)).cloned());
        let mut dirs: BTreeSet<Vec<u8>> = paths.iter().flat_map(|path| dirs_above(path)).collect();
        dirs.retain(|found| found.starts_with(dir));
        if self.takes_new() {
            self.list(dir, MAX_NEWS, &mut paths, &mut dirs)?;
        }
        Ok((paths, dirs))
    }

    /// Lists what no rule ignores, and what may be asked for, level by level: at most `left` entries.
    fn list(
        &self,
        dir: &[u8],
        mut left: usize,
        paths: &mut BTreeSet<Vec<u8>>,
        dirs: &mut BTreeSet<Vec<u8>>,
    ) -> Result<()> {
        let mut waiting = self.going_dirs(vec![dir.to_vec()])?;
        while !waiting.is_empty() {
            let mut deeper = Vec::new();
            for dir in waiting {
                let entries = match self.root.list(&dir, left) {
                    Err(error) if error.kind() == ErrorKind::Other => {
                        return Err(Error::failed(format!(
                            "'{}' came with more than {MAX_NEWS} files at once",
                            self.root.join(&dir).display().to_string().escape_debug()
                        ))
                        .hint("a rule that ignores it helps"));
                    }
                    // What is gone again was not there.
                    listed => listed.unwrap_or_default(),
                };
                left -= entries.len();
                if entries.is_empty() {
                    paths.insert(dir.clone());
                }
                for (name, sort) in entries {
                    let path = join(&dir, &name);
                    match sort {
                        host::Sort::Dir => deeper.push(path),
                        host::Sort::File | host::Sort::Link => drop(paths.insert(path)),
                        host::Sort::Other => {}
                    }
                }
                dirs.insert(dir);
            }
            waiting = self.going_dirs(deeper)?;
        }
        Ok(())
    }

    fn going_dirs(&self, dirs: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let mut going = Vec::new();
        for (number, part) in self.parts.iter().enumerate() {
            let of_part = |dir: &Vec<u8>| {
                let (of, below) = self.part_of(dir)?;
                (of == number && part.may_have(below)).then(|| below.to_vec())
            };
            let asked: Vec<Vec<u8>> = dirs.iter().filter_map(of_part).collect();
            let (roots, asked): (Vec<_>, Vec<_>) = asked.into_iter().partition(Vec::is_empty);
            let fates = part.rules.fates(&part.root, &asked, self.taking.include.as_ref())?;
            let leads = fates.iter().filter(|(_, fate)| !fate.is_ignored || fate.is_wanted);
            going.extend(
                roots.iter().chain(leads.map(|(dir, _)| dir)).map(|dir| join_dir(&part.at, dir)),
            );
        }
        Ok(going)
    }

    /// Returns the innermost part that a path lies in, and the way from there.
    fn part_of<'a>(&self, path: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let below = |part: &Part| match part.at.as_slice() {
            b"" => Some(path),
            at => path.strip_prefix(at).and_then(|rest| rest.strip_prefix(b"/")),
        };
        let found = self.parts.iter().enumerate();
        let found = found.filter_map(|(number, part)| Some((number, part.at.len(), below(part)?)));
        found.max_by_key(|(_, depth, _)| *depth).map(|(number, _, below)| (number, below))
    }
}

impl Part {
    /// Says whether a path may be in its tree at all.
    fn may_have(&self, below: &[u8]) -> bool {
        let is_safe = match self.repository {
            Some(_) => plan::is_safe(below),
            None => is_inside(below) && !plan::has_git(below),
        };
        is_safe || below.is_empty()
    }

    /// Returns how something is taken along that no index lists.
    fn beside(&self, fate: Fate) -> Option<Beside> {
        if fate.is_ignored {
            return Some(Beside::Ignored);
        }
        self.repository.as_ref().map(|_| Beside::Untracked)
    }

    /// Returns what its index lists below a directory that is named from the outermost root, as `DIR/`.
    fn listed_below(&self, inside: &[u8]) -> &[Entry] {
        let entries = self.repository.as_ref().map_or(&[][..], |found| &found.index.entries);
        let at = if self.at.is_empty() { Vec::new() } else { join(&self.at, b"") };
        let Some(below) = inside.strip_prefix(at.as_slice()) else {
            return if at.starts_with(inside) { entries } else { &[] };
        };
        let first = entries.partition_point(|entry| entry.path.as_slice() < below);
        let entries = &entries[first..];
        &entries[..entries.partition_point(|entry| entry.path.starts_with(below))]
    }

    fn entry(&self, below: &[u8]) -> Option<&Entry> {
        let entries = &self.repository.as_ref()?.index.entries;
        let at = entries.partition_point(|entry| entry.path.as_slice() < below);
        entries.get(at).filter(|entry| entry.path == below)
    }
}

fn join_dir(at: &[u8], dir: &[u8]) -> Vec<u8> {
    if dir.is_empty() { at.to_vec() } else { join(at, dir) }
}

fn sort_of(at: &[u8], path: &[u8], item: &Item) -> Sort {
    match item.mode {
        _ if !at.is_empty() || plan::has_git(path) => Sort::Inner,
        DIR => Sort::Dir,
        _ if item.is_link => Sort::Link,
        _ => Sort::File,
    }
}

/// Returns the directories that a path lies in, but for the root.
pub(super) fn dirs_above(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    parents(path).filter(move |dir| dir.len() < path.len()).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn more_than_can_be_listed_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let (host, store) = (root.join("host"), root.join("store"));
        fs::create_dir_all(host.join("d/e")).unwrap();
        fs::create_dir(&store).unwrap();
        for name in ["d/1", "d/2", "d/e/3"] {
            fs::write(host.join(name), name).unwrap();
        }
        let wish = Wish::of("web", &host, "/root/repo");
        let store = Store::open(&store, "sha1").unwrap();
        let source = Source::open(&host, &[]).unwrap();
        let survey = Survey::take(source, &wish, Taking::default(), &store).unwrap();
        let list = |most: usize| {
            let (mut paths, mut dirs) = (Paths::new(), Paths::new());
            survey.list(b"d", most, &mut paths, &mut dirs).map(|()| (paths.len(), dirs.len()))
        };
        assert_eq!(list(4).unwrap(), (3, 2));
        for most in [0, 2, 3] {
            let error = list(most).unwrap_err();
            assert!(error.to_string().contains("came with more than"), "{most}: {error}");
            assert!(error.hint_text().is_some());
        }
    }
}
