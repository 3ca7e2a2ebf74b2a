//! Deciding exactly what goes, path by path.

use crate::{
    git::{DIR, Git, LINK, MODULE},
    host::Dir,
    host::include::Taking,
    host::index::{self, Index},
    host::source::Repository,
    host::walk::{self, Rules},
    path::{join, parents, shown, some_of},
    record::given::{Beside, Seen},
};
use banger_channel::files::is_inside;
use banger_doc::{Context, Error, Result, shell_word};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsStr,
    fs::{self, Metadata},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

/// One thing that goes.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Type and permissions, as in a tree of git.
    pub(crate) mode: u32,
    /// Whether it lies on disk as a link.
    pub(crate) is_link: bool,
    /// How it was when it was looked at.
    pub(crate) seen: Seen,
    /// The object it is known to be, without reading it.
    pub(crate) oid: Option<String>,
    /// How it is taken along if nobody tracks it.
    pub(crate) beside: Option<Beside>,
}

impl Item {
    /// Returns what a file or a link is that no index lists, by what lstat(2) says.
    pub(crate) fn of(meta: &Metadata, beside: Option<Beside>) -> Self {
        let (mode, is_link) = (mode_of(meta), meta.is_symlink());
        Self { mode, is_link, seen: seen(meta), oid: None, beside }
    }

    /// Returns a file or link that an index of the repository lists.
    pub(crate) fn listed(repository: &Repository, entry: &index::Entry, meta: &Metadata) -> Self {
        let is_off = |key: &str| repository.setting(key) == Some("false");
        let mut item = Self::of(meta, None);
        if meta.is_file() && entry.stage == 0 {
            if is_off("core.symlinks") && entry.mode == LINK {
                item.mode = LINK;
            } else if is_off("core.filemode") && entry.mode != LINK {
                item.mode = entry.mode;
            }
        }
        item
    }
}

/// What goes.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The directory that the paths are below.
    pub(crate) root: Dir,
    /// What goes, by path.
    pub(crate) items: BTreeMap<Vec<u8>, Item>,
    /// Tracked paths that are left out on purpose: mode and object.
    pub(crate) sparse: BTreeMap<Vec<u8>, (u32, String)>,
    /// Submodules: the commit of each.
    pub(crate) modules: BTreeMap<Vec<u8>, String>,
    /// The directories that were looked into for files that nobody tracks.
    pub(crate) dirs: BTreeSet<Vec<u8>>,
    /// The untracked files that stay.
    pub(crate) untracked_left: Vec<Vec<u8>>,
    /// The ignored files that stay and that people miss.
    pub(crate) missed: Vec<Vec<u8>>,
    /// What the user is to know.
    pub(crate) notes: Vec<String>,
}

impl Plan {
    fn new(root: &Dir) -> Self {
        Self {
            root: root.clone(),
            items: BTreeMap::new(),
            sparse: BTreeMap::new(),
            modules: BTreeMap::new(),
            dirs: BTreeSet::new(),
            untracked_left: Vec::new(),
            missed: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Returns the size of all files, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.items.values().map(|item| item.seen.size).sum()
    }
}

/// How many of the files that stay on the host are named.
const MAX_NAMED: usize = 20;
/// How many of them a sentence names, and how many that are missed.
const MOST_SAID: usize = 4;

/// What stays on the host of all that goes.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// How many files nobody tracks.
    pub(crate) untracked: u64,
    /// The first of these.
    first: Vec<Vec<u8>>,
    missed: Vec<Vec<u8>>,
}

impl Behind {
    /// Adds what stays of the repository at `at`.
    pub(crate) fn add(&mut self, at: &[u8], plan: &Plan) {
        self.untracked += plan.untracked_left.len() as u64;
        let left = MAX_NAMED.saturating_sub(self.first.len());
        self.first.extend(plan.untracked_left.iter().take(left).map(|path| join(at, path)));
        let left = MAX_NAMED.saturating_sub(self.missed.len());
        self.missed.extend(plan.missed.iter().take(left).map(|path| join(at, path)));
    }

    /// Returns the first untracked files, for a document.
    pub(crate) fn named(&self) -> Vec<String> {
        self.first.iter().map(|path| shown(path)).collect()
    }

