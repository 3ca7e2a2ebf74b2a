//! What went into a guest and what it has now, as two trees of git's side by side.

use crate::{
    git::Git,
    guest::{self, Changes, How, Look, differences},
    host::index::index_line,
    path::{join, parents, shown},
    record::Folder,
    record::given::{Beside, Sort, Tree},
    record::prepared::Prepared,
    record::store::Store,
    remote::bring::bring,
    scratch::Scratch,
    status::{head_commit, inner_changes},
};
use banger_channel::files::Files;
use banger_doc::{Error, Exported, Position, Result, Workspace};
use banger_state::clock_ms;
use std::{collections::BTreeSet, path::Path};

/// The workspace of a VM, locked, with what went in and what the guest has as trees in the store and a scratch.
pub(crate) struct Sides {
    folder: Folder,
    pub(crate) record: Workspace,
    pub(crate) store: Store,
    pub(crate) scratch: Scratch,
    pub(crate) given: Tree,
    pub(crate) look: Look,
    /// What went in, as it lies on the host: without what a sparse checkout leaves out there and the guest made.
    pub(crate) base: String,
    /// What the guest has, as it can be put over `base`: what a sparse checkout leaves out is not deleted.
    pub(crate) tree: String,
    /// What the guest has, such deletions included.
    pub(crate) whole: String,
    /// What is in none of the trees, and what else the user is to know.
    pub(crate) notes: Vec<String>,
    /// What is in `whole` alone.
    pub(crate) kept: Option<String>,
    /// Tips of the guest's branches whose commits go out: one by one, or in the sum of what HEAD leads to.
    pub(crate) told: BTreeSet<String>,
    /// Why the guest's commits are not all in the scratch, where they were asked for.
    broken: Option<String>,
}

impl Sides {
    /// Looks at the guest of the workspace whose record lies in `dir`.
    pub(crate) fn look(dir: &Path, files: &Files<'_>) -> Result<Self> {
        Self::make(dir, files, false)
    }

    /// The same, with the commits that the guest's HEAD leads to in the scratch.
    pub(crate) fn with_commits(dir: &Path, files: &Files<'_>) -> Result<Self> {
        Self::make(dir, files, true)
    }

    fn make(dir: &Path, files: &Files<'_>, with_commits: bool) -> Result<Self> {
        let prepared = Prepared::open(dir, files)?;
        let look = prepared.look_at_what_is_there(files)?;
        let Prepared { folder, record, store, given, .. } = prepared;
        let mut broken = None;
        let scratch = if with_commits {
            let tips = head_commit(&look.position).into_iter().collect();
            let mut brought = bring(files, &record, &store, &tips)?;
            broken = brought.broken.pop_first().map(|(_, why)| why);
            brought.scratch
        } else {
            store.scratch()?
        };
        let keeps = store.keeps_mode();
        let whole =
            guest::tree_of(files, &record.guest_path, &store, &scratch, &given, &look, keeps)?;
        let git = store.git_for_guest(Some(&scratch));
        let changed = differences(&git, &record.prepared_tree, &whole)?;
        let absent =
            |path: &&Vec<u8>| given.get(*path).is_some_and(|given| given.sort == Sort::Sparse);
        let absent: Vec<&Vec<u8>> = changed.keys().filter(absent).collect();
        let (base, tree, kept) = if absent.is_empty() {
            (record.prepared_tree.clone(), whole.clone(), Vec::new())
        } else {
            lying(&git, &scratch, (&record.prepared_tree, &whole), &given, &changed, &absent)?
        };
        let mut notes = look.notes.clone();
        let inner = inner_changes(&given, &look);
        if inner > 0 {
            notes.push(format!("changes to {inner} files of submodules are not in the patch"));
        }
        let in_the_way = |path: &&Vec<u8>| {
            let is_module = given.get(*path).is_some_and(|given| given.sort == Sort::Module);
            let inside = join(path, b"");
            let next = changed.range(inside.clone()..).next();
            is_module && next.is_some_and(|(next, _)| next.starts_with(&inside))
        };
        for path in changed.keys().filter(in_the_way) {
            let path = shown(path);
            notes.push(format!(
                "'{path}' was a submodule and is files now: 'git apply' takes that where nothing lies at '{path}'"
            ));
        }
        let kept = kept.first().map(|first| {
            let (first, count) = (shown(first), kept.len());
            let what = if count == 1 {
                format!("the deletion of '{first}', which")
            } else {
                format!("the deletion of {count} files, as '{first}', which")
            };
            format!("not in the patch: {what} a sparse checkout leaves out; '--base-commit prepared' has it")
        });
        // Mails say themselves which commits they tell of.
        let told = if with_commits {
            BTreeSet::new()
        } else {
            merged(files, &record, &store, &look.position)
        };
        Ok(Self {
            folder,
            record,
            store,
            scratch,
            given,
            look,
            base,
            tree,
            whole,
            notes,
            kept,
            told,
            broken,
        })
    }

