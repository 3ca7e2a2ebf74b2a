//! What host and guest have that the other lacks, and what would be lost with a VM.

use crate::{
    git::{MORE_TIME, is_oid, split_zero},
    guest::{self, Changes, How, Look, differences},
    host::include::{Include, Taking},
    host::source::Source,
    path::{parents, shown, some_of},
    prepare::load::read_item,
    prepare::plan,
    record,
    record::folders::{folder, records},
    record::given::{Sort, Tree, beside},
    record::prepared::Prepared,
    record::store::Store,
    remote::kept::still_kept,
    temporary::Temporary,
};
use banger_channel::files::{Budget, Files};
use banger_doc::{
    Change, Context, Error, Position, Result, Status, Work, WorkKind, Workspace, WorkspaceStatus,
    shell_word,
};
use banger_state::{VmFolder, place};
use nix::sys::statvfs::statvfs;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How many files a sentence names.
const MOST_NAMED: usize = 2;

/// How long a guest has to let itself be asked.
const CONNECT: Duration = Duration::from_secs(10);

/// Returns what a command that may last for `time` lets the guest of a VM take: what has room on the disk of
/// the state, twice, since what changed is kept as it came and as git keeps it.
pub fn budget(vm: &VmFolder, time: Duration) -> Result<Budget> {
    let said = || format!("cannot look at '{}'", vm.path().display());
    let stat = statvfs(vm.path()).with_context(said)?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    Ok(Budget::new(time).or_more_time(MORE_TIME).bytes((free - free / 20) / 2))
}

/// Says what gives more time, where a command failed after its time was over.
pub fn or_more_time(error: Error, budget: &Budget) -> Error {
    if budget.left().is_err() { error.or_hint(MORE_TIME) } else { error }
}

/// Returns the files of a VM: its agent's while it runs, else those on its disks, which are read then.
pub fn files_of(vm: &VmFolder, budget: Budget) -> Files<'_> {
    banger_offline::files(vm, budget)
}

/// Asks a running VM where a user's work lies; the guest's own user's if none is named.
pub fn place_of(vm: &VmFolder, user: Option<&str>) -> Result<String> {
    let (_dir, path) = vm.short_path(place::VM_CHANNEL)?;
    let account = banger_channel::control::account(&path, user, CONNECT)
        .with_context(|| format!("cannot tell where a workspace lies in VM '{}'", vm.name()))
        .map_err(|error| error.or_hint("'--guest-path' and '--user' say where, and whose it is"))?;
    Ok(account.place)
}

/// What is at stake when a VM goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stake {
    /// It holds no work that is not on the host too.
    Nothing,
    /// It holds work that nobody exported.
    Work(Vec<Work>),
    /// It has a workspace, and it is not known what is in it; why.
    Unknown(String),
    /// It has several workspaces, and something is at stake in these, by their places in the guest.
    Several(Vec<(String, Stake)>),
}

impl Stake {
    /// Refuses in words if anything is at stake.
    pub fn refuse(&self, vm: &str) -> Result<()> {
        let (message, next) = match self {
            Self::Nothing => return Ok(()),
            Self::Work(work) => (
                format!("VM '{vm}' holds work that was not exported: {}", Work::list(work)),
                way_out(work, vm, None),
            ),
            Self::Unknown(why) => (
                format!(
                    "it is not known whether VM '{vm}' holds work that was not exported: {why}"
                ),
                format!("'banger workspace status {vm}' looks at it again"),
            ),
            Self::Several(all) if all.iter().any(|(_, one)| matches!(one, Self::Work(_))) => (
                format!("VM '{vm}' holds work that was not exported: {}", in_each(all)),
                way_out(&work_of(all), vm, Some("DIR")),
            ),
            Self::Several(all) => (
                format!(
                    "it is not known whether VM '{vm}' holds work that was not exported: {}",
                    in_each(all)
                ),
                format!("'banger workspace status {vm}' looks at them again"),
            ),
        };
        Err(Error::conflict(message).hint(next))
    }
}

/// Returns the work of several workspaces.
fn work_of(all: &[(String, Stake)]) -> Vec<Work> {
    let work = all.iter().map(|(_, one)| match one {
        Stake::Work(work) => work.as_slice(),
        _ => &[],
    });
    work.flatten().cloned().collect()
}

