//! Putting a guest's work onto a checkout of the host's: as edits of its files, the index untouched. All of it
//! is decided before the first file changes.

mod checkout;
mod decide;
mod judge;
mod last;
mod merge;
mod put;
mod renames;
mod work;

use crate::{
    export::sides::Sides,
    path::shown,
    record::under_way::{READY, UnderWay},
    status::head_commit,
};
use banger_channel::files::Files;
use banger_doc::{Change, ConflictKind, Context, Error, Result, WorkspaceApply, shell_word};
use banger_state::{Lock, clock_ms};
use checkout::Checkout;
use judge::{Judge, Verdict};
use last::Last;
use put::{Put, Step};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};
use work::Work;

/// How long another program may be at work on the same checkout.
const BUSY: Duration = Duration::from_secs(30);
/// The most paths that a note names.
const NAMED: usize = 5;

/// What is asked of an apply.
#[derive(Clone, Debug, Default)]
pub struct Onto {
    /// The checkout; the one that the workspace came from otherwise.
    pub path: Option<PathBuf>,
    /// Directories of git's that every repository of the host's may lead to.
    pub configured: Vec<PathBuf>,
}

/// What is to happen to a checkout. Nothing has before [`Apply::run`].
pub struct Apply {
    folder: PathBuf,
    sides: Sides,
    checkout: Checkout,
    _lock: Lock,
    work: Work,
    verdict: Verdict,
    before: Option<UnderWay>,
    notes: Vec<String>,
}

impl std::fmt::Debug for Apply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Apply").field("verdict", &self.verdict).finish_non_exhaustive()
    }
}

impl Apply {
    /// Decides what is to happen. `dir` is the place of the workspace's record.
    pub fn make(dir: &Path, files: &Files<'_>, onto: &Onto) -> Result<Self> {
        let sides = Sides::look(dir, files)?;
        let checkout = Checkout::open(&sides.record, onto.path.as_deref(), &onto.configured)?;
        let root = checkout.root.path().to_owned();
        let lock = Lock::exclusive_dir(&root, BUSY.min(files.budget().left()?), "the checkout")?;
        let before = UnderWay::read(dir);
        checkout.must_be_idle()?;
        let last = Last::read(dir, &sides.record, &root);
        let work = Work::of(&sides, last.as_ref())?;
        let gone = before.iter().filter(|before| before.root == root);
        let gone = gone.flat_map(|before| before.goes.iter().cloned()).collect();
        let mut judge = Judge {
            folder: dir,
            sides: &sides,
            checkout: &checkout,
            last: last.as_ref(),
            work: &work,
            gone: &gone,
            moved: BTreeMap::new(),
            end: Some(files.budget().end()),
            seen: RefCell::default(),
        };
        judge.moved = renames::renamed_on_host(dir, &sides, &checkout, &judge.lost()?)?;
        let verdict = judge.judge()?;
        let notes = notes(&sides, &checkout, &work, &verdict);
        let folder = dir.to_owned();
        Ok(Self { folder, sides, checkout, _lock: lock, work, verdict, before, notes })
    }

    /// Says what would happen.
    pub fn plan(&self) -> WorkspaceApply {
        let changes = self.verdict.steps.values().map(|step| {
            let how = match (&step.over, &step.new) {
                (_, None) => "deleted",
                (None, _) => "added",
                _ => "modified",
            };
            Change { path: shown(&step.path), how: how.into() }
        });
        WorkspaceApply {
            guest_path: self.sides.record.guest_path.clone(),
            host_path: self.checkout.root.path().display().to_string(),
            is_applied: false,
            is_exported: false,
            changes: changes.collect(),
            merged: self.verdict.merged.iter().map(|path| shown(path)).collect(),
            conflicts: self.verdict.conflicts.values().cloned().collect(),
            notes: self.notes.clone(),
        }
    }

    /// Changes the files, unless anything is in conflict, and writes down that the guest's work is out. Where
    /// `is_over` says so before the first file changes, none does.
    pub fn run(self, is_over: &dyn Fn() -> bool) -> Result<WorkspaceApply> {
        let mut document = self.plan();
        if !document.conflicts.is_empty() {
            return Ok(document);
        }
        let steps: Vec<Step> = self.verdict.steps.values().cloned().collect();
        if steps.is_empty() {
            self.clean()?;
        } else {
            self.put(&steps, is_over)?;
        }
        let root = self.checkout.root.path();
        let changed = |(path, changed): (&Vec<u8>, &work::Changed)| {
            (changed.theirs != changed.base).then(|| (path.clone(), changed.theirs.clone()))
        };
        let files = self.work.changes.iter().filter_map(changed).collect();
        last::write(&self.folder, &self.sides.record, root, &files, |path, most| {
            self.work.small(path, most)
        })?;
        // Before anybody else can work on the workspace: after that it may be another apply's.
        UnderWay::remove(&self.folder)?;
        document.is_applied = true;
        document.is_exported = self.work.modules.is_empty();
        if document.is_exported {
            let all = self.verdict.left_out.is_empty();
            let tree = if all { self.sides.whole.clone() } else { self.sides.tree.clone() };
            self.sides.handover(tree)?.done()?;
        }
        Ok(document)
    }

