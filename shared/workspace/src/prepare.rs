//! Putting a repository or a directory into a guest.

pub(crate) mod load;
pub(crate) mod plan;
pub(crate) mod ready;
pub(crate) mod send;
pub(crate) mod wish;

use crate::{
    git::lines,
    guest::{self, Look},
    host::include::{Include, Taking},
    host::source::{Source, is_absent},
    host::unit::units,
    names::hex,
    path::{join, shown, some_of},
    prepare::load::{Before, Load, load_directory, load_repository},
    prepare::plan::Behind,
    prepare::send::send,
    prepare::wish::Wish,
    record::given::{Beside, Given, Tree, beside},
    record::store::Store,
    record::{self, Folder},
    temporary::Temporary,
};
use banger_channel::files::Files;
use banger_doc::{Error, Result, Work, Workspace, WorkspacePlan};
use banger_state::{VmFolder, clock_ms};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where a workspace lies in a guest that is root's.
pub const GUEST_PATH: &str = "/root/repo";

/// Checks where a workspace is to go.
fn check_guest_path(path: &str) -> Result<()> {
    let ok = path.starts_with('/')
        && path.len() > 1
        && banger_channel::files::is_inside(&path.as_bytes()[1..])
        && !path.chars().any(char::is_control);
    if ok {
        return Ok(());
    }
    Err(Error::usage(format!("'{}' is no absolute path below the root", path.escape_debug()))
        .hint(format!("give one as '{GUEST_PATH}'")))
}

/// Says exactly what would go, and touches nothing. `dir` is the place of the record, if there may be one.
pub fn dry_run(wish: &Wish, dir: Option<&Path>) -> Result<WorkspacePlan> {
    check_guest_path(&wish.guest_path)?;
    let source = Source::open(&wish.path, &wish.all_trusted())?;
    let before = dir.and_then(|dir| record::peek(dir).transpose()).transpose()?;
    let before = before.as_ref().map(|(before, tree)| (before, tree));
    let (taking, _) = taking(wish, source.root(), before)?;
    let mut behind = Behind::default();
    let scratch = Temporary::new()?;
    let store = Store::open(scratch.path(), format_of(&source))?;
    let mut files = Vec::new();
    let mut notes = Vec::new();
    let (mut size_bytes, mut base_commit) = (0, None);
    match &source {
        Source::Directory(root) => {
            let plan = plan::of_directory(root, &store.git(), &taking)?;
            behind.add(b"", &plan);
            size_bytes = plan.size();
            files.extend(plan.items.keys().map(|path| shown(path)));
            notes = plan.notes;
        }
        Source::Repository(_) => {
            let units = units(source, wish, &taking, &store)?;
            base_commit.clone_from(&units[0].head.commit);
            for unit in units {
                size_bytes += unit.plan.size();
                behind.add(&unit.at, &unit.plan);
                files.extend(unit.plan.items.keys().map(|path| shown(&join(&unit.at, path))));
                notes.extend(unit.plan.notes);
            }
        }
    }
    notes.extend(behind.notes("would stay behind"));
    notes.extend(idle(&taking, wish));
    let host_path = fs::canonicalize(&wish.path).unwrap_or_else(|_| wish.path.clone());
    let tools =
        files.iter().filter(|file| crate::host::tools::is_of_tools(file)).cloned().collect();
    Ok(WorkspacePlan {
        tools,
        tools_allowed: false,
        tools_refused: None,
        host_path: host_path.display().to_string(),
        guest_path: Some(wish.guest_path.clone()),
        mode: wish.mode,
        files,
        size_bytes,
        untracked_left: behind.untracked,
        untracked_left_paths: behind.named(),
        base_commit,
        notes,
    })
}