    /// Returns a way to call git on both.
    pub(crate) fn git_for_guest(&self) -> Git {
        self.store.git_for_guest(Some(&self.scratch))
    }

    /// Returns the commit of the guest's HEAD, which is there with all it leads to.
    pub(crate) fn head(&self) -> Result<Option<String>> {
        match &self.broken {
            None => Ok(head_commit(&self.look.position)),
            Some(why) => Err(Error::failed(format!("cannot read the guest's commits: {why}"))
                .hint("without '--commits' a patch of its files is made")),
        }
    }

    /// Returns the tree without anything in it.
    pub(crate) fn empty_tree(&self) -> Result<String> {
        let index = self.scratch.path().join("empty");
        self.git_for_guest().env("GIT_INDEX_FILE", &index).text(["write-tree"])
    }

    /// Returns the paths of what went in although a rule of the host's ignores it.
    pub(crate) fn ignored(&self) -> BTreeSet<Vec<u8>> {
        let ignored = self.given.iter().filter(|(_, given)| given.beside == Some(Beside::Ignored));
        ignored.map(|(path, _)| path.clone()).collect()
    }

    /// Returns a tree with what went in although a rule of the host's ignores it: no sum since a commit gives
    /// away what such a file holds, only what the guest changed of it.
    pub(crate) fn with_ignored(&self, base: String) -> Result<String> {
        let mut ignored = Vec::new();
        for (path, given) in &self.given {
            if given.beside == Some(Beside::Ignored) && !given.oid.is_empty() {
                index_line(&mut ignored, given.mode, &given.oid, path);
            }
        }
        if ignored.is_empty() {
            return Ok(base);
        }
        let index = self.scratch.path().join("with-ignored");
        let git = self.git_for_guest().env("GIT_INDEX_FILE", index);
        let git = git.work_tree(&self.scratch.tree());
        git.run(["read-tree", &base], b"")?;
        git.run(["update-index", "-z", "--replace", "--index-info"], &ignored)?;
        git.text(["write-tree", "--missing-ok"])
    }

    /// Names what is not out with the files, if references but HEAD's lead to more.
    pub(crate) fn other_commits(&self) -> Option<String> {
        let position = self.exported(String::new()).position;
        let refs = self.look.position.refs.iter();
        match refs.filter(|(name, oid)| position.refs.get(*name) != Some(oid)).count() {
            0 => None,
            1 => Some("commits on one other branch or tag".into()),
            count => Some(format!("commits on {count} other branches or tags")),
        }
    }

    /// Ends the look at the guest: returns what is to be written down when `tree` is out, and removes the
    /// scratch.
    pub(crate) fn handover(self, tree: String) -> Result<Handover> {
        let exported = self.exported(tree);
        self.scratch.remove()?;
        Ok(Handover { folder: self.folder, record: self.record, exported })
    }