    fn put(&self, steps: &[Step], is_over: &dyn Fn() -> bool) -> Result<()> {
        self.clean()?;
        let mark = format!("{READY}{}-{}-", std::process::id(), clock_ms());
        let root = &self.checkout.root;
        let mut dirs = BTreeSet::new();
        for step in steps.iter().filter(|step| step.new.is_some()) {
            let said = || format!("cannot look at '{}'", root.join(&step.path).display());
            dirs.insert(put::holder(root, &step.path).with_context(said)?.to_vec());
        }
        let before = self.before.iter().filter(|before| before.root == root.path());
        let mut goes: BTreeSet<Vec<u8>> =
            before.flat_map(|before| before.goes.iter().cloned()).collect();
        let was_idle = goes.is_empty();
        goes.extend(steps.iter().filter(|s| s.new.is_none()).map(|step| step.path.clone()));
        let under_way = UnderWay {
            root: root.path().to_owned(),
            mark: mark.clone(),
            dirs: dirs.into_iter().collect(),
            goes: goes.into_iter().collect(),
        };
        under_way.write(&self.folder)?;
        let mut put = Put::new(&self.checkout, steps, &self.verdict.empty);
        if let Err(error) = put.prepare(mark.as_bytes(), is_over) {
            if was_idle {
                UnderWay::remove(&self.folder)?;
            }
            let told = format!("nothing was changed in '{}'", root.path().display());
            return Err(Error::new(error.kind(), told).because(error));
        }
        put.run()
    }

    /// Removes what an apply that was killed had lying ready, where that could not be done so far.
    fn clean(&self) -> Result<()> {
        self.before.as_ref().map_or(Ok(()), |before| before.clean(false).map(drop))
    }
}

/// Returns what the user is to know.
fn notes(sides: &Sides, checkout: &Checkout, work: &Work, verdict: &Verdict) -> Vec<String> {
    let record = &sides.record;
    let left = |note: &String| match note.strip_prefix("not in a patch: ") {
        Some(rest) => format!("not applied: {rest}"),
        None => note.clone(),
    };
    let mut notes: Vec<String> = sides.look.notes.iter().map(left).collect();
    let now = checkout.repository.as_ref().and_then(|repository| repository.head.commit.as_ref());
    if let (Some(was), Some(now)) = (&record.host_commit, now)
        && was != now
    {
        let [was, now] = [was, now].map(|oid| &oid[..oid.len().min(10)]);
        notes.push(format!(
            "HEAD of the host is at {now}, and was at {was} when the workspace was prepared; files \
             were compared one by one"
        ));
    }
    let (was, now) = (head_commit(&record.given), head_commit(&sides.look.position));
    if record.is_repository && was != now {
        notes.push("commits of the guest come as their sum".into());
    }
    notes.extend(sides.other_commits().map(|what| format!("{what} are not applied")));
    let mut named = |paths: &[Vec<u8>], one: &str, several: &str| {
        let mut names: Vec<String> = paths
            .iter()
            .take(NAMED)
            .map(|path| format!("'{}'", shown(path).escape_debug()))
            .collect();
        if paths.len() > NAMED {
            names.push("...".into());
        }
        match paths.len() {
            0 => {}
            1 => notes.push(format!("{}{one}", names[0])),
            count => notes.push(format!("{count} {several}: {}", names.join(", "))),
        }
    };
    named(
        &work.modules,
        " is a submodule, whose commit is not applied",
        "submodules, whose commits are not applied",
    );
    named(
        &verdict.left_out,
        " is deleted in the guest, and stays left out by the sparse checkout",
        "files are deleted in the guest, and stay left out by the sparse checkout",
    );
    named(
        &verdict.kept,
        " stays as the host has it: it has what the guest did there, or the guest did nothing since",
        "files stay as the host has them, since they have what the guest did there",
    );
    notes
}

/// Says that nothing can be put there, and what can be done.
pub fn refusal(vm: &str, document: &WorkspaceApply) -> Error {
    let count = document.conflicts.len();
    let (s, are) = if count == 1 { ("", "is") } else { ("s", "are") };
    Error::conflict(format!(
        "the work in VM '{vm}' does not go onto '{}': {count} path{s} {are} in conflict; nothing was changed",
        document.host_path
    ))
    .hint(hint(vm, document))
}

fn hint(vm: &str, document: &WorkspaceApply) -> String {
    if document.conflicts.iter().all(|conflict| conflict.kind == ConflictKind::Staged) {
        let root = shell_word(&document.host_path);
        return format!("'git -C {root} commit' or 'git -C {root} restore --staged .', then again");
    }
    let vm = shell_word(vm);
    format!(
        "commit your own edits, then 'banger workspace pull {vm}' brings the guest's for git to merge with them; or \
         make these files alike by hand, then again; 'banger workspace export {vm} --output FILE' writes a patch"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_doc::Conflict;

    #[test]
    fn a_refusal_says_what_helps() {
        let conflict =
            |kind| Conflict { path: "a".into(), kind, words: String::new(), hunks: None };
        let mut document = WorkspaceApply {
            guest_path: "/root/repo".into(),
            host_path: "/home/me/my repo".into(),
            is_applied: false,
            is_exported: false,
            changes: Vec::new(),
            merged: Vec::new(),
            conflicts: vec![conflict(ConflictKind::Staged)],
            notes: Vec::new(),
        };
        let error = refusal("web", &document);
        assert!(error.to_string().contains("1 path is in conflict; nothing was changed"));
        let root = shell_word("/home/me/my repo");
        assert!(error.hint_text().unwrap().starts_with(&format!("'git -C {root} commit'")));
        document.conflicts.push(conflict(ConflictKind::Content));
        let error = refusal("web", &document);
        for next in
            ["commit your own edits", "workspace pull web'", "workspace export web --output"]
        {
            assert!(error.hint_text().unwrap().contains(next), "{error:?}");
        }
    }
}