/// Says what to type to bring work out of a VM; of one that has several workspaces, the place of this one is
/// named.
pub fn way_out(work: &[Work], vm: &str, guest_path: Option<&str>) -> String {
    let which = guest_path.map(|path| format!(" --guest-path {}", shell_word(path)));
    let which = which.unwrap_or_default();
    let has = |is: &dyn Fn(&Work) -> bool| work.iter().any(is);
    let is_pulled = |work: &Work| match work.kind {
        WorkKind::Head | WorkKind::Commits | WorkKind::Untracked => true,
        // One that could not be read has no count.
        WorkKind::Index => work.words == STAGED || work.count.is_some(),
        _ => false,
    };
    let is_change = |work: &Work| work.kind == WorkKind::Changes;
    let is_rest = has(&|work| !is_change(work) && !is_pulled(work));
    let out = if has(&is_pulled) {
        format!("'banger workspace pull {vm}{which}' brings it out")
    } else if has(&is_change) {
        format!("'banger workspace apply {vm}{which}' brings it out")
    } else {
        return "'banger vm cp' copies it out".into();
    };
    if is_rest { format!("{out}, 'banger vm cp' what no branch or patch holds") } else { out }
}

/// Says what is at stake in each of several workspaces.
fn in_each(all: &[(String, Stake)]) -> String {
    let words = all.iter().map(|(path, one)| match one {
        Stake::Work(work) => format!("in '{path}' {}", Work::list(work)),
        Stake::Unknown(why) => format!("of '{path}' that is not known: {why}"),
        Stake::Nothing | Stake::Several(_) => format!("in '{path}' nothing"),
    });
    words.collect::<Vec<_>>().join("; ")
}

/// Says what would be lost if this VM were deleted now, whether it runs or not; with a place in the guest, of the
/// workspace there alone.
pub fn stake(vm: &VmFolder, guest_path: Option<&str>, time: Duration) -> Result<Stake> {
    let mut records = records(vm)?;
    if guest_path.is_some() {
        let asked = folder(vm, guest_path)?;
        records.retain(|(dir, _)| *dir == asked);
    }
    if records.is_empty() || vm.status()? == Status::Created {
        return Ok(Stake::Nothing);
    }
    let files = files_of(vm, budget(vm, time)?);
    let is_one = records.len() == 1;
    let mut found = Vec::new();
    for (dir, record) in records {
        let stake = match guest_work(&dir, &files) {
            Ok(work) if work.is_empty() => Stake::Nothing,
            Ok(work) => Stake::Work(work),
            Err(error) => Stake::Unknown(error.chain()),
        };
        if is_one {
            return Ok(stake);
        }
        if stake != Stake::Nothing {
            found.push((record.guest_path, stake));
        }
    }
    Ok(if found.is_empty() { Stake::Nothing } else { Stake::Several(found) })
}

/// Returns what would be lost with a guest. The host's repository is not looked at, however long that took.
pub fn guest_work(dir: &Path, files: &Files<'_>) -> Result<Vec<Work>> {
    let prepared = Prepared::open(dir, files)?;
    let look = prepared.look(files)?;
    let Prepared { record, store, given, .. } = &prepared;
    unexported(files, record, store, given, &look, store.keeps_mode())
}

/// Compares host and guest, which runs, or whose disks are read; what disks cannot tell is not known.
/// `configured` are directories of git's that every repository may lead to.
pub fn status(
    dir: &Path,
    files: &Files<'_>,
    is_live: bool,
    configured: &[PathBuf],
) -> Result<WorkspaceStatus> {
    let prepared = Prepared::open(dir, files)?;
    let Prepared { record, store, given, .. } = &prepared;
    let mut status = WorkspaceStatus {
        guest_path: record.guest_path.clone(),
        host_path: record.host_path.clone(),
        is_live,
        is_known: true,
        unexported: Vec::new(),
        guest_changes: Vec::new(),
        guest_commit: None,
        host_commit: None,
        host_changes: Vec::new(),
        notes: Vec::new(),
    };
    let end = Some(files.budget().end());
    let looked = prepared.look(files).and_then(|look| {
        Ok((unexported(files, record, store, given, &look, store.keeps_mode())?, look))
    });
    match looked {
        Ok((unexported, look)) => {
            status.unexported = unexported;
            status.guest_changes = changes(&look.changes);
            status.guest_commit = head_commit(&look.position);
            status.notes.extend(look.notes);
            if !look.is_there {
                status.notes.push(format!("'{}' is gone from the guest", record.guest_path));
            }
        }
        Err(error) if is_live || files.budget().left().is_err() => return Err(error),
        // What the host has is known all the same.
        Err(error) => {
            status.is_known = false;
            status.notes.push(error.chain());
        }
    }
    match host_changes(record, given, configured, end) {
        Ok((commit, host)) => {
            status.host_changes = changes(&host);
            status.host_commit = commit;
        }
        Err(error) => status.notes.push(error.chain()),
    }
    status.notes.extend(went_in(store, record, given).unwrap_or_else(|error| Some(error.chain())));
    if record.next.is_some() {
        status.notes.push("the last prepare or push did not end; do it again".into());
    }
    Ok(status)
}