/// Returns what is taken along beside what is tracked, after what was said of the same repository before, and
/// the patterns that are to be kept.
pub(crate) fn taking(
    wish: &Wish,
    root: &Path,
    before: Option<(&Workspace, &Tree)>,
) -> Result<(Taking, Vec<String>)> {
    let is_same = |before: &Workspace| root.to_str() == Some(before.host_path.as_str());
    let before = before.filter(|(before, _)| !wish.no_include && is_same(before));
    let mut kept = wish.include.clone();
    // What is said now counts last, as in a list of rules.
    let old = before.map(|(before, _)| before.include.clone()).unwrap_or_default();
    kept.splice(0..0, old.into_iter().filter(|pattern| !wish.include.contains(pattern)));
    let all: Vec<String> = wish.configured_include.iter().chain(&kept).cloned().collect();
    let taking = Taking {
        untracked: wish.include_untracked,
        include: Include::new(&all)?,
        before: before.map(|(_, tree)| beside(tree).cloned().collect()).unwrap_or_default(),
    };
    Ok((taking, kept))
}

/// Says which of the patterns that were just given are of no use.
fn idle(taking: &Taking, wish: &Wish) -> Vec<String> {
    let Some(include) = taking.include.as_ref().filter(|_| wish.from.is_none()) else {
        return Vec::new();
    };
    let idle = include.idle(&wish.include).into_iter();
    idle.map(|pattern| {
        format!("no untracked or ignored file matches '{}'", banger_doc::visible(&pattern, 80))
    })
    .collect()
}

fn format_of(source: &Source) -> &str {
    match source {
        Source::Repository(repository) => &repository.format,
        Source::Directory(_) => "sha1",
    }
}

/// Returns the directories of git's that the repository at `path` was allowed to lead to when it was prepared
/// for this VM before. Nothing is allowed to another repository by that.
pub fn trusted_before(vm: &VmFolder, path: &Path) -> Vec<PathBuf> {
    let Some(root) = crate::root_of(path).ok() else { return Vec::new() };
    let is_its = |record: &Workspace| root.to_str() == Some(record.host_path.as_str());
    let records = crate::records(vm).unwrap_or_default();
    let its = records.iter().filter(|(_, record)| is_its(record));
    its.flat_map(|(_, record)| record::trusted(record)).collect()
}

/// Prepares a workspace: `dir` is the folder for its record, `files` the guest.
pub fn prepare(dir: &Path, files: &Files<'_>, wish: &Wish) -> Result<Workspace> {
    match attempt(dir, files, wish)? {
        Attempt::Done(workspace) => Ok(*workspace),
        Attempt::Refused(why) => Err(why),
    }
}

/// What came of a prepare.
pub(crate) enum Attempt {
    /// It is there.
    Done(Box<Workspace>),
    /// The guest has work of its own, so nothing changed.
    Refused(Error),
}

/// Prepares a workspace unless the guest has work of its own.
pub(crate) fn attempt(dir: &Path, files: &Files<'_>, wish: &Wish) -> Result<Attempt> {
    check_guest_path(&wish.guest_path)?;
    let source = Source::open(&wish.path, &wish.all_trusted())?;
    let folder = Folder::open(dir, files.budget().left()?)?;
    let prepared = prepare_in(&folder, files, source, wish);
    if prepared.is_err() && matches!(folder.record(), Ok(None)) {
        // Nothing came of it. What stays all the same, `gc` removes.
        let _ = folder.discard();
    }
    prepared
}

