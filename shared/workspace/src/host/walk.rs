//! Walking a tree of the host's, whoever filled it: directories are listed without following a link, and git
//! is asked only what its rules say of names. Git itself would look into the repositories that lie in the
//! tree, and wait for a pipe in the place of a list of rules.

use crate::{
    git::{Git, MODULE, check_ignore, split_zero},
    host::attributes::not_a_file,
    host::include::{Include, Matched},
    host::index::Index,
    host::source::Repository,
    host::{self, Dir, Sort},
    path::{join, parents},
    scratch::{MAX_ALL_RULES, Scratch, make_dirs},
};
use banger_channel::files::is_inside;
use banger_doc::{Context, Error, Result};
use banger_tree::MAX_DEPTH;
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap},
    io::ErrorKind,
    path::PathBuf,
};

/// The most entries of all directories together.
const MAX_ENTRIES: usize = 5_000_000;
/// The largest list of rules.
const MAX_RULES: u64 = 16 << 20;

/// What a walk found, sorted.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Files and links that no rule ignores.
    pub(crate) files: BTreeSet<Vec<u8>>,
    /// Those that were asked for, and whether a rule ignores each.
    pub(crate) wanted: BTreeMap<Vec<u8>, bool>,
    /// Those in the root itself that a rule ignores and that people miss.
    pub(crate) missed: BTreeSet<Vec<u8>>,
    /// Repositories inside, or, where there is no repository around, each `.git`.
    pub(crate) inner: BTreeSet<Vec<u8>>,
    /// Directories that were looked into, but for the root.
    pub(crate) dirs: BTreeSet<Vec<u8>>,
    /// Directories with nothing in them.
    pub(crate) empty: BTreeSet<Vec<u8>>,
    /// Pipes, sockets and devices.
    pub(crate) others: BTreeSet<Vec<u8>>,
    /// Directories that nobody tracks, which the user may not look into.
    pub(crate) closed: BTreeSet<Vec<u8>>,
}

/// Lists the files of a repository that are neither in its index nor ignored, and those to include.
pub(crate) fn untracked(repository: &Repository, include: Option<&Include>) -> Result<Found> {
    let folds = repository.setting("core.ignorecase") == Some("true");
    let tracked = Tracked::new(&repository.index, folds);
    let git = asking(repository)?;
    let mut walk = Walk { root: &repository.host.root, left: MAX_ENTRIES, found: Found::default() };
    walk.level_by_level(
        |walk, dir| {
            let mut asked = Level::default();
            for (name, sort) in walk.list(dir)? {
                let path = join(dir, &name);
                if name == b".gitignore" {
                    rules_are_bounded(walk.root, &path, sort)?;
                }
                match sort {
                    _ if name.eq_ignore_ascii_case(b".git") || !is_inside(&path) => {}
                    Sort::Dir if !tracked.is_module(&path) => asked.dirs.push(path),
                    Sort::File | Sort::Link if !tracked.is_file(&path) => asked.files.push(path),
                    _ => {}
                }
            }
            Ok(asked)
        },
        |asked| Said::of(asked, ignored(&git, asked)?, include),
        |walk, dir| {
            if tracked.has_below(dir) {
                return Ok(true);
            }
            // As git does: what a service in a container left, say, is no reason to take nothing.
            if walk.is_closed(dir) {
                walk.found.closed.insert(dir.to_vec());
                return Ok(false);
            }
            let is_inner = is_repository(walk.root, dir)?;
            if is_inner {
                walk.found.inner.insert(dir.to_vec());
            }
            Ok(!is_inner)
        },
    )?;
    Ok(walk.found)
}

/// Returns a way to ask git what the rules of a repository, and the user's own, ignore.
fn asking(repository: &Repository) -> Result<Git> {
    let git = repository.git().work_tree(&repository.root);
    let git = git.env("GIT_INDEX_FILE", absent_rules(repository)?);
    Ok(match repository.excludes_file() {
        Some(path) => git.set(format!("core.excludesFile={}", path.display())),
        None => git,
    })
}

