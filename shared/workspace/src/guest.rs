//! Looking at what a guest made of what it was given, believing nothing it says.

use crate::{
    git::{DIR, Git, LINK, MODULE, is_oid, lines, split_zero},
    given::{Given, Seen, Sort, Tree},
    index::{self, index_line, index_sum},
    names::{hex, is_ref_name},
    path::{parents, shown},
    plan::{has_git, is_safe},
    ready::parse_packed_refs,
    scratch::{Scratch, make_dirs},
    source::is_absent,
    store::Store,
};
use banger_channel::files::{Budget, Entry, Files, Got, MARK, What, is_inside};
use banger_doc::{Context, Error, Kind, Position, Result, Work, WorkKind, Workspace};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::Read,
    time::Duration,
};

/// The largest list of what to ignore, or of attributes.
const MAX_RULES: u64 = 1 << 20;
/// How much of such lists is read from the index, where their files are absent on purpose.
const MAX_ALL_RULES: u64 = 64 << 20;
/// How many places that are in no patch are named.
const MAX_LEFT: usize = 50;
/// How many linked work trees are looked at.
const MAX_WORK_TREES: usize = 4096;
/// How much of the budget the small files of a `.git` may take each time.
fn small(budget: &Budget) -> Budget {
    budget.entries(200_000).bytes(512 << 20).time(Duration::from_mins(10))
}

/// What an entry of a look takes beside its names.
const ENTRY: usize = 48;

/// How one path differs from what was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum How {
    Added,
    Modified,
    Deleted,
}

/// What differs, by path.
pub(crate) type Changes = BTreeMap<Vec<u8>, How>;

impl How {
    /// Returns the word for it in a document.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
        }
    }
}

/// What a guest's tree is like, next to what was given.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// Whether the root is there at all.
    pub(crate) is_there: bool,
    /// Whether the root holds anything.
    pub(crate) is_empty: bool,
    /// Every file and link but those of nested repositories.
    pub(crate) entries: BTreeMap<Vec<u8>, Entry>,
    /// What differs; what is ignored is not in it.
    pub(crate) changes: Changes,
    /// What is as it was given, and how it looks now.
    pub(crate) same: BTreeMap<Vec<u8>, Seen>,
    /// What an agent that was killed left behind.
    pub(crate) litter: Vec<Vec<u8>>,
    /// HEAD, references, index.
    pub(crate) position: Position,
    /// What the guest's index lists.
    index: Listing,
    /// Places of the guest that no look reached the content of.
    closed: BTreeSet<Vec<u8>>,
    /// What no patch holds.
    pub(crate) left: Vec<Work>,
    /// Whether any of that lies where a prepare writes, so that it could be overwritten.
    pub(crate) is_in_the_way: bool,
    /// What the user is to know.
    pub(crate) notes: Vec<String>,
}

/// What an index of the guest's lists.
#[derive(Debug, Default)]
struct Listing {
    /// Whether all that it lists is known.
    is_whole: bool,
    /// Every path.
    tracked: BTreeSet<Vec<u8>>,
    /// Paths that are absent on purpose.
    skipped: BTreeSet<Vec<u8>>,
    /// Submodules: the commit of each.
    modules: BTreeMap<Vec<u8>, String>,
    /// The object of each file and link.
    staged: BTreeMap<Vec<u8>, (u32, String)>,
}

impl Look {
    /// Says whether a path lies in a place whose content is not known.
    fn is_hidden(&self, path: &[u8]) -> bool {
        !self.closed.is_empty() && parents(path).any(|parent| self.closed.contains(parent))
    }
}