fn prepare_in(folder: &Folder, files: &Files<'_>, source: Source, wish: &Wish) -> Result<Attempt> {
    let dir = folder.path();
    let host_path = source.root().to_path_buf();
    let mut before = folder.record()?;
    let mut gone = Vec::new();
    let is_others = |before: &mut Workspace| before.host_path != host_path.display().to_string();
    if let Some(other) = before.take_if(|before| !wish.is_named && is_others(before)) {
        if !is_gone(files, &wish.guest_path) {
            return Err(Error::conflict(format!(
                "'{}' went to '{}' in the guest meanwhile",
                other.host_path, wish.guest_path
            ))
            .hint("try again"));
        }
        gone.push(forgotten(&other));
    }
    if before.is_none() {
        // What lies there without a record that counts is of one that is gone, or is what a killed prepare had begun
        // to make or to remove.
        folder.forget()?;
        gone.extend(forget_what_is_gone(folder, files)?);
        folder.check_place(&wish.guest_path)?;
    }
    let is_repository = matches!(source, Source::Repository(_));
    let format = format_of(&source).to_owned();
    let keeps_mode = keeps_mode(&source);
    let mut same = before.as_ref().filter(|before| {
        before.guest_path == wish.guest_path
            && before.is_repository == is_repository
            && before.object_format == format
    });
    // What is there already: refuse before anything is read or written.
    let mut seen = None;
    let mut is_replaced = false;
    if let Some(before) = &before {
        let store = Store::open(dir, &before.object_format)?.until(files.budget().end());
        let (given, next) = folder.trees(before)?;
        let look = guest::look(files, before, &store, &given, next.as_ref(), keeps_mode)?;
        if !wish.force && look.is_there {
            let refusal =
                refuse_to_overwrite(wish, &store, files, before, (&given, &look), keeps_mode)?;
            if let Some(why) = refusal {
                return Ok(Attempt::Refused(why));
            }
        }
        // What was there is gone, or is another repository's, whose objects are not to go along.
        is_replaced =
            look.is_there && !look.is_empty && same.is_some() && is_another(&source, before)?;
        if !look.is_there || look.is_empty || is_replaced {
            same = None;
        }
        seen = Some((given, look));
    }
    let (taking, include) = {
        let before = before.as_ref().filter(|_| !is_replaced).zip(seen.as_ref());
        taking(wish, &host_path, before.map(|(before, (tree, _))| (before, tree)))?
    };
    let kept = same.and_then(|before| kept_branch(&source, before, wish));
    let wish = kept.as_ref().unwrap_or(wish);
    // What begins anew is made apart, so that a repository that is refused changes nothing.
    let is_new = before.is_some() && same.is_none();
    let apart = is_new.then(|| folder.scratch()).transpose()?;
    let place = apart.as_ref().map_or(dir, Temporary::path);
    let store = Store::open(place, &format)?;
    let given = seen
        .as_ref()
        .zip(same)
        .map(|((tree, _), same)| Before { tree, prepared_tree: &same.prepared_tree });
    let mut load = match source {
        Source::Directory(root) => load_directory(&root, &store, &taking, given)?,
        source @ Source::Repository(_) => {
            let units = units(source, wish, &taking, &store)?;
            load_repository(place, &store, units, wish, given)?
        }
    };
    if is_replaced {
        let path = &wish.guest_path;
        load.notes.push(format!(
            "'{path}' held another repository, which is moved aside, to '{path}.before-1' or the \
             next number that is free"
        ));
    }
    load.notes.extend(load.behind.notes("stayed behind"));
    load.notes.extend(idle(&taking, wish));
    if let Some((old, look)) = seen.as_ref().filter(|_| same.is_some() && !wish.force) {
        let refusal = refuse_to_displace(files, &wish.guest_path, old, look, &load.tree)?;
        if let Some(why) = refusal {
            return Ok(Attempt::Refused(why));
        }
    }
    if let Some(apart) = &apart {
        folder.replace(apart.path())?;
        for pack in load.packs.values_mut() {
            if let Ok(below) = pack.strip_prefix(apart.path()) {
                *pack = dir.join(below);
            }
        }
    }
    if let Some((before, (_, look))) = same.zip(seen.as_ref()) {
        // Branches of an earlier prepare stay in the guest, and are no work of its own.
        for (name, oid) in &before.given.refs {
            if look.position.refs.get(name) == Some(oid) && !load.position.refs.contains_key(name) {
                load.position.refs.insert(name.clone(), oid.clone());
            }
        }
    }
    load.notes.extend(gone);
    let start_path = start(wish, &host_path, &mut load);
    let mut record = Workspace {
        guest_path: wish.guest_path.clone(),
        start_path,
        host_path: host_path.display().to_string(),
        user: wish.user.clone(),
        is_repository,
        mode: wish.mode,
        object_format: format,
        base_commit: load.base_commit.clone(),
        host_commit: load.host_commit.clone(),
        prepared_tree: load.prepared_tree.clone(),
        given: load.position.clone(),
        exported: None,
        pulled: same.map(|same| same.pulled.clone()).unwrap_or_default(),
        tree_file: String::new(),
        next_tree_file: None,
        next: None,
        files: load.files,
        untracked_left: load.behind.untracked,
        untracked_left_paths: load.behind.named(),
        include_untracked: wish.include_untracked,
        include,
        first_unix_ms: before.as_ref().map_or_else(clock_ms, |before| before.first_unix_ms),
        prepared_unix_ms: clock_ms(),
        trusted_git_dirs: crate::host::Trusted::open(&wish.trusted)?.paths()?,
        tools_allowed: false,
        tools_refused: None,
        notes: load.notes.clone(),
    };
    let (old, look) = seen.filter(|_| same.is_some()).unwrap_or_default();
    // There is no work in what is replaced, or it may go; it is moved aside all the same.
    let wish = Wish { force: wish.force || is_replaced, ..wish.clone() };
    send(folder, files, &wish, same, (old, look), load, &mut record)?;
    Ok(Attempt::Done(Box::new(record)))
}