    /// Says what stays, and what takes it along.
    pub(crate) fn notes(&self, stayed: &str) -> Vec<String> {
        let mut notes = Vec::new();
        if self.untracked > 0 {
            let (count, s) = (self.untracked, if self.untracked == 1 { "" } else { "s" });
            let first = self.first.iter().map(Vec::as_slice);
            let named = some_of(first, usize::try_from(count).unwrap_or(usize::MAX), MOST_SAID);
            let takes = if count == 1 { "takes it" } else { "takes them" };
            notes.push(format!(
                "{count} untracked file{s} {stayed} {named}; '--include-untracked' or '--include PATTERN' \
                 {takes} along"
            ));
        }
        if let Some(first) = self.missed.first() {
            let count = self.missed.len();
            let named = some_of(self.missed.iter().map(Vec::as_slice), count, MOST_SAID);
            let (what, pattern) = match count {
                1 => ("1 ignored file", shown(first)),
                _ => ("ignored files", ".env*".into()),
            };
            notes.push(format!(
                "{what} {stayed} {named}; '--include {}' takes {} along",
                shell_word(&pattern),
                if count == 1 { "it" } else { "them" }
            ));
        }
        notes
    }
}

/// Returns what lstat(2) says.
pub(crate) fn seen(meta: &Metadata) -> Seen {
    let ns = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
    Seen {
        size: meta.len(),
        mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
        ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        ino: meta.ino(),
    }
}

/// Looks at paths below a root without following a link on the way.
pub(crate) struct Looker<'a> {
    root: &'a Path,
    dirs: HashMap<Vec<u8>, bool>,
}

impl<'a> Looker<'a> {
    /// Begins to look below `root`; what is seen of directories is kept for as long as this lives.
    pub(crate) fn new(root: &'a Path) -> Self {
        Self { root, dirs: HashMap::new() }
    }

    /// Returns what lies at a path, if anything does.
    pub(crate) fn look(&mut self, path: &[u8]) -> Option<Metadata> {
        let parent = path.iter().rposition(|byte| *byte == b'/').map(|at| &path[..at]);
        if !is_inside(path) || !parent.is_none_or(|parent| self.is_dir(parent)) {
            return None;
        }
        fs::symlink_metadata(self.root.join(OsStr::from_bytes(path))).ok()
    }

    fn is_file(&mut self, path: &[u8]) -> bool {
        self.look(path).is_some_and(|meta| meta.is_file() || meta.is_symlink())
    }

    fn is_dir(&mut self, path: &[u8]) -> bool {
        if let Some(known) = self.dirs.get(path) {
            return *known;
        }
        let is_dir = self.look(path).is_some_and(|meta| meta.is_dir());
        self.dirs.insert(path.to_vec(), is_dir);
        is_dir
    }
}

/// Plans the files of the repository at `at`: what is tracked, as it lies there, and what else is to be taken.
pub(crate) fn of_repository(repository: &Repository, taking: &Taking, at: &[u8]) -> Result<Plan> {
    if taking.untracked && repository.has_own_excludes {
        return Err(Error::usage(format!(
            "'core.excludesFile' of the repository '{}' is not read, so it cannot be told which untracked \
             files it means to keep back",
            repository.root.display()
        ))
        .hint("put its rules into '.gitignore' or '.git/info/exclude', or set it for yourself with '--global'"));
    }
    let host = &repository.host.root;
    let mut plan = of_index(repository, host, &repository.index, repository.index_mtime)?;
    plan.notes.extend(repository.notes.iter().cloned());
    let found = walk::untracked(repository, taking.include.as_ref())?;
    for dir in &found.inner {
        plan.notes.push(format!("the nested repository '{}' stays behind", dir.escape_ascii()));
    }
    for dir in &found.closed {
        plan.notes.push(format!("'{}' may not be read and stays behind", dir.escape_ascii()));
    }
    let mut looker = Looker::new(&repository.root);
    plan.dirs = found.dirs;
    let before: BTreeSet<&[u8]> = taking.before_at(at).collect();
    let mut taken: BTreeMap<Vec<u8>, Beside> = BTreeMap::new();
    for (path, is_ignored) in found.wanted {
        taken.insert(path, if is_ignored { Beside::Ignored } else { Beside::Untracked });
    }
    for path in found.files {
        if taking.untracked || before.contains(path.as_slice()) {
            taken.insert(path, Beside::Untracked);
        } else {
            plan.untracked_left.push(path);
        }
    }
    // What went once goes again. The walk did not come to all of it.
    let is_others = |path: &[u8]| {
        let has = |dir: &[u8]| plan.modules.contains_key(dir) || found.inner.contains(dir);
        parents(path).any(has)
    };
    for path in before {
        let is_new = !taken.contains_key(path) && !plan.items.contains_key(path);
        if is_new && !is_others(path) && looker.is_file(path) {
            taken.insert(path.to_vec(), Beside::Ignored);
        }
    }
    plan.missed = found.missed.into_iter().filter(|path| !taken.contains_key(path)).collect();
    for (path, beside) in taken {
        if !is_safe(&path) {
            plan.notes.push(format!(
                "'{}' is refused by git as a path and stays behind",
                path.escape_ascii()
            ));
            continue;
        }
        match looker.look(&path) {
            Some(meta) if meta.is_file() || meta.is_symlink() => {
                plan.items.insert(path, Item::of(&meta, Some(beside)));
            }
            _ => plan.notes.push(format!("'{}' is no file and stays behind", path.escape_ascii())),
        }
    }
    let busy =
        [("rebase-merge", "rebase"), ("rebase-apply", "rebase"), ("BISECT_LOG", "bisection")];
    for (name, what) in busy {
        if repository.has(name) {
            plan.notes
                .push(format!("a {what} is going on; the guest gets its files, not the {what}"));
        }
    }
    Ok(plan)
}