/// Says whether anything of a sorted list, from `dir` on, lies below it; `dir` ends with a slash.
fn holds<'a, T: 'a>(mut from: impl Iterator<Item = (&'a Vec<u8>, T)>, dir: &[u8]) -> bool {
    from.next().is_some_and(|(path, _)| path.starts_with(dir))
}

/// Returns what a scan says of a file.
fn seen(entry: &Entry) -> Seen {
    Seen { size: entry.size, mtime_ns: entry.mtime_ns, ctime_ns: entry.ctime_ns, ino: entry.ino }
}

/// Returns the mode that an entry would have in a tree of git.
fn mode_of(entry: &Entry) -> u32 {
    match entry.what {
        What::Link => LINK,
        What::Dir => DIR,
        _ if entry.mode & 0o100 != 0 => 0o100_755,
        _ => 0o100_644,
    }
}

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

/// Says whether nothing or no directory is where one was looked for.
fn is_no_directory(error: &Error) -> bool {
    is_absent(error) || error.kind() == Kind::Conflict
}

/// Notes the work trees that the guest linked to its repository: what is edited or staged there is
/// in no patch, nor are commits that only its HEAD names.
fn linked_work_trees(
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

/// Notes the submodules whose HEAD or references the guest moved, and those with versions of files that
/// their index alone has.
fn moved_modules(
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

/// Reads those of `paths` below `root` that are files of at most `most` bytes, by their place.
fn small_files(
    files: &Files<'_>,
    root: &str,
    paths: &[&[u8]],
    most: u64,
) -> Result<BTreeMap<usize, Vec<u8>>> {
    let mut read = BTreeMap::new();
    let budget = files.budget();
    files.within(small).get(root, paths, |index, got| {
        if let Got::File { content, size, .. } = got
            && size <= most
        {
            budget.take_names(1, size)?;
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).context("cannot read from the guest's agent")?;
            read.insert(index, bytes);
        }
        Ok(())
    })?;
    Ok(read)
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

/// Says whether the guest's index is known to list what the commit `head` holds.
pub(crate) fn index_is_committed(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    look: &Look,
    head: &str,
) -> Result<bool> {
    if !is_oid(head) {
        return Ok(false);
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
    let Some(tree) = tree.strip_prefix(b"tree ") else { return Ok(false) };
    let mut lines = Vec::new();
    for (path, (mode, oid)) in &look.index.staged {
        index_line(&mut lines, *mode, oid, path);
    }
    for (path, oid) in &look.index.modules {
        index_line(&mut lines, MODULE, oid, path);
    }
    if !git.attempt(["update-index", "-z", "--index-info"], &lines)?.status.success() {
        return Ok(false);
    }
    let listed = git.attempt(["write-tree", "--missing-ok"], b"")?;
    Ok(listed.status.success() && listed.answer.trim_ascii() == tree)
}

fn compare(
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
        let alike = |given: &&&Given| match entry.what {
            What::Dir => given.mode == DIR || given.mode == MODULE,
            What::Link => given.mode == LINK && !given.sum.is_empty(),
            What::File => {
                given.mode == mode_of(entry)
                    || (keeps_mode && given.mode & 0o170_000 == 0o100_000)
                    || (given.mode == LINK && given.sort == Sort::File)
            }
            What::Other | What::Closed => false,
        };
        let alike: Vec<&&Given> = candidates.iter().filter(alike).collect();
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

/// Reads HEAD, the references and the index of the guest's repository, and returns what it ignores
/// beside the rules in its tree.
fn read_position(
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

/// Returns which of `paths` and of the directories `dirs` a rule ignores, by those that lie in the
/// guest's tree and by `rules`.
#[allow(clippy::too_many_arguments, reason = "each is another part of one question")]
fn ignored(
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
struct Ignored {
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

    fn contains(&self, path: &[u8]) -> bool {
        let order = |place: &(usize, usize)| self.answer[place.0..place.1].cmp(path);
        self.places.binary_search_by(order).is_ok()
    }
}

/// Copies all files named `name` of the guest's tree to the scratch tree, as `new_name`.
#[allow(clippy::too_many_arguments, reason = "each is another part of one question")]
fn write_rules(
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

/// Makes the tree of the guest's files, in scratch objects, and returns its name.
pub(crate) fn tree_of(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    scratch: &Scratch,
    given: &Tree,
    look: &Look,
    keeps_mode: bool,
) -> Result<String> {
    let git = store
        .git_for_guest(Some(scratch))
        .work_tree(&scratch.tree())
        .set("core.protectHFS=true")
        .set("core.protectNTFS=true")
        .set("core.safecrlf=false")
        .set("core.bigFileThreshold=64m")
        .set(format!("core.fileMode={}", !keeps_mode));
    let mut lines = Vec::new();
    for (path, given) in given {
        if given.sort == Sort::Inner || given.sort == Sort::Dir || has_git(path) {
            continue;
        }
        // Also those that changed: whether a file is text may depend on what it was.
        if !given.oid.is_empty() {
            index_line(&mut lines, given.mode, &given.oid, path);
        }
    }
    git.run(["update-index", "-z", "--index-info"], &lines)
        .context("cannot read back what the guest was given")?;
    let (mut gone, mut modules) = (Vec::new(), Vec::new());
    let mut changed: Vec<&[u8]> = Vec::new();
    for (path, how) in &look.changes {
        let is_listed = look.index.tracked.contains(path);
        if !is_listed && given.get(path).is_some_and(|given| given.sort == Sort::Inner) {
            continue;
        }
        if parents(path).any(|dir| dir != path && look.index.modules.contains_key(dir)) {
            // Files of a submodule would take its place.
            continue;
        }
        let is_kept =
            look.entries.get(path).is_some_and(|e| matches!(e.what, What::File | What::Link));
        if let Some(oid) = look.index.modules.get(path) {
            index_line(&mut modules, MODULE, oid, path);
        } else if is_kept && *how != How::Deleted {
            changed.push(path);
        } else if *how != How::Added && !look.index.skipped.contains(path) {
            gone.extend_from_slice(path);
            gone.push(0);
        }
    }
    if !gone.is_empty() {
        git.run(["update-index", "-z", "--force-remove", "--stdin"], &gone)?;
    }
    if !modules.is_empty() {
        git.run(["update-index", "-z", "--replace", "--index-info"], &modules)?;
    }
    if !changed.is_empty() {
        write_rules(files, root, store, look, b".gitattributes", b".gitattributes", scratch)?;
        add_changed(files, root, &git, scratch, look, &changed)?;
    }
    let tree = git.text(["write-tree"]).context("cannot make a tree of the guest's files")?;
    Ok(tree)
}

fn add_changed(
    files: &Files<'_>,
    root: &str,
    git: &Git,
    scratch: &Scratch,
    look: &Look,
    changed: &[&[u8]],
) -> Result<()> {
    let mut entries = changed.iter().filter_map(|path| look.entries.get(*path));
    let size = entries.try_fold(64 << 20, |sum: u64, entry| sum.checked_add(entry.size));
    // What grows a little meanwhile is no reason to give up; what is endless is. What the guest says makes
    // it less, and never more.
    let files = files.within(|budget| budget.bytes(size.unwrap_or(u64::MAX)));
    let mut regular = Vec::new();
    let mut links: Vec<&[u8]> = Vec::new();
    let mut targets = String::new();
    files
        .get(root, changed, |index, got| {
            let path = changed[index];
            match got {
                Got::File { mode, content, .. } => {
                    scratch.write(path, mode & 0o100 != 0, content)?;
                    regular.extend_from_slice(path);
                    regular.push(0);
                }
                Got::Link(target) => {
                    let file = scratch.path().join("links").join(links.len().to_string());
                    fs::write(&file, target).context("cannot write a link")?;
                    let _ = writeln!(targets, "{}", file.display());
                    links.push(path);
                }
                Got::Missing => {
                    return Err(Error::conflict(format!(
                        "'{}' went away while it was read",
                        path.escape_ascii()
                    ))
                    .hint("try again"));
                }
            }
            Ok(())
        })
        .map_err(|error| {
            error.or_hint("a rule in '.gitignore' keeps a file out, 'banger vm cp' copies it")
        })?;
    if !regular.is_empty() {
        git.run(["update-index", "--add", "--replace", "-z", "--stdin"], &regular)
            .context("cannot take over the guest's files")?;
    }
    if !links.is_empty() {
        let words = ["hash-object", "-w", "--no-filters", "--stdin-paths"];
        let oids = git.run(words, targets.as_bytes())?;
        let mut lines = Vec::new();
        for (path, oid) in links.iter().zip(String::from_utf8_lossy(&oids).lines()) {
            index_line(&mut lines, LINK, oid, path);
        }
        git.run(["update-index", "-z", "--replace", "--index-info"], &lines)?;
    }
    Ok(())
}

/// Returns what a patch between two trees changes.
pub(crate) fn differences(git: &Git, base: &str, tree: &str) -> Result<Changes> {
    let words =
        ["diff-tree", "-r", "-z", "--no-renames", "--name-status", "--ignore-submodules=none"];
    let answer = git.run(words.iter().copied().chain([base, tree]), b"")?;
    let mut fields = split_zero(&answer);
    let mut changes = Changes::new();
    while let (Some(how), Some(path)) = (fields.next(), fields.next()) {
        let how = match how {
            b"A" => How::Added,
            b"D" => How::Deleted,
            _ => How::Modified,
        };
        changes.insert(path.to_vec(), how);
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

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