/// Says why, if something that a rule ignores would for the first time go where the guest has another of its own,
/// which no look at its work tells of.
fn refuse_to_displace(
    files: &Files<'_>,
    root: &str,
    old: &Tree,
    look: &Look,
    new: &Tree,
) -> Result<Option<Error>> {
    let is_new = |(path, given): &(&Vec<u8>, &Given)| {
        given.beside == Some(Beside::Ignored)
            && !old.contains_key(*path)
            && look.entries.contains_key(*path)
    };
    let asked: Vec<(&Vec<u8>, &Given)> = new.iter().filter(is_new).collect();
    if asked.is_empty() {
        return Ok(None);
    }
    let paths: Vec<&[u8]> = asked.iter().map(|(path, _)| path.as_slice()).collect();
    let sums = files.hash(root, &paths)?;
    let differs = |sum: &Option<_>, given: &Given| {
        sum.as_ref().is_none_or(|sum: &[u8; 32]| hex(sum) != given.sum)
    };
    let others: Vec<&[u8]> = asked
        .iter()
        .zip(&sums)
        .filter(|((_, given), sum)| differs(sum, given))
        .map(|((path, _), _)| path.as_slice())
        .collect();
    if others.is_empty() {
        return Ok(None);
    }
    let named = some_of(others.iter().copied(), others.len(), 4);
    let refusal =
        Error::conflict(format!("'{root}' in the guest has ignored files of its own {named}"));
    Ok(Some(refusal.hint("'--force' overwrites them, 'banger vm cp' copies them out")))
}

/// Forgets the VM's other workspaces that somebody removed in the guest, and says which: another one begins, and
/// they would be in its way for ever. One that a program is at work on stays.
fn forget_what_is_gone(folder: &Folder, files: &Files<'_>) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (path, other) in folder.others()? {
        let is_gone = is_gone(files, &other.guest_path);
        if let (true, Ok(other_folder)) = (is_gone, Folder::open(&path, Duration::ZERO)) {
            other_folder.discard()?;
            notes.push(forgotten(&other));
        }
    }
    Ok(notes)
}

fn forgotten(other: &Workspace) -> String {
    format!("'{}' is gone from the guest, and forgotten", other.guest_path)
}

/// Says whether a guest has nothing at a place that it had a workspace in.
pub fn is_gone(files: &Files<'_>, guest_path: &str) -> bool {
    files.stat(guest_path, &[]).is_err_and(|error| is_absent(&error))
}

/// Says whether a guest was given another repository than this one: one that lies elsewhere and has
/// commits that this one lacks, or one of which this one has nothing.
fn is_another(source: &Source, before: &Workspace) -> Result<bool> {
    let Source::Repository(repository) = source else { return Ok(false) };
    let is_elsewhere = repository.root.display().to_string() != before.host_path;
    let commits = [&before.base_commit, &before.host_commit].into_iter().flatten();
    let asked: BTreeSet<&String> = commits.chain(before.given.refs.values()).collect();
    if asked.is_empty() {
        return Ok(is_elsewhere);
    }
    let count = asked.len();
    let answer = repository.git().run(["cat-file", "--batch-check"], lines(asked).as_bytes())?;
    let answer = String::from_utf8_lossy(&answer);
    let missing = answer.lines().filter(|line| line.ends_with(" missing")).count();
    Ok(missing == count || (is_elsewhere && missing > 0))
}