/// Says which local edits of the host's went in: only a patch to the commit has them.
fn went_in(store: &Store, record: &Workspace, given: &Tree) -> Result<Option<String>> {
    let Some(base) = &record.base_commit else { return Ok(None) };
    let git = store.git_for_guest(None);
    let mut edits = differences(&git, base, &record.prepared_tree)?;
    edits.retain(|path, _| given.get(path).is_none_or(|given| given.beside.is_none()));
    let Some(first) = edits.keys().next() else { return Ok(None) };
    let first = shown(first).escape_debug().to_string();
    let what = match edits.len() {
        1 => format!("'{first}' went in with a local edit of the host's, which is"),
        count => {
            format!(
                "{count} files, as '{first}', went in with local edits of the host's, which are"
            )
        }
    };
    Ok(Some(format!("{what} in no patch but one with '--base-commit prepared'")))
}

/// Returns what the host changed since it was prepared; files are read until `end`.
fn host_changes(
    record: &Workspace,
    given: &Tree,
    configured: &[PathBuf],
    end: Option<Instant>,
) -> Result<(Option<String>, Changes)> {
    let trusted = [record::trusted(record), configured.to_vec()].concat();
    let source = Source::open(Path::new(&record.host_path), &trusted)?;
    let scratch = Temporary::new()?;
    let mut changes = BTreeMap::new();
    let taking = |untracked| -> Result<Taking> {
        let include = Include::new(&record.include)?;
        Ok(Taking { untracked, include, before: beside(given).cloned().collect() })
    };
    let (plan, commit) = match &source {
        Source::Repository(repository) => (
            plan::of_repository(repository, &taking(!repository.has_own_excludes)?, b"")?,
            repository.head.commit.clone(),
        ),
        Source::Directory(root) => {
            let mut store = Store::open(scratch.path(), "sha1")?;
            if let Some(end) = end {
                store = store.until(end);
            }
            (plan::of_directory(root, &store.git(), &taking(true)?)?, None)
        }
    };
    for (path, item) in &plan.items {
        match given.get(path) {
            None => {
                changes.insert(path.clone(), How::Added);
            }
            Some(given) if given.host == Some(item.seen) => {}
            Some(given) => {
                let sum = match read_item(item, &plan.root, path, end) {
                    Ok((sum, _)) => sum,
                    Err(error) if error.kind() == ErrorKind::TimedOut => {
                        return Err(Error::failed(
                            "there was no time to read what the host changed",
                        ));
                    }
                    Err(_) => String::new(),
                };
                if sum != given.sum || item.mode != given.mode {
                    changes.insert(path.clone(), How::Modified);
                }
            }
        }
    }
    for (path, given) in given {
        let is_file = matches!(given.sort, Sort::File | Sort::Link | Sort::Dir);
        if is_file && !plan.items.contains_key(path) {
            changes.insert(path.clone(), How::Deleted);
        }
    }
    Ok((commit, changes))
}

pub(crate) fn changes(changes: &BTreeMap<Vec<u8>, How>) -> Vec<Change> {
    changes.iter().map(|(path, how)| Change { path: shown(path), how: how.word().into() }).collect()
}

pub(crate) fn head_commit(position: &Position) -> Option<String> {
    match position.head.strip_prefix("ref: ") {
        Some(name) => position.refs.get(name.trim()).cloned(),
        None => Some(position.head.clone()).filter(|head| is_oid(head)),
    }
}

/// How changes that are staged are said.
const STAGED: &str = "staged changes";

/// Returns what moved in the guest's repository since it was prepared.
pub(crate) fn moved(
    files: &Files<'_>,
    record: &Workspace,
    store: &Store,
    look: &Look,
) -> Result<Vec<Work>> {
    let position = &look.position;
    let known: Vec<&Position> =
        [Some(&record.given), record.next.as_ref()].into_iter().flatten().collect();
    let mut moved = moved_from(files, record, store, &known, position);
    if record.is_repository
        && !known.iter().any(|known| known.index_sha256 == position.index_sha256)
        && (moved.is_empty() || is_staged(files, record, store, look)? == Some(true))
    {
        moved.push(Work::new(WorkKind::Index, STAGED));
    }
    Ok(moved)
}