/// What a walk would say of a single path that no index lists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    /// Whether a rule ignores it.
    pub(crate) is_ignored: bool,
    /// Whether it goes whatever is ignored, or leads to such.
    pub(crate) is_wanted: bool,
}

/// Tells of single paths what a walk would: whether they go although no index lists them.
pub(crate) struct Rules {
    git: Git,
    /// Rules that are read in the place of a tree's; it lives as long as it is asked.
    scratch: Option<Scratch>,
    has_any: bool,
    is_repository: bool,
}

impl Rules {
    /// Reads the rules of a repository, which has to live as long.
    pub(crate) fn of(repository: &Repository) -> Result<Self> {
        Ok(Self { git: asking(repository)?, scratch: None, has_any: true, is_repository: true })
    }

    /// Says what becomes of `paths` below `root`, files and directories; nothing of those in a repository inside.
    pub(crate) fn fates(
        &self,
        root: &Dir,
        paths: &[Vec<u8>],
        include: Option<&Include>,
    ) -> Result<BTreeMap<Vec<u8>, Fate>> {
        let mut inner = HashMap::new();
        let mut named = BTreeSet::new();
        let mut asked = Level::default();
        for path in paths {
            if is_inside(path) && !self.is_in_inner(root, path, &mut inner)? {
                named.insert(path.as_slice());
            }
        }
        // With patterns it counts what a walk would come to.
        let mut all = named.clone();
        if include.is_some() {
            all.extend(named.iter().flat_map(|path| parents(path)));
        }
        for path in all {
            let is_dir = root.sort(path).is_ok_and(|sort| sort == Some(Sort::Dir));
            if is_dir { &mut asked.dirs } else { &mut asked.files }.push(path.to_vec());
        }
        let mut ignored = BTreeSet::new();
        if self.has_any {
            if let Some(scratch) = &self.scratch {
                // Git looks there whether one is a directory.
                let tree = scratch.open_tree()?;
                for dir in &asked.dirs {
                    make_dirs(&tree, dir).context("cannot copy rules")?;
                }
            }
            ignored = self::ignored(&self.git, &asked)?;
        }
        let said = Said::of(&asked, ignored, include)?;
        let fate = |path: &[u8]| {
            let mut above = parents(path).filter(|dir| dir.len() < path.len());
            let is_reached = above.all(|dir| said.leads(dir));
            let is_wanted = said.matched.wanted.contains(path) || said.matched.ways.contains(path);
            Fate { is_ignored: said.ignored.contains(path), is_wanted: is_reached && is_wanted }
        };
        Ok(named.into_iter().map(|path| (path.to_vec(), fate(path))).collect())
    }