/// Returns what is wished with the branch that an earlier prepare made in the guest alone: unless somebody
/// says otherwise, the guest stays on it.
pub(crate) fn kept_branch(source: &Source, before: &Workspace, wish: &Wish) -> Option<Wish> {
    let Source::Repository(repository) = source else { return None };
    let head = before.given.head.strip_prefix("ref: ").filter(|_| wish.branch.is_none())?;
    let branch = head.strip_prefix("refs/heads/")?;
    let is_hosts = repository.head.branch.as_deref() == Some(head)
        || repository.refs.iter().any(|known| known.name == head)
        || before.base_commit.is_none();
    let is_elsewhere = before.base_commit != before.host_commit;
    let from = before.base_commit.clone().filter(|_| is_elsewhere);
    let branch = Some(branch.to_owned());
    (!is_hosts).then(|| Wish { branch, from, ..wish.clone() })
}

/// Returns where commands start: in the directory that was named, where that is one inside the repository
/// and something of it goes along.
fn start(wish: &Wish, root: &Path, load: &mut Load) -> Option<String> {
    let named = fs::canonicalize(&wish.path).ok()?;
    let below = named.strip_prefix(root).ok().filter(|below| !below.as_os_str().is_empty())?;
    let bytes = below.as_os_str().as_bytes();
    let inside = join(bytes, b"");
    let goes = |(path, given): (&Vec<u8>, &Given)| {
        given.is_there() && (path == bytes || path.starts_with(&inside))
    };
    let mut from = load.tree.range(bytes.to_vec()..);
    let near = from.by_ref().take_while(|(path, _)| path.starts_with(bytes)).any(goes);
    let text = below.to_str().filter(|text| near && !text.chars().any(char::is_control));
    if text.is_none() {
        load.notes.push(format!(
            "nothing in '{}' goes along, so commands start in '{}'",
            below.display().to_string().escape_debug(),
            wish.guest_path
        ));
    }
    text.map(|text| format!("{}/{text}", wish.guest_path))
}

fn keeps_mode(source: &Source) -> bool {
    match source {
        Source::Repository(repository) => repository.setting("core.filemode") == Some("false"),
        Source::Directory(_) => false,
    }
}

/// Says why, if a prepare would overwrite what the guest did since the last one and nobody exported.
fn refuse_to_overwrite(
    wish: &Wish,
    store: &Store,
    files: &Files<'_>,
    before: &Workspace,
    (given, look): (&Tree, &Look),
    keeps_mode: bool,
) -> Result<Option<Error>> {
    let moved = crate::status::moved(files, before, store, look)?;
    if look.changes.is_empty() && moved.is_empty() && !look.is_in_the_way {
        return Ok(None);
    }
    let mut work = crate::status::unexported(files, before, store, given, look, keeps_mode)?;
    let mut next = crate::way_out(&work, &wish.vm, None);
    if work.is_empty() {
        // Exported, but still the only copy that is in use.
        work = crate::status::differs(look, &moved);
        next = crate::way_out(&work, &wish.vm, None);
        if before.exported.is_some() || !before.pulled.is_empty() {
            next = format!(
                "it was exported or pulled; 'banger workspace prepare {} --force' overwrites it",
                wish.vm
            );
        }
    }
    let refusal = Error::conflict(format!(
        "'{}' in the guest has work of its own: {}",
        before.guest_path,
        Work::list(&work)
    ));
    Ok(Some(refusal.hint(next)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_are_taken() {
        for good in ["/root/repo", "/a", "/srv/My Repo"] {
            assert!(check_guest_path(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "repo", "/a/../b", "/a/", "//a", "/a\nb", "/./a"] {
            assert!(check_guest_path(bad).is_err(), "{bad:?}");
        }
    }
}
