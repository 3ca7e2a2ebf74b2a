//! What host and guest have that the other lacks, and what would be lost with a VM.

use crate::{
    folders::{folder, records},
    git::{MORE_TIME, split_zero},
    given::{Sort, Tree},
    guest::{self, Changes, How, Look, differences},
    kept::still_kept,
    load::read_item,
    path::{parents, shown},
    plan,
    record::{self, Folder},
    source::Source,
    store::Store,
    temporary::Temporary,
};
use banger_channel::files::{Budget, Files};
use banger_doc::{
    Change, Context, Error, Position, Result, Status, Work, WorkKind, Workspace, WorkspaceStatus,
};
use banger_state::{VmFolder, place};
use nix::sys::statvfs::statvfs;
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

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
                format!(
                    "'banger workspace export {vm} --output FILE' brings out what a patch can hold, \
                     'banger vm cp' the rest"
                ),
            ),
            Self::Unknown(why) => (
                format!(
                    "it is not known whether VM '{vm}' holds work that was not exported: {why}"
                ),
                format!("'banger workspace status {vm}' looks at it again"),
            ),
            Self::Several(all) if all.iter().any(|(_, one)| matches!(one, Self::Work(_))) => (
                format!("VM '{vm}' holds work that was not exported: {}", in_each(all)),
                format!(
                    "'banger workspace export {vm} --guest-path PATH --output FILE' brings out of one what a \
                     patch can hold, 'banger vm cp' the rest"
                ),
            ),
            Self::Several(all) => (
                format!(
                    "it is not known whether VM '{vm}' holds work that was not exported: {}",
                    in_each(all)
                ),
                format!("'banger vm start {vm}' and 'banger workspace status {vm}' tell"),
            ),
        };
        Err(Error::conflict(message).hint(next))
    }
}

/// Says what is at stake in each of several workspaces.
fn in_each(all: &[(String, Stake)]) -> String {
    let words = all.iter().map(|(path, one)| match one {
        Stake::Work(work) => format!("in '{path}' {}", Work::list(work)),
        Stake::Unknown(why) => format!("in '{path}' nobody knows what: {why}"),
        Stake::Nothing | Stake::Several(_) => format!("in '{path}' nothing"),
    });
    words.collect::<Vec<_>>().join("; ")
}

/// Says what would be lost if this VM were deleted now, or of the workspace at this place in it alone.
pub fn stake(vm: &VmFolder, guest_path: Option<&str>, time: Duration) -> Result<Stake> {
    let mut records = records(vm)?;
    if guest_path.is_some() {
        let asked = folder(vm, guest_path)?;
        records.retain(|(dir, _)| *dir == asked);
    }
    let budget = budget(vm, time)?;
    let is_one = records.len() == 1;
    let mut found = Vec::new();
    for (dir, record) in records {
        let stake = stake_of(vm, &dir, &budget)?;
        if is_one {
            return Ok(stake);
        }
        if stake != Stake::Nothing {
            found.push((record.guest_path, stake));
        }
    }
    Ok(if found.is_empty() { Stake::Nothing } else { Stake::Several(found) })
}

/// Says what would be lost of one workspace.
fn stake_of(vm: &VmFolder, dir: &Path, budget: &Budget) -> Result<Stake> {
    if vm.status()? == Status::Created {
        return Ok(Stake::Nothing);
    }
    Ok(match guest_work(dir, &files_of(vm, budget.clone())) {
        Ok(work) if work.is_empty() => Stake::Nothing,
        Ok(work) => Stake::Work(work),
        Err(error) => Stake::Unknown(error.chain()),
    })
}

/// Returns what would be lost with a guest. The host's repository is not looked at, however long that took.
pub fn guest_work(dir: &Path, files: &Files<'_>) -> Result<Vec<Work>> {
    if record::read(dir)?.is_none() {
        return Err(no_workspace());
    }
    let folder = Folder::open(dir, files.budget().left()?)?;
    let record = folder.record()?.ok_or_else(no_workspace)?;
    let (given, next) = folder.trees(&record)?;
    let store = Store::open(dir, &record.object_format)?.until(files.budget().end());
    let look = look(files, &record, &store, &given, next.as_ref())?;
    unexported(files, &record, &store, &given, &look, store.keeps_mode())
}