/// Says whether the guest's index has what no commit of its HEAD does, if that is known.
fn is_staged(
    files: &Files<'_>,
    record: &Workspace,
    store: &Store,
    look: &Look,
) -> Result<Option<bool>> {
    let Some(head) = head_commit(&look.position) else { return Ok(None) };
    let is_committed = guest::index_is_committed(files, &record.guest_path, store, look, &head)?;
    Ok(is_committed.map(|is_committed| !is_committed))
}

fn moved_from(
    files: &Files<'_>,
    record: &Workspace,
    store: &Store,
    known: &[&Position],
    position: &Position,
) -> Vec<Work> {
    let mut moved = Vec::new();
    if !record.is_repository {
        return moved;
    }
    if position.head.is_empty() {
        moved.push(Work::new(WorkKind::Unreadable, "no '.git' that can be read").at(".git"));
        return moved;
    }
    let is_known =
        |name: &String, oid: &String| known.iter().any(|known| known.refs.get(name) == Some(oid));
    let refs: BTreeMap<&str, &str> = position
        .refs
        .iter()
        .filter(|(name, oid)| !is_known(name, oid))
        .map(|(name, oid)| (name.as_str(), oid.as_str()))
        .collect();
    let head = position.head.as_str();
    let is_moved = !known.iter().any(|known| known.head == head);
    let detached = Some(head).filter(|head| is_moved && is_oid(head));
    let tips = refs.iter().map(|(name, oid)| (*name, *oid));
    let own = guest::own_commits(
        files,
        &record.guest_path,
        store,
        detached.map(|oid| ("HEAD", oid)).into_iter().chain(tips),
    );
    let out: BTreeSet<&str> =
        known.iter().flat_map(|known| known.refs.values()).map(String::as_str).collect();
    if is_moved {
        let reference = head.trim_start_matches("ref: ");
        let count = detached.filter(|oid| !refs.values().any(|known| known == oid));
        let count = count.map(|oid| own.count(oid, &out));
        let words = match (reference.strip_prefix("refs/heads/"), count) {
            (Some(branch), _) => format!("branch '{}' checked out", branch.escape_debug()),
            (None, Some(None)) => "commits on a detached HEAD".into(),
            (None, Some(Some(count))) if count > 0 => {
                format!("{} on a detached HEAD", counted(count, "commit"))
            }
            _ => format!("HEAD at '{}'", reference.escape_debug()),
        };
        let work = Work::new(WorkKind::Head, words).of(reference);
        let count = count.flatten().filter(|count| *count > 0);
        moved.push(count.map_or_else(|| work.clone(), |count| work.clone().times(count)));
    }
    for (name, oid) in refs {
        let is_new = !known.iter().any(|known| known.refs.contains_key(name));
        let count = own.count(oid, &out);
        let work = Work::new(WorkKind::Commits, commits(name, count, is_new)).of(name);
        moved.push(count.map_or_else(|| work.clone(), |count| work.clone().times(count)));
    }
    moved
}

/// Says in words what a reference leads to that was not given.
fn commits(name: &str, count: Option<usize>, is_new: bool) -> String {
    if name == "refs/stash" {
        return "stashed changes".into();
    }
    let place = match (name.strip_prefix("refs/heads/"), name.strip_prefix("refs/tags/")) {
        (Some(branch), _) => format!("branch '{}'", branch.escape_debug()),
        (_, Some(tag)) => format!("tag '{}'", tag.escape_debug()),
        _ => format!("'{}'", name.trim_start_matches("refs/").escape_debug()),
    };
    match (count, is_new) {
        (None, _) => format!("commits on {place}"),
        (Some(0), true) => format!("new {place} without commits of its own"),
        (Some(0), false) => format!("{place} at another commit"),
        (Some(count), _) => format!("{} on {place}", counted(count, "commit")),
    }
}

/// Returns a number of things.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Returns what differs: changed files, and what moved.
pub(crate) fn differs(look: &Look, moved: &[Work]) -> Vec<Work> {
    let mut work = Vec::new();
    let count = look.changes.len();
    if let Some(first) = look.changes.keys().next() {
        let named = some_of(look.changes.keys().map(Vec::as_slice), count, MOST_NAMED);
        let words = format!("{} {named}", counted(count, "changed file"));
        work.push(Work::new(WorkKind::Changes, words).at(shown(first)).times(count));
    }
    work.extend_from_slice(moved);
    work
}