/// Plans the files of a commit other than HEAD, checked out into `scratch`, and makes their index.
pub(crate) fn of_commit(
    repository: &Repository,
    git: &Git,
    commit: &str,
    scratch: &Path,
) -> Result<(Plan, Vec<u8>)> {
    let files = scratch.join("files");
    fs::create_dir_all(&files).context("cannot make a scratch directory")?;
    let index_file = scratch.join("index");
    let git = git.clone().work_tree(&files).env("GIT_INDEX_FILE", &index_file);
    git.run(["read-tree", commit], b"")?;
    git.run(["checkout-index", "--all", "--force", "--index", "--quiet"], b"")
        .with_context(|| format!("cannot make the files of commit '{commit}'"))?;
    let bytes = banger_state::read_limited(&index_file, 1 << 30)?;
    let meta = fs::metadata(&index_file).context("cannot look at an index")?;
    let oid_len = if repository.format == "sha256" { 32 } else { 20 };
    let index = index::parse(&bytes, oid_len, index::MOST_OF_HOST)?;
    let files = Dir::open(&fs::canonicalize(&files).context("cannot make a scratch directory")?)?;
    let plan = of_index(repository, &files, &index, (meta.mtime(), meta.mtime_nsec()))?;
    Ok((plan, bytes))
}

/// Plans the files that an index lists, as they lie there.
pub(crate) fn of_index(
    repository: &Repository,
    root: &Dir,
    index: &Index,
    written: (i64, i64),
) -> Result<Plan> {
    let mut plan = Plan::new(root);
    let mut looker = Looker::new(root.path());
    for entry in &index.entries {
        if !is_safe(&entry.path) {
            return Err(Error::failed(format!(
                "the index lists '{}', which is no path of a work tree",
                entry.path.escape_ascii()
            )));
        }
        if entry.mode == MODULE {
            plan.modules.insert(entry.path.clone(), entry.oid.clone());
            continue;
        }
        if plan.items.contains_key(&entry.path) {
            continue;
        }
        let Some(meta) = looker.look(&entry.path) else {
            if entry.skip_worktree {
                plan.sparse.insert(entry.path.clone(), (entry.mode, entry.oid.clone()));
            }
            continue;
        };
        if !meta.is_file() && !meta.is_symlink() {
            if !meta.is_dir() {
                let path = entry.path.escape_ascii();
                plan.notes.push(format!("'{path}' is no file and stays behind"));
            }
            continue;
        }
        let mut item = Item::listed(repository, entry, &meta);
        let clean = is_clean(entry, &meta, item.mode, written);
        item.oid = clean.then(|| entry.oid.clone());
        plan.items.insert(entry.path.clone(), item);
    }
    Ok(plan)
}

/// Says whether a file is known to hold what the index says, as git itself tells it: the same
/// times, size and inode, and older than the index.
fn is_clean(entry: &index::Entry, meta: &Metadata, mode: u32, written: (i64, i64)) -> bool {
    let mtime = (meta.mtime(), meta.mtime_nsec());
    entry.stage == 0
        && !entry.intent_to_add
        && entry.mode == mode
        && entry.size != 0
        && entry.size == meta.len() as u32
        && entry.ino == meta.ino() as u32
        && (i64::from(entry.mtime.0), i64::from(entry.mtime.1)) == mtime
        && (i64::from(entry.ctime.0), i64::from(entry.ctime.1)) == (meta.ctime(), meta.ctime_nsec())
        && mtime < written
}