    /// Says whether a path lies in a repository inside the root; `known` keeps what was seen.
    fn is_in_inner(
        &self,
        root: &Dir,
        path: &[u8],
        known: &mut HashMap<Vec<u8>, bool>,
    ) -> Result<bool> {
        if !self.is_repository {
            return Ok(false);
        }
        rules_of(root, b"")?;
        for dir in parents(path) {
            let is_inner = if let Some(is_inner) = known.get(dir) {
                *is_inner
            } else {
                let is_dir = root.sort(dir).is_ok_and(|sort| sort == Some(Sort::Dir));
                if is_dir {
                    rules_of(root, dir)?;
                }
                is_dir && is_repository(root, dir)?
            };
            known.insert(dir.to_vec(), is_inner);
            if is_inner {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Fails if git would wait for the list of rules in a directory, or take more memory for it than anybody writes
/// rules.
fn rules_of(root: &Dir, dir: &[u8]) -> Result<()> {
    let path = join(dir, b".gitignore");
    match root.sort(&path) {
        Ok(Some(sort)) => rules_are_bounded(root, &path, sort),
        _ => Ok(()),
    }
}

/// Lists a directory that belongs to no repository: all of it but what `.bangerignore` files in it name and
/// nobody asks for. Returns the rules by which that was done, too.
pub(crate) fn plain(root: &Dir, git: &Git, include: Option<&Include>) -> Result<(Found, Rules)> {
    let mut walk = Walk { root, left: MAX_ENTRIES, found: Found::default() };
    // The rules alone, as git reads them.
    let scratch = Scratch::new()?;
    let tree = scratch.open_tree()?;
    let git = git.clone().work_tree(&scratch.tree()).env("GIT_INDEX_FILE", scratch.index());
    let left = Cell::new(MAX_ALL_RULES);
    let has_rules = Cell::new(false);
    walk.level_by_level(
        |walk, dir| {
            let mut asked = Level::default();
            let entries = walk.list(dir)?;
            if entries.is_empty() && !dir.is_empty() {
                walk.found.empty.insert(dir.to_vec());
            }
            for (name, sort) in entries {
                let path = join(dir, &name);
                if !is_inside(&path) && !name.eq_ignore_ascii_case(b".git") {
                    return Err(too_far(root, &path));
                }
                if name == b".bangerignore" && sort == Sort::File {
                    let said = || format!("cannot read '{}'", root.join(&path).display());
                    let file = root.file(&path).with_context(said)?;
                    let rules = host::read(&file, MAX_RULES, &root.join(&path))?;
                    let rest = left.get().checked_sub(rules.len() as u64);
                    left.set(rest.ok_or_else(|| too_many_rules(root))?);
                    scratch.write(&join(dir, b".gitignore"), false, &mut rules.as_slice())?;
                    has_rules.set(true);
                }
                if name.eq_ignore_ascii_case(b".git") {
                    asked.git.push(path);
                    continue;
                }
                match sort {
                    Sort::Dir => asked.dirs.push(path),
                    Sort::File | Sort::Link => asked.files.push(path),
                    Sort::Other => asked.others.push(path),
                }
            }
            Ok(asked)
        },
        |asked| {
            if !has_rules.get() {
                return Said::of(asked, BTreeSet::new(), include);
            }
            for dir in &asked.dirs {
                // Some rules are for directories alone, and git looks whether it is one.
                make_dirs(&tree, dir).context("cannot copy rules")?;
            }
            Said::of(asked, ignored(&git, asked)?, include)
        },
        |_, _| Ok(true),
    )?;
    let found = walk.found;
    let has_any = has_rules.get();
    Ok((found, Rules { git, scratch: Some(scratch), has_any, is_repository: false }))
}

/// What helps where something does not go.
const IGNORE: &str =
    "a rule in '.bangerignore' that ignores what lies above it, or moving it away, helps";

fn too_many_rules(root: &Dir) -> Error {
    Error::failed(format!(
        "the '.bangerignore' files in '{}' are larger than {MAX_ALL_RULES} bytes together",
        root.path().display().to_string().escape_debug()
    ))
    .hint("fewer and shorter rules, in the directory above all others, do the same")
}

fn too_far(root: &Dir, path: &[u8]) -> Error {
    Error::failed(format!(
        "'{}' lies too deep, or has too long a path, for a guest",
        root.join(path).display().to_string().escape_debug()
    ))
    .hint(IGNORE)
}

/// What one step of a walk asks of.
#[derive(Default)]
struct Level {
    files: Vec<Vec<u8>>,
    dirs: Vec<Vec<u8>>,
    git: Vec<Vec<u8>>,
    others: Vec<Vec<u8>>,
}

impl Level {
    fn paths(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.files.iter().chain(&self.dirs).chain(&self.git).chain(&self.others)
    }
}

/// What rules say of one step.
struct Said {
    ignored: BTreeSet<Vec<u8>>,
    /// What goes whatever is ignored.
    matched: Matched,
}

impl Said {
    fn of(asked: &Level, ignored: BTreeSet<Vec<u8>>, include: Option<&Include>) -> Result<Self> {
        let files = asked.files.iter().chain(&asked.others);
        let matched = include.map(|include| include.matched(files, &asked.dirs)).transpose()?;
        Ok(Self { ignored, matched: matched.unwrap_or_default() })
    }

    /// Says whether something is no part of the tree that goes.
    fn is_out(&self, path: &[u8]) -> bool {
        self.ignored.contains(path) && !self.matched.wanted.contains(path)
    }

    /// Says whether something of a directory may go.
    fn leads(&self, dir: &[u8]) -> bool {
        !self.is_out(dir) || self.matched.ways.contains(dir)
    }
}

/// Says whether a file of this name is missed where it is ignored: programs read it, and few know it is.
fn is_missed(path: &[u8]) -> bool {
    path.starts_with(b".env") && !path.contains(&b'/')
}

struct Walk<'a> {
    root: &'a Dir,
    left: usize,
    found: Found,
}

impl Walk<'_> {
    /// Goes down level by level, so that git is asked once for each: `look` lists a directory, `ask` says what
    /// is ignored, and `enter` whether a directory belongs to the tree.
    fn level_by_level(
        &mut self,
        look: impl Fn(&mut Self, &[u8]) -> Result<Level>,
        ask: impl Fn(&Level) -> Result<Said>,
        enter: impl Fn(&mut Self, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mut dirs = vec![Vec::new()];
        for depth in 1.. {
            let mut all = Level::default();
            for dir in &dirs {
                let level = look(self, dir)?;
                all.files.extend(level.files);
                all.dirs.extend(level.dirs);
                all.git.extend(level.git);
                all.others.extend(level.others);
            }
            let said = ask(&all)?;
            let goes = |path: &Vec<u8>| !said.is_out(path);
            for path in all.files {
                let is_ignored = said.ignored.contains(&path);
                if said.matched.wanted.contains(&path) {
                    self.found.wanted.insert(path, is_ignored);
                } else if !is_ignored {
                    self.found.files.insert(path);
                } else if is_missed(&path) {
                    self.found.missed.insert(path);
                }
            }
            self.found.inner.extend(all.git.into_iter().filter(goes));
            self.found.others.extend(all.others.into_iter().filter(goes));
            dirs.clear();
            for dir in all.dirs.into_iter().filter(|dir| said.leads(dir)) {
                if enter(self, &dir)? {
                    self.found.dirs.insert(dir.clone());
                    dirs.push(dir);
                }
            }
            let Some(first) = dirs.first() else { break };
            // What lies in these has more names than a path of a guest's.
            if depth >= MAX_DEPTH {
                let path = self.root.join(first);
                return Err(Error::failed(format!(
                    "'{}' lies deeper than {} directories",
                    path.display().to_string().escape_debug(),
                    MAX_DEPTH - 1
                ))
                .hint("a rule that ignores it, or moving it away, helps"));
            }
        }
        Ok(())
    }

    fn list(&mut self, dir: &[u8]) -> Result<Vec<(Vec<u8>, Sort)>> {
        let said = || format!("cannot list '{}'", self.root.join(dir).display());
        let entries = self.root.list(dir, self.left).with_context(said)?;
        self.left -= entries.len();
        Ok(entries)
    }

    /// Says whether the user may not list a directory, or not look at what lies in it.
    fn is_closed(&self, dir: &[u8]) -> bool {
        let is_denied = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
        self.root.sort(&join(dir, b".git")).is_err_and(is_denied)
            || self.root.list(dir, 0).is_err_and(is_denied)
    }
}

/// Says whether a directory is a repository of its own, as far as that can be told without reading it.
fn is_repository(root: &Dir, dir: &[u8]) -> Result<bool> {
    let sort = |name: &[u8]| {
        let path = join(dir, name);
        root.sort(&path).with_context(|| format!("cannot look at '{}'", root.join(&path).display()))
    };
    Ok(match sort(b".git")? {
        None | Some(Sort::Other) => false,
        Some(Sort::Dir) => sort(b".git/HEAD")?.is_some(),
        Some(Sort::File | Sort::Link) => true,
    })
}

/// What an index says of paths.
struct Tracked {
    files: BTreeSet<Vec<u8>>,
    modules: BTreeSet<Vec<u8>>,
    folds: bool,
}

impl Tracked {
    fn new(index: &Index, folds: bool) -> Self {
        let mut tracked = Self { files: BTreeSet::new(), modules: BTreeSet::new(), folds };
        for entry in &index.entries {
            let path = tracked.key(&entry.path);
            let into = if entry.mode == MODULE { &mut tracked.modules } else { &mut tracked.files };
            into.insert(path);
        }
        tracked
    }

    fn key(&self, path: &[u8]) -> Vec<u8> {
        if self.folds { path.to_ascii_lowercase() } else { path.to_vec() }
    }

    fn is_file(&self, path: &[u8]) -> bool {
        let key = self.key(path);
        self.files.contains(&key) || self.modules.contains(&key)
    }

    fn is_module(&self, path: &[u8]) -> bool {
        self.modules.contains(&self.key(path))
    }

    fn has_below(&self, dir: &[u8]) -> bool {
        let start = [&self.key(dir), &b"/"[..]].concat();
        let has = |set: &BTreeSet<Vec<u8>>| {
            set.range(start.clone()..).next().is_some_and(|path| path.starts_with(&start))
        };
        has(&self.files) || has(&self.modules)
    }
}

/// Makes an index of those lists of rules alone that are absent on purpose: git reads them from there.
fn absent_rules(repository: &Repository) -> Result<PathBuf> {
    let path = repository.scratch("rules");
    let is_rules = |path: &[u8]| path.rsplit(|byte| *byte == b'/').next() == Some(b".gitignore");
    let absent = || {
        let entries = repository.index.entries.iter();
        entries.filter(|entry| entry.skip_worktree && entry.stage == 0 && is_rules(&entry.path))
    };
    let (mut lines, mut skipped) = (Vec::new(), Vec::new());
    for entry in absent() {
        lines.extend_from_slice(format!("{:06o} {} 0\t", entry.mode, entry.oid).as_bytes());
        for list in [&mut lines, &mut skipped] {
            list.extend_from_slice(&entry.path);
            list.push(0);
        }
    }
    if !lines.is_empty() {
        let git = repository.git().env("GIT_INDEX_FILE", &path);
        git.run(["update-index", "-z", "--index-info"], &lines)?;
        git.run(["update-index", "--skip-worktree", "-z", "--stdin"], &skipped)?;
    }
    Ok(path)
}

/// Fails if git would wait for a list of rules, or take more memory for it than anybody writes rules.
fn rules_are_bounded(root: &Dir, path: &[u8], sort: Sort) -> Result<()> {
    let at = root.join(path);
    if sort == Sort::Other {
        return Err(not_a_file(&at));
    }
    let said = || format!("cannot look at '{}'", at.display());
    let size = root.stat(path).with_context(said)?.map_or(0, |stat| stat.st_size as u64);
    if sort == Sort::File && size > MAX_RULES {
        return Err(Error::failed(format!("'{}' is larger than {MAX_RULES} bytes", at.display()))
            .hint("git would read all of it; remove it"));
    }
    Ok(())
}

/// Asks git which of these its rules ignore.
fn ignored(git: &Git, asked: &Level) -> Result<BTreeSet<Vec<u8>>> {
    let answer = check_ignore(git, asked.paths(), &[])?;
    let ignored = split_zero(&answer).filter_map(|path| path.strip_prefix(b"./"));
    Ok(ignored.map(<[u8]>::to_vec).collect())
}