    fn exported(&self, tree: String) -> Exported {
        let now = &self.look.position;
        // Other branches are not in a patch, so they stay as they were given.
        let mut position = self.record.given.clone();
        position.head.clone_from(&now.head);
        let name = now.head.trim_start_matches("ref: ").to_owned();
        if let Some(oid) = now.refs.get(&name) {
            position.refs.insert(name, oid.clone());
        }
        let out = now.refs.iter().filter(|(_, oid)| self.told.contains(*oid));
        position.refs.extend(out.map(|(name, oid)| (name.clone(), oid.clone())));
        position.index_sha256.clone_from(&now.index_sha256);
        Exported { tree, position, unix_ms: clock_ms() }
    }
}

/// What a guest had, on its way out. Nothing counts as out before [`Handover::done`].
pub(crate) struct Handover {
    folder: Folder,
    record: Workspace,
    exported: Exported,
}

impl Handover {
    /// Writes down that it is out: in a synced file, in the host's checkout, or where the user says it is.
    pub(crate) fn done(self) -> Result<()> {
        let record = Workspace { exported: Some(self.exported), ..self.record };
        self.folder.write(&record)
    }
}

/// Returns the tips of references that HEAD's history has, as far as that can be told: what they lead to is part of
/// its sum.
fn merged(
    files: &Files<'_>,
    record: &Workspace,
    store: &Store,
    position: &Position,
) -> BTreeSet<String> {
    let Some(head) = head_commit(position).filter(|_| record.is_repository) else {
        return BTreeSet::new();
    };
    let others =
        position.refs.iter().filter(|(name, oid)| record.given.refs.get(*name) != Some(*oid));
    let others: Vec<(&str, &str)> =
        others.map(|(name, oid)| (name.as_str(), oid.as_str())).collect();
    if others.iter().all(|(name, _)| position.head.strip_prefix("ref: ") == Some(*name)) {
        return BTreeSet::new();
    }
    let tips = std::iter::once(("HEAD", head.as_str())).chain(others.iter().copied());
    let own = guest::own_commits(files, &record.guest_path, store, tips);
    let history = own.history(&head);
    let merged = others.into_iter().filter(|(_, oid)| history.contains(oid));
    merged.map(|(_, oid)| oid.to_owned()).collect()
}

/// Returns two trees as they lie in a sparse checkout, and what the guest deleted that lies in none. Where the
/// guest has a file, or took its place, there is none in the first tree; where it has none, both have it.
fn lying<'a>(
    git: &Git,
    scratch: &Scratch,
    (prepared, whole): (&str, &str),
    given: &Tree,
    changed: &Changes,
    absent: &[&'a Vec<u8>],
) -> Result<(String, String, Vec<&'a Vec<u8>>)> {
    let listed = git.run(["ls-tree", "-r", "-z", "--name-only", whole], b"")?;
    let listed: BTreeSet<&[u8]> = crate::git::split_zero(&listed).collect();
    let is_displaced = |path: &[u8]| {
        let inside = join(path, b"");
        listed.range(inside.as_slice()..).next().is_some_and(|next| next.starts_with(&inside))
            || parents(path).any(|dir| listed.contains(dir))
    };
    let (mut gone, mut kept, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for path in absent {
        if changed.get(*path) == Some(&How::Deleted) && !is_displaced(path) {
            index_line(&mut lines, given[*path].mode, &given[*path].oid, path);
            kept.push(*path);
        } else {
            gone.extend_from_slice(path);
            gone.push(0);
        }
    }
    let tree = |name: &str, from: &str, words: &[&str], input: &[u8]| {
        let git = git.clone().env("GIT_INDEX_FILE", scratch.path().join(name));
        let git = git.work_tree(&scratch.tree());
        git.run(["read-tree", from], b"")?;
        git.run(["update-index", "-z"].iter().chain(words), input)?;
        git.text(["write-tree", "--missing-ok"])
    };
    let base = tree("lying-base", prepared, &["--force-remove", "--stdin"], &gone)?;
    let tree = tree("lying-tree", whole, &["--index-info"], &lines)?;
    Ok((base, tree, kept))
}