/// Returns what would be lost with the guest.
pub(crate) fn unexported(
    files: &Files<'_>,
    record: &Workspace,
    store: &Store,
    given: &Tree,
    look: &Look,
    keeps_mode: bool,
) -> Result<Vec<Work>> {
    if !look.is_there {
        // What is gone cannot be lost again.
        return Ok(Vec::new());
    }
    let exported = record.exported.as_ref();
    let pulled = still_kept(record);
    let known: Vec<&Position> =
        [Some(&record.given), record.next.as_ref(), exported.map(|e| &e.position)]
            .into_iter()
            .flatten()
            .chain(pulled.iter().map(|pulled| &pulled.position))
            .collect();
    let mut moved = moved_from(files, record, store, &known, &look.position);
    moved.extend(look.left.iter().cloned());
    let mut staged = BTreeMap::new();
    let is_as_given = |known: &Position| known.index_sha256 == look.position.index_sha256;
    if !is_as_given(&record.given)
        && !record.next.as_ref().is_some_and(is_as_given)
        && !pulled.iter().any(|pulled| is_as_given(&pulled.position))
    {
        staged = guest::staged_only(store, look)?;
    }
    let is_staged_new =
        !staged.is_empty() && !exported.is_some_and(|exported| is_as_given(&exported.position));
    let mut is_same = look.changes.is_empty();
    let has_left = exported.is_some() || pulled.iter().any(|pulled| pulled.tree.is_some());
    if !staged.is_empty() || (has_left && !is_same) {
        let scratch = store.scratch()?;
        let tree =
            guest::tree_of(files, &record.guest_path, store, &scratch, given, look, keeps_mode)?;
        is_same |= exported.is_some_and(|exported| tree == exported.tree);
        is_same |= pulled.iter().any(|pulled| pulled.tree.as_ref() == Some(&tree));
        let git = store.git_for_guest(Some(&scratch));
        let listed = git.run(["ls-tree", "-r", "-z", &tree], b"")?;
        let listed: BTreeMap<&[u8], &[u8]> = split_zero(&listed).filter_map(path_and_oid).collect();
        // Once an export saw this very index, an earlier version of a file that is in the patch is part
        // of its sum, as commits are.
        let is_summed = exported.is_some_and(|exported| is_as_given(&exported.position));
        staged.retain(|path, oid| {
            listed.get(path.as_slice()).is_none_or(|at| !is_summed && *at != oid.as_bytes())
        });
        scratch.remove()?;
    }
    let mut is_staged_too = false;
    if !staged.is_empty() || (is_staged_new && !is_same) {
        let is_staged = is_staged(files, record, store, look)?;
        is_staged_too = is_staged_new && !is_same && is_staged == Some(true);
        if is_staged == Some(false) {
            staged.clear();
        }
    }
    if let Some(path) = staged.keys().next() {
        let (path, count) = (shown(path), staged.len());
        let named = some_of(staged.keys().map(Vec::as_slice), count, MOST_NAMED);
        let words = format!("{STAGED} that are in the index alone {named}");
        moved.push(Work::new(WorkKind::Index, words).at(path).times(count));
    } else if is_staged_too {
        moved.push(Work::new(WorkKind::Index, STAGED));
    }
    let inner = inner_changes(given, look);
    if is_same && inner > 0 {
        let words = format!("{} in submodules", counted(inner, "changed file"));
        moved.push(Work::new(WorkKind::Submodule, words).times(inner));
    }
    if is_same { Ok(moved) } else { Ok(differs(look, &moved)) }
}

/// Splits a line of `git ls-tree -z` into its path and its object.
fn path_and_oid(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    Some((&line[tab + 1..], line[..tab].rsplit(|byte| *byte == b' ').next()?))
}

/// Returns how many files of submodules the guest changed: no patch of the repository holds them.
pub(crate) fn inner_changes(given: &Tree, look: &Look) -> usize {
    let is_module = |dir: &[u8]| given.get(dir).is_some_and(|given| given.sort == Sort::Module);
    let is_inside = |path: &&Vec<u8>| parents(path).any(|dir| dir != **path && is_module(dir));
    look.changes.keys().filter(is_inside).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_no_time_is_told_what_gives_more() {
        let hint = |time: Duration| {
            let failed = or_more_time(Error::failed("it broke off"), &Budget::new(time));
            failed.hint_text().map(ToOwned::to_owned)
        };
        assert_eq!(hint(Duration::ZERO).as_deref(), Some(MORE_TIME));
        assert_eq!(hint(Duration::from_mins(1)), None);
    }
}