fn mode_of(meta: &Metadata) -> u32 {
    if meta.is_symlink() {
        LINK
    } else if meta.mode() & 0o100 != 0 {
        0o100_755
    } else {
        0o100_644
    }
}

/// Says whether a path may be in a work tree: below it, and in nothing that could be taken for a
/// `.git`, here or on another file system.
pub(crate) fn is_safe(path: &[u8]) -> bool {
    is_inside(path) && !path.split(|byte| *byte == b'/').any(is_git_dir)
}

/// Says whether a path leads into a `.git`.
pub(crate) fn has_git(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|part| part == b".git")
}

/// Says whether a name is `.git`, or is to a file system that folds case, drops trailing dots and
/// spaces, has short names, or ignores some characters.
fn is_git_dir(name: &[u8]) -> bool {
    let visible: String = String::from_utf8_lossy(name)
        .chars()
        .filter(|c| {
            !matches!(*c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
                | '\u{206a}'..='\u{206f}' | '\u{feff}')
        })
        .flat_map(char::to_lowercase)
        .collect();
    let plain = visible.split(':').next().unwrap_or_default();
    matches!(plain.trim_end_matches(['.', ' ']), ".git" | "git~1")
}

/// Plans a directory without git: all of it but what `.bangerignore` files name.
pub(crate) fn of_directory(root: &Dir, git: &Git, taking: &Taking) -> Result<Plan> {
    Ok(of_directory_by_rules(root, git, taking)?.0)
}

/// Plans such a directory, and returns the rules by which that was done.
pub(crate) fn of_directory_by_rules(
    root: &Dir,
    git: &Git,
    taking: &Taking,
) -> Result<(Plan, Rules)> {
    let mut plan = Plan::new(root);
    let (mut found, rules) = walk::plain(root, git, taking.include.as_ref())?;
    let mut looker = Looker::new(root.path());
    for path in found.inner {
        // It holds passwords and programs, and more than lies in the directory.
        plan.notes.push(format!("'{}' stays behind", path.escape_ascii()));
    }
    for path in found.others {
        plan.notes.push(format!("'{}' is no file and stays behind", path.escape_ascii()));
    }
    // What is ignored went because it was asked for, and goes again.
    let mut ignored: BTreeSet<Vec<u8>> = BTreeSet::new();
    for (path, is_ignored) in std::mem::take(&mut found.wanted) {
        if is_ignored { &mut ignored } else { &mut found.files }.insert(path);
    }
    let before = taking.before_at(b"").filter(|path| !found.files.contains(*path));
    ignored.extend(before.map(<[u8]>::to_vec));
    plan.missed = found.missed.into_iter().filter(|path| !ignored.contains(path)).collect();
    let ignored = ignored.into_iter().map(|path| (path, Some(Beside::Ignored)));
    for (path, beside) in found.files.into_iter().map(|path| (path, None)).chain(ignored) {
        // What is gone meanwhile was not there.
        if let Some(meta) = looker.look(&path).filter(|meta| meta.is_file() || meta.is_symlink()) {
            plan.items.insert(path, Item::of(&meta, beside));
        }
    }
    plan.dirs = std::mem::take(&mut found.dirs);
    for path in found.empty {
        if let Some(meta) = looker.look(&path).filter(Metadata::is_dir) {
            plan.items.insert(path, Item { mode: DIR, ..Item::of(&meta, None) });
        }
    }
    Ok((plan, rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_could_be_git_is_safe() {
        for bad in [
            ".git",
            "a/.git/config",
            ".GIT/x",
            ".Git",
            "git~1/x",
            "GIT~1",
            ".git.",
            ".git ",
            ".git . ",
            ".git::$INDEX_ALLOCATION",
            ".g\u{200c}it",
            "../x",
            "/x",
            "",
        ] {
            assert!(!is_safe(bad.as_bytes()), "{bad:?}");
        }
        for good in [".gitignore", "git", ".github/x", "a.git", "git~2", ".gitmodules", "..."] {
            assert!(is_safe(good.as_bytes()), "{good:?}");
        }
    }
}
