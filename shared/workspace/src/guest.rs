//! Looking at what a guest made of what it was given, believing nothing it says.

use crate::{
    git::split_zero,
    given::{Given, Seen, Sort, Tree},
    index,
    plan::{DIR, LINK, MODULE, has_git, is_safe},
    ready::parse_packed_refs,
    source::{is_absent, is_ref_name},
    store::Store,
};
use banger_channel::files::{Entry, Files, Got, Limits, MARK, What};
use banger_doc::{Context, Error, Position, Result};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt::Write as _,
    fs::{self, File},
    io::Read,
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::Path,
    time::Duration,
};

/// The largest list of what to ignore, or of attributes.
const MAX_RULES: u64 = 1 << 20;
/// Limits for the small files of a `.git`.
const GIT_LIMITS: Limits =
    Limits { entries: 200_000, bytes: 512 << 20, time: Duration::from_mins(10) };

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
    /// Paths of the index that are absent on purpose.
    skipped: BTreeSet<Vec<u8>>,
    /// What the user is to know.
    pub(crate) notes: Vec<String>,
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

pub(crate) fn hex(sum: &[u8]) -> String {
    sum.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Looks at the guest's tree. A path that is as in `given` or as in `next` is no change.
pub(crate) fn look(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    given: &Tree,
    next: Option<&Tree>,
    is_repository: bool,
    keeps_mode: bool,
) -> Result<Look> {
    let mut look = Look { is_there: true, is_empty: true, ..Look::default() };
    let mut inner_repositories = Vec::new();
    let scanned = files.scan(root, Limits::default(), |entry| {
        look.is_empty = false;
        let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if entry.what != What::Dir && name.starts_with(MARK.as_bytes()) {
            look.litter.push(entry.path);
        } else if let Some(dir) = entry.path.strip_suffix(b"/.git") {
            if !given.contains_key(&entry.path) && !given.keys().any(|p| p.starts_with(&entry.path))
            {
                inner_repositories.push([dir, b"/"].concat());
            }
        } else if entry.path != b".git" && !has_git(&entry.path) {
            look.entries.insert(entry.path.clone(), entry);
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
    for path in look.entries.keys() {
        let parent = path.iter().rposition(|byte| *byte == b'/').map(|at| &path[..at]);
        let parent = parent.and_then(|parent| look.entries.get(parent));
        if parent.is_some_and(|parent| parent.what != What::Dir) {
            let path = path.escape_ascii();
            return Err(Error::failed(format!(
                "the guest's agent has '{path}' below no directory"
            ))
            .hint("the guest may be broken or hostile; nothing was taken from this answer"));
        }
    }
    for dir in inner_repositories {
        let name = dir.strip_suffix(b"/").unwrap_or(&dir).escape_ascii();
        look.notes
            .push(format!("'{name}' is a repository of its own in the guest; it is left out"));
        let end = [&dir[..dir.len() - 1], b"0"].concat();
        let inside: Vec<_> = look.entries.range(dir..end).map(|(path, _)| path.clone()).collect();
        for path in inside {
            look.entries.remove(&path);
        }
    }
    let mut tracked = BTreeSet::new();
    if is_repository {
        read_position(files, root, &mut look, &mut tracked, store.oid_len)?;
    }
    compare(files, root, &mut look, given, next, keeps_mode)?;
    let added: Vec<Vec<u8>> = look
        .entries
        .iter()
        .filter(|(path, entry)| {
            matches!(entry.what, What::File | What::Link)
                && !given.get(*path).is_some_and(Given::is_there)
                && !next.and_then(|next| next.get(*path)).is_some_and(Given::is_there)
        })
        .map(|(path, _)| path.clone())
        .collect();
    let ignored = ignored(files, root, store, &look, &added, is_repository)?;
    for path in added {
        if tracked.contains(&path) || !ignored.contains(&path) {
            look.changes.insert(path, How::Added);
        }
    }
    for path in look.changes.keys() {
        if !is_safe(path) {
            return Err(Error::failed(format!(
                "the guest's '{root}' holds '{}', which git refuses as a path",
                path.escape_ascii()
            ))
            .hint("remove it in the guest, or add it to '.gitignore' there"));
        }
    }
    Ok(look)
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
        if has_git(path) {
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
            What::Other => false,
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
    let sums = files.hash(root, &asked, Limits::default())?;
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

/// Reads HEAD, the references and the index of the guest's repository.
fn read_position(
    files: &Files<'_>,
    root: &str,
    look: &mut Look,
    tracked: &mut BTreeSet<Vec<u8>>,
    oid_len: usize,
) -> Result<()> {
    let mut read = BTreeMap::new();
    let names: [&[u8]; 3] = [b".git/HEAD", b".git/packed-refs", b".git/index"];
    files.get(root, &names, GIT_LIMITS, |index, got| {
        if let Got::File { content, .. } = got {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).context("cannot read from the guest's agent")?;
            read.insert(index, bytes);
        }
        Ok(())
    })?;
    let head = read.remove(&0).unwrap_or_default();
    look.position.head = String::from_utf8_lossy(&head).trim().chars().take(1100).collect();
    look.position.refs = parse_packed_refs(&read.remove(&1).unwrap_or_default());
    let mut loose: Vec<Vec<u8>> = Vec::new();
    let scanned = files.scan(&format!("{root}/.git/refs"), GIT_LIMITS, |entry| {
        if entry.what == What::File && entry.size < 4096 {
            loose.push([b"refs/", entry.path.as_slice()].concat());
        }
        Ok(())
    });
    match scanned {
        Err(error) if is_absent(&error) => {}
        other => other?,
    }
    let asked: Vec<&[u8]> = loose.iter().map(Vec::as_slice).collect();
    if !asked.is_empty() {
        let refs = &mut look.position.refs;
        files.get(&format!("{root}/.git"), &asked, GIT_LIMITS, |index, got| {
            if let Got::File { content, size, .. } = got {
                let mut text = String::new();
                let whole = content.take(4096).read_to_string(&mut text);
                let name = String::from_utf8_lossy(asked[index]).into_owned();
                let oid = text.trim();
                if size < 4096
                    && whole.is_ok()
                    && is_ref_name(&name)
                    && (crate::git::is_oid(oid) || oid.starts_with("ref: "))
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
        match index::parse(&bytes, oid_len) {
            Ok(index) => {
                look.position.index_sha256 = index_sum(&index);
                for entry in index.entries {
                    if entry.skip_worktree {
                        look.skipped.insert(entry.path.clone());
                    }
                    tracked.insert(entry.path);
                }
            }
            Err(_) => look.notes.push("the guest's index cannot be read".into()),
        }
    }
    Ok(())
}

/// Returns a digest of what an index lists.
pub(crate) fn index_sum(index: &index::Index) -> String {
    let mut sum = Sha256::new();
    for entry in &index.entries {
        let flags = [entry.stage, u8::from(entry.skip_worktree), u8::from(entry.intent_to_add)];
        sum.update(entry.mode.to_be_bytes());
        sum.update(&entry.oid);
        sum.update(flags);
        sum.update(&entry.path);
        sum.update([0]);
    }
    hex(&sum.finalize())
}

/// Returns which of `paths` a rule ignores, by the rules that lie in the guest's tree and those it
/// was given.
fn ignored(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    look: &Look,
    paths: &[Vec<u8>],
    is_repository: bool,
) -> Result<BTreeSet<Vec<u8>>> {
    if paths.is_empty() {
        return Ok(BTreeSet::new());
    }
    let scratch = Scratch::new(store)?;
    let name: &[u8] = if is_repository { b".gitignore" } else { b".bangerignore" };
    write_rules(files, root, look, name, b".gitignore", &scratch)?;
    let mut input = Vec::new();
    for path in paths {
        // A first ':' would be taken for a pattern's magic.
        input.extend_from_slice(b"./");
        input.extend_from_slice(path);
        input.push(0);
    }
    let git = store.git().work_tree(&scratch.tree()).env("GIT_INDEX_FILE", scratch.index());
    let ended = git.attempt(["check-ignore", "-z", "--stdin", "--no-index"], &input)?;
    if ended.status.code().is_none_or(|code| code > 1) {
        let said = ended.words.trim().lines().next_back().unwrap_or("").to_owned();
        return Err(Error::failed("cannot tell what the guest ignores")
            .because(said.escape_debug().to_string()));
    }
    let ignored = split_zero(&ended.answer).filter_map(|path| path.strip_prefix(b"./"));
    Ok(ignored.map(<[u8]>::to_vec).collect())
}

/// Copies all files named `name` of the guest's tree to the scratch tree, as `new_name`.
fn write_rules(
    files: &Files<'_>,
    root: &str,
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
    if rules.is_empty() {
        return Ok(());
    }
    files.get(root, &rules, GIT_LIMITS, |index, got| {
        if let Got::File { content, size, .. } = got
            && size <= MAX_RULES
        {
            let dir = rules[index].strip_suffix(name).unwrap_or_default();
            scratch.write(&[dir, new_name].concat(), false, content)?;
        }
        Ok(())
    })
}

/// A directory of work in progress beside the store, gone with its value. A killed program's is
/// removed by the next one.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new(store: &Store) -> Result<Self> {
        let beside = store.dir.parent().expect("because a store lies in a VM's folder");
        let dir = tempfile::Builder::new()
            .prefix(".tmp-")
            .tempdir_in(beside)
            .with_context(|| format!("cannot make a directory in '{}'", beside.display()))?;
        for part in ["tree", "objects", "links"] {
            fs::create_dir(dir.path().join(part)).context("cannot make a scratch directory")?;
        }
        Ok(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn tree(&self) -> std::path::PathBuf {
        self.path().join("tree")
    }

    pub(crate) fn objects(&self) -> std::path::PathBuf {
        self.path().join("objects")
    }

    pub(crate) fn index(&self) -> std::path::PathBuf {
        self.path().join("index")
    }

    /// Writes a file of the scratch tree. No link is ever made in there, so a checked path stays.
    fn write(&self, path: &[u8], executable: bool, content: &mut dyn Read) -> Result<()> {
        let full = self.tree().join(OsStr::from_bytes(path));
        let said = || format!("cannot write '{}'", path.escape_ascii());
        if let Some(dir) = full.parent() {
            fs::create_dir_all(dir).with_context(said)?;
        }
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(if executable { 0o700 } else { 0o600 })
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&full)
            .with_context(said)?;
        std::io::copy(content, &mut file).with_context(said)?;
        Ok(())
    }
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
        .git_writing_to(&scratch.objects())
        .work_tree(&scratch.tree())
        .env("GIT_INDEX_FILE", scratch.index())
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
    let mut gone = Vec::new();
    let mut changed: Vec<&[u8]> = Vec::new();
    for (path, how) in &look.changes {
        if given.get(path).is_some_and(|given| given.sort == Sort::Inner) {
            continue;
        }
        let is_kept =
            look.entries.get(path).is_some_and(|e| matches!(e.what, What::File | What::Link));
        if is_kept {
            changed.push(path);
        } else if *how != How::Added && !look.skipped.contains(path) {
            gone.extend_from_slice(path);
            gone.push(0);
        }
    }
    if !gone.is_empty() {
        git.run(["update-index", "-z", "--force-remove", "--stdin"], &gone)?;
    }
    if !changed.is_empty() {
        write_rules(files, root, look, b".gitattributes", b".gitattributes", scratch)?;
        add_changed(files, root, &git, scratch, look, &changed)?;
    }
    let tree = git.text(["write-tree"]).context("cannot make a tree of the guest's files")?;
    Ok(tree)
}

fn add_changed(
    files: &Files<'_>,
    root: &str,
    git: &crate::git::Git,
    scratch: &Scratch,
    look: &Look,
    changed: &[&[u8]],
) -> Result<()> {
    let size: u64 = changed.iter().filter_map(|path| look.entries.get(*path)).map(|e| e.size).sum();
    // What grows a little meanwhile is no reason to give up; what is endless is.
    let limits = Limits { bytes: size + (64 << 20), ..Limits::default() };
    let mut regular = Vec::new();
    let mut links: Vec<&[u8]> = Vec::new();
    let mut targets = String::new();
    files.get(root, changed, limits, |index, got| {
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

/// Adds a line for `git update-index -z --index-info`.
pub(crate) fn index_line(lines: &mut Vec<u8>, mode: u32, oid: &str, path: &[u8]) {
    lines.extend_from_slice(format!("{mode:06o} {oid}\t").as_bytes());
    lines.extend_from_slice(path);
    lines.push(0);
}