/// Compares host and guest, which runs, or whose disks are read; what disks cannot tell is not known.
/// `configured` are directories of git's that every repository may lead to.
pub fn status(
    dir: &Path,
    files: &Files<'_>,
    is_live: bool,
    configured: &[PathBuf],
) -> Result<WorkspaceStatus> {
    if record::read(dir)?.is_none() {
        return Err(no_workspace());
    }
    let folder = Folder::open(dir, files.budget().left()?)?;
    let record = folder.record()?.ok_or_else(no_workspace)?;
    let (given, next) = folder.trees(&record)?;
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
    let store = Store::open(dir, &record.object_format)?.until(files.budget().end());
    let looked = look(files, &record, &store, &given, next.as_ref()).and_then(|look| {
        let keeps = store.keeps_mode();
        Ok((unexported(files, &record, &store, &given, &look, keeps)?, look))
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
    match host_changes(&record, &given, configured, end) {
        Ok((commit, host)) => {
            status.host_changes = changes(&host);
            status.host_commit = commit;
        }
        Err(error) => status.notes.push(error.chain()),
    }
    status.notes.extend(went_in(&store, &record).unwrap_or_else(|error| Some(error.chain())));
    if record.next.is_some() {
        status.notes.push("the last prepare did not end; run it again".into());
    }
    Ok(status)
}

/// Says which local edits of the host's went in: only a patch to the commit has them.
fn went_in(store: &Store, record: &Workspace) -> Result<Option<String>> {
    let Some(base) = &record.base_commit else { return Ok(None) };
    let git = store.git_for_guest(None);
    let edits = differences(&git, base, &record.prepared_tree)?;
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
    let (plan, commit) = match &source {
        Source::Repository(repository) => (
            plan::of_repository(repository, !repository.has_own_excludes)?,
            repository.head.commit.clone(),
        ),
        Source::Directory(root) => {
            let mut store = Store::open(scratch.path(), "sha1")?;
            if let Some(end) = end {
                store = store.until(end);
            }
            (plan::of_directory(root, &store.git())?, None)
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

pub(crate) fn no_workspace() -> Error {
    Error::not_found("no workspace in this VM")
        .hint("'banger workspace prepare' puts a repository into it")
}

pub(crate) fn look(
    files: &Files<'_>,
    record: &Workspace,
    store: &Store,
    given: &Tree,
    next: Option<&Tree>,
) -> Result<Look> {
    let keeps = store.keeps_mode();
    guest::look(files, record, store, given, next, keeps)
}

pub(crate) fn changes(changes: &BTreeMap<Vec<u8>, How>) -> Vec<Change> {
    changes.iter().map(|(path, how)| Change { path: shown(path), how: how.word().into() }).collect()
}

pub(crate) fn head_commit(position: &Position) -> Option<String> {
    match position.head.strip_prefix("ref: ") {
        Some(name) => position.refs.get(name.trim()).cloned(),
        None => Some(position.head.clone()).filter(|head| crate::git::is_oid(head)),
    }
}

/// Returns what moved in the guest's repository since it was prepared.
pub(crate) fn moved(record: &Workspace, position: &Position) -> Vec<Work> {
    let known: Vec<&Position> =
        [Some(&record.given), record.next.as_ref()].into_iter().flatten().collect();
    let mut moved = moved_from(record, &known, position);
    if record.is_repository
        && !known.iter().any(|known| known.index_sha256 == position.index_sha256)
    {
        moved.push(Work::new(WorkKind::Index, "another index"));
    }
    moved
}

fn moved_from(record: &Workspace, known: &[&Position], position: &Position) -> Vec<Work> {
    let mut moved = Vec::new();
    if !record.is_repository {
        return moved;
    }
    if position.head.is_empty() {
        moved.push(Work::new(WorkKind::Unreadable, "no '.git' that can be read").at(".git"));
        return moved;
    }
    if !known.iter().any(|known| known.head == position.head) {
        let reference = position.head.trim_start_matches("ref: ");
        let head = reference.trim_start_matches("refs/heads/");
        let words = format!("HEAD at '{}'", head.escape_debug());
        moved.push(Work::new(WorkKind::Head, words).of(reference));
    }
    for (name, oid) in &position.refs {
        if !known.iter().any(|known| known.refs.get(name) == Some(oid)) {
            let short = name.trim_start_matches("refs/heads/").trim_start_matches("refs/");
            let words = format!("commits on '{}'", short.escape_debug());
            moved.push(Work::new(WorkKind::Commits, words).of(name));
        }
    }
    moved
}

/// Returns what differs: changed files, and what moved.
pub(crate) fn differs(look: &Look, moved: &[Work]) -> Vec<Work> {
    let mut work = Vec::new();
    let count = look.changes.len();
    if let Some(first) = look.changes.keys().next() {
        let first = shown(first);
        let words = match count {
            1 => format!("a change to '{}'", first.escape_debug()),
            _ => format!("changes to {count} files, as '{}'", first.escape_debug()),
        };
        work.push(Work::new(WorkKind::Changes, words).at(first).times(count));
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
    let mut moved = moved_from(record, &known, &look.position);
    moved.extend(look.left.iter().cloned());
    let mut staged = BTreeMap::new();
    let is_as_given = |known: &Position| known.index_sha256 == look.position.index_sha256;
    if !is_as_given(&record.given)
        && !record.next.as_ref().is_some_and(is_as_given)
        && !pulled.iter().any(|pulled| is_as_given(&pulled.position))
    {
        staged = guest::staged_only(store, look)?;
    }
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
    if !staged.is_empty()
        && let Some(head) = head_commit(&look.position)
        && guest::index_is_committed(files, &record.guest_path, store, look, &head)?
    {
        staged.clear();
    }
    if let Some(path) = staged.keys().next() {
        let path = shown(path);
        let words = match staged.len() {
            1 => format!("a version of '{path}' that is in the index alone"),
            count => {
                format!("versions of {count} files that are in the index alone, as of '{path}'")
            }
        };
        moved.push(Work::new(WorkKind::Index, words).at(path).times(staged.len()));
    }
    let inner = inner_changes(given, look);
    if is_same && inner > 0 {
        let words = format!("changes to {inner} files of submodules");
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
