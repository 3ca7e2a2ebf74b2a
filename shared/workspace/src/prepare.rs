//! Putting a repository or a directory into a guest.

use crate::{
    git::lines,
    given::{Given, Tree},
    guest::{self, Look},
    load::{Before, Load, load_directory, load_repository},
    path::{join, shown},
    plan,
    record::Folder,
    send::send,
    source::Source,
    store::Store,
    temporary::Temporary,
    unit::units,
    wish::Wish,
};
use banger_channel::files::Files;
use banger_doc::{Error, Result, Work, Workspace, WorkspacePlan};
use banger_state::clock_ms;
use std::{
    collections::BTreeSet,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Where a workspace lies in a guest that is root's.
pub const GUEST_PATH: &str = "/root/repo";
/// What a workspace is called below the home of a guest's user.
const DIR: &str = "repo";

/// Returns where a user's workspace lies unless somebody says otherwise; `place` is where that user's work
/// does.
pub fn usual_path(place: &str) -> String {
    format!("{}/{DIR}", place.trim_end_matches('/'))
}

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

/// Says exactly what would go, and touches nothing.
pub fn dry_run(wish: &Wish) -> Result<WorkspacePlan> {
    check_guest_path(&wish.guest_path)?;
    let source = Source::open(&wish.path, &wish.all_trusted())?;
    let scratch = Temporary::new()?;
    let store = Store::open(scratch.path(), format_of(&source))?;
    let mut files = Vec::new();
    let mut notes = Vec::new();
    let (mut size_bytes, mut untracked_left, mut base_commit) = (0, 0, None);
    match &source {
        Source::Directory(root) => {
            let plan = plan::of_directory(root, &store.git())?;
            size_bytes = plan.size();
            files.extend(plan.items.keys().map(|path| shown(path)));
            notes = plan.notes;
        }
        Source::Repository(_) => {
            let units = units(source, wish, &store)?;
            base_commit.clone_from(&units[0].head.commit);
            for unit in units {
                size_bytes += unit.plan.size();
                untracked_left += unit.plan.untracked_left;
                files.extend(unit.plan.items.keys().map(|path| shown(&join(&unit.at, path))));
                notes.extend(unit.plan.notes);
            }
        }
    }
    let host_path = fs::canonicalize(&wish.path).unwrap_or_else(|_| wish.path.clone());
    let tools = files.iter().filter(|file| crate::tools::is_of_tools(file)).cloned().collect();
    Ok(WorkspacePlan {
        tools,
        tools_allowed: false,
        tools_refused: None,
        host_path: host_path.display().to_string(),
        guest_path: Some(wish.guest_path.clone()),
        mode: wish.mode,
        files,
        size_bytes,
        untracked_left,
        base_commit,
        notes,
    })
}

fn format_of(source: &Source) -> &str {
    match source {
        Source::Repository(repository) => &repository.format,
        Source::Directory(_) => "sha1",
    }
}

/// Returns the directories of git's that the repository at `path` was allowed to lead to when it was prepared
/// before; `dir` is the place for the record. Nothing is allowed to another repository by that.
pub fn trusted_before(dir: &Path, path: &Path) -> Vec<PathBuf> {
    let Ok(Some(before)) = crate::read(dir) else { return Vec::new() };
    let is_same = |root: PathBuf| root.to_str() == Some(before.host_path.as_str());
    if !crate::root_of(path).is_ok_and(is_same) {
        return Vec::new();
    }
    crate::record::trusted(&before)
}

/// Prepares a workspace: `dir` is the place for its record, `files` the guest.
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
    let before = folder.record()?;
    if before.is_none() {
        // What lies there without a record is what a killed prepare had begun to make or to remove.
        folder.forget()?;
    }
    let host_path = source.root().to_path_buf();
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
            let refusal = refuse_to_overwrite(&folder, files, before, &given, &look, keeps_mode)?;
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
        Source::Directory(root) => load_directory(&root, &store, given)?,
        source @ Source::Repository(_) => {
            let units = units(source, wish, &store)?;
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
    let start_path = start(wish, &host_path, &mut load);
    let mut record = Workspace {
        guest_path: wish.guest_path.clone(),
        start_path,
        host_path: host_path.display().to_string(),
        is_repository,
        mode: wish.mode,
        include_untracked: wish.include_untracked,
        user: files.user().map(ToOwned::to_owned),
        object_format: format,
        base_commit: load.base_commit.clone(),
        host_commit: load.host_commit.clone(),
        prepared_tree: load.prepared_tree.clone(),
        given: load.position.clone(),
        exported: None,
        tree_file: String::new(),
        next_tree_file: None,
        next: None,
        files: load.files,
        untracked_left: load.untracked_left,
        prepared_unix_ms: clock_ms(),
        at_stop: None,
        trusted_git_dirs: crate::host::Trusted::open(&wish.trusted)?.paths()?,
        tools_allowed: false,
        tools_refused: None,
        notes: load.notes.clone(),
    };
    let (old, look) = seen.filter(|_| same.is_some()).unwrap_or_default();
    // There is no work in what is replaced, or it may go; it is moved aside all the same.
    let wish = Wish { force: wish.force || is_replaced, ..wish.clone() };
    send(&folder, files, &wish, same, (old, look), load, &mut record)?;
    Ok(Attempt::Done(Box::new(record)))
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
    folder: &Folder,
    files: &Files<'_>,
    before: &Workspace,
    given: &Tree,
    look: &Look,
    keeps_mode: bool,
) -> Result<Option<Error>> {
    let moved = crate::status::moved(before, &look.position);
    if look.changes.is_empty() && moved.is_empty() && !look.is_in_the_way {
        return Ok(None);
    }
    let store = Store::open(folder.path(), &before.object_format)?.until(files.budget().end());
    let lost = crate::status::unexported(files, before, &store, given, look, keeps_mode)?;
    let mut work = lost;
    let mut next = "'banger workspace export' brings it out, 'banger vm cp' what is in no patch";
    if work.is_empty() {
        // Exported, but still the only copy that is in use.
        work = crate::status::differs(look, &moved);
        if before.exported.is_some() {
            next = "it was exported; '--force' overwrites it";
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
