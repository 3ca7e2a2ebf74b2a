//! Deciding all that is to happen to a checkout, before any of it does.

use super::{
    checkout::{Checkout, Found, Lies},
    decide::{Decision, File, Got, Sides as At, decide, merged_mode},
    last::Last,
    merge::{MOST, Merged, Merger, Way, is_text},
    put::{From, New, Step, inside},
    work::{Changed, Work, as_it_went_in, text},
};
use crate::{export::sides::Sides, git::split_zero, names::hex, path::shown};
use banger_doc::{Conflict, ConflictKind, Context, Result};
use sha2::{Digest, Sha256};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Instant,
};

/// The most entries of directories in the place of files.
const MAX_IN_THE_WAY: usize = 200_000;
/// The most bytes of all objects that are read to merge.
const MOST_OF_ALL: u64 = 1 << 30;

/// What is to happen.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) steps: BTreeMap<Vec<u8>, Step>,
    pub(super) conflicts: BTreeMap<Vec<u8>, Conflict>,
    /// Paths that hold work of both sides.
    pub(super) merged: BTreeSet<Vec<u8>>,
    /// Paths that the host went on with after the last time, and the guest did not.
    pub(super) kept: Vec<Vec<u8>>,
    /// Paths that the guest deleted and a sparse checkout leaves out.
    pub(super) left_out: Vec<Vec<u8>>,
    /// Empty directories in the place of files.
    pub(super) empty: BTreeSet<Vec<u8>>,
    /// How many paths are already as the guest has them.
    pub(super) same: usize,
}

/// A file that both changed.
struct Both<'a> {
    /// Where it goes.
    target: &'a [u8],
    /// Where the host has it.
    at: Vec<u8>,
    /// Where the guest has it.
    path: &'a [u8],
    base: Option<File>,
    last: Option<File>,
    theirs: &'a File,
}

/// What a file that both changed holds in the end.
enum Content {
    Ours,
    Theirs,
    Bytes(Vec<u8>),
    Conflict(ConflictKind, Option<String>, String),
}

/// Who decides, by what lies where.
pub(super) struct Judge<'a> {
    pub(super) folder: &'a Path,
    pub(super) sides: &'a Sides,
    pub(super) checkout: &'a Checkout,
    pub(super) last: Option<&'a Last>,
    pub(super) work: &'a Work,
    /// What an apply that was killed removed, or was about to.
    pub(super) gone: &'a BTreeSet<Vec<u8>>,
    /// Where the host has what the guest changed at another path.
    pub(super) moved: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) end: Option<Instant>,
    /// What was looked at: each path is once.
    pub(super) seen: RefCell<BTreeMap<Vec<u8>, Lies>>,
}

fn words(kind: ConflictKind, words: &str) -> String {
    format!("CONFLICT ({}): {words}", kind.word())
}

fn is_regular(file: Option<&File>) -> bool {
    file.is_some_and(|file| !file.is_link())
}

fn plain(path: &[u8]) -> String {
    shown(path).escape_debug().to_string()
}

impl Judge<'_> {
    pub(super) fn lies(&self, path: &[u8]) -> Result<Lies> {
        if let Some(known) = self.seen.borrow().get(path) {
            return Ok(known.clone());
        }
        let lies = self.checkout.lies(path, self.sides.given.get(path), self.end)?;
        self.seen.borrow_mut().insert(path.to_vec(), lies.clone());
        Ok(lies)
    }

    /// Returns the paths that the guest changed and the host has no more.
    pub(super) fn lost(&self) -> Result<BTreeMap<&Vec<u8>, &File>> {
        let mut lost = BTreeMap::new();
        for (path, changed) in &self.work.changes {
            let at = self.at(path, changed, None);
            if let Some(base) = changed.base.as_ref().filter(|base| !base.is_link())
                && decide(at) == Decision::DeletedOnHost
                && matches!(self.lies(path)?, Lies::Nothing)
            {
                lost.insert(path, base);
            }
        }
        Ok(lost)
    }

    fn at<'b>(&'b self, path: &[u8], changed: &'b Changed, ours: Option<&'b File>) -> At<'b> {
        let (base, theirs) = (changed.base.as_ref(), changed.theirs.as_ref());
        // A path that is not listed was as it went in.
        let got = |last: &'b Last| Got::Had(last.file(path).map_or(base, Option::as_ref));
        let last = self.last.map_or(Got::Never, got);
        At { ours, base, last, theirs }
    }

    /// Decides everything.
    pub(super) fn judge(&self) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let mut both = Vec::new();
        for (path, changed) in &self.work.changes {
            self.one(path, changed, &mut verdict, &mut both)?;
        }
        self.merge(&both, &mut verdict)?;
        self.in_the_way(&mut verdict)?;
        self.staged(&mut verdict);
        self.cases(&mut verdict)?;
        Ok(verdict)
    }

    fn one<'b>(
        &'b self,
        path: &'b Vec<u8>,
        changed: &'b Changed,
        verdict: &mut Verdict,
        both: &mut Vec<Both<'b>>,
    ) -> Result<()> {
        let lies = self.lies(path)?;
        let mut at = self.at(path, changed, lies.file());
        let from = match &changed.from {
            None => None,
            Some(from) => {
                let was = &self.work.changes[from];
                Some((from, was, self.lies(from)?))
            }
        };
        if let Some((from, was, there)) = &from {
            let is_gone = there.file().is_none();
            let there_at = self.at(from, was, there.file());
            if decide(there_at) == Decision::DeletedInGuest
                && let (Some(base), Some(theirs)) = (was.base.as_ref(), changed.theirs.as_ref())
                && !base.is_link()
                && !theirs.is_link()
                && matches!(there, Lies::Found(found) if !found.file.is_link())
            {
                // What the host did to it follows to its new name.
                let last = at.last.file().cloned();
                let base = Some(base.clone());
                both.push(Both { target: path, at: (*from).clone(), path, base, last, theirs });
                return Ok(());
            }
            let was_applied = self.last.is_some_and(|last| last.file(path).is_some());
            if is_gone && !was_applied && !self.gone.contains(*from) {
                if at.ours.is_none() && decide(at) != Decision::Same {
                    let told = format!(
                        "{} renamed to {} in the guest, but deleted on the host",
                        plain(from),
                        plain(path)
                    );
                    verdict.conflict(path, ConflictKind::RenameDelete, told, None);
                    return Ok(());
                }
                // The host may have renamed it likewise.
                at.base = was.base.as_ref();
            }
        }
        if let (None, Some(renamed)) = (&changed.theirs, self.work.renamed.get(path))
            && decide(at) == Decision::DeletedInGuest
            && self.follows(renamed)?
        {
            // It goes with the rename.
            return Ok(());
        }
        let base = at.base.cloned();
        match decide(at) {
            Decision::Same => verdict.same += 1,
            Decision::Keep if !is_regular(lies.file()) || !is_regular(at.theirs) => {
                verdict.kept.push(path.clone());
            }
            Decision::Take => self.take(path, changed, &lies, verdict)?,
            Decision::DeletedInGuest => {
                let told = format!("{} deleted in the guest and modified on the host", plain(path));
                verdict.conflict(path, ConflictKind::ModifyDelete, told, None);
            }
            Decision::DeletedOnHost => {
                let moved = self.moved.get(path);
                let there = moved.map(|moved| self.lies(moved)).transpose()?;
                if let (Some(moved), Some(Lies::Found(_)), Some(theirs)) =
                    (moved, there, changed.theirs.as_ref())
                {
                    let last = at.last.file().cloned();
                    both.push(Both { target: moved, at: moved.clone(), path, base, last, theirs });
                } else if matches!(lies, Lies::Dir | Lies::Other) {
                    let sort = if matches!(lies, Lies::Dir) { "a directory" } else { "no file" };
                    let told = format!("{} is {sort} on the host", plain(path));
                    verdict.conflict(path, ConflictKind::InTheWay, told, None);
                } else {
                    let told =
                        format!("{} deleted on the host and modified in the guest", plain(path));
                    verdict.conflict(path, ConflictKind::ModifyDelete, told, None);
                }
            }
            Decision::BothAdded if self.checkout.is_untracked(path) => {
                let told =
                    format!("{} is not tracked on the host and would be overwritten", plain(path));
                verdict.conflict(path, ConflictKind::Untracked, told, None);
            }
            Decision::Types => {
                let sort = |file: Option<&File>| match file {
                    Some(file) if file.is_link() => "a link",
                    _ => "a file",
                };
                let told = format!(
                    "{} is {} on the host and {} in the guest, and both changed",
                    plain(path),
                    sort(lies.file()),
                    if lies.file().is_some_and(File::is_link)
                        && at.theirs.is_some_and(File::is_link)
                    {
                        "another one"
                    } else {
                        sort(at.theirs)
                    }
                );
                verdict.conflict(path, ConflictKind::Types, told, None);
            }
            Decision::Merge | Decision::BothAdded | Decision::Keep => {
                if let Some(theirs) = &changed.theirs {
                    let last = at.last.file().cloned();
                    both.push(Both { target: path, at: path.clone(), path, base, last, theirs });
                }
            }
        }
        Ok(())
    }

    /// Says whether what the host did to a path goes with the guest's rename of it.
    fn follows(&self, renamed: &[u8]) -> Result<bool> {
        let changed = &self.work.changes[renamed];
        let Some(from) = &changed.from else { return Ok(false) };
        let there = self.lies(from)?;
        let base = self.work.changes[from].base.as_ref();
        let is_found = matches!(&there, Lies::Found(found) if !found.file.is_link());
        Ok(is_found && is_regular(base) && is_regular(changed.theirs.as_ref()))
    }

    /// Puts what the guest has there.
    fn take(
        &self,
        path: &[u8],
        changed: &Changed,
        lies: &Lies,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let over = match lies {
            Lies::Found(found) => Some(found.clone()),
            Lies::Sparse(_) if changed.theirs.is_none() => {
                verdict.left_out.push(path.to_vec());
                return Ok(());
            }
            _ => None,
        };
        let new = match &changed.theirs {
            None => None,
            Some(theirs) => {
                let Some(from) = self.bytes_of_guest(path, theirs)? else {
                    let told = format!("{} cannot be made as it went in", plain(path));
                    verdict.conflict(path, ConflictKind::Content, told, None);
                    return Ok(());
                };
                Some(New { mode: theirs.mode, sum: theirs.sum.clone(), from })
            }
        };
        if over.is_some() || new.is_some() {
            verdict.step(Step { path: path.to_vec(), over, new });
        }
        Ok(())
    }

    fn bytes_of_guest(&self, path: &[u8], theirs: &File) -> Result<Option<From>> {
        if let Some(from) = self.work.bytes(path, theirs) {
            return Ok(Some(from));
        }
        Ok(self.went_in(theirs)?.map(From::Here))
    }

    /// Returns the bytes that went in, as far as they can be told.
    fn went_in(&self, file: &File) -> Result<Option<Vec<u8>>> {
        let oids = BTreeSet::from([&file.oid]);
        let mut blobs =
            self.sides.store.blobs_with(Some(&self.sides.scratch), &oids, MOST, MOST)?;
        Ok(blobs.remove(&file.oid).and_then(|blob| as_it_went_in(file, blob)))
    }

    fn merge(&self, both: &[Both<'_>], verdict: &mut Verdict) -> Result<()> {
        if both.is_empty() {
            return Ok(());
        }
        let paths = both.iter().map(|both| both.path).collect();
        let merger = Merger::new(self.folder, self.sides, &paths)?;
        let oids: BTreeSet<&String> =
            both.iter().filter_map(|both| Some(&both.base.as_ref()?.oid)).collect();
        let blobs =
            self.sides.store.blobs_with(Some(&self.sides.scratch), &oids, MOST, MOST_OF_ALL)?;
        for both in both {
            let Lies::Found(ours) = self.lies(&both.at)? else {
                let told = format!(
                    "{} is left out by a sparse checkout, and was changed on both sides",
                    plain(both.target)
                );
                verdict.conflict(both.target, ConflictKind::Content, told, None);
                continue;
            };
            let base = both.base.as_ref();
            let base_bytes =
                base.and_then(|base| as_it_went_in(base, blobs.get(&base.oid)?.clone()));
            let (content, before) = self.content(both, &ours, base_bytes, &merger)?;
            self.settle(both, ours, content, before, verdict);
        }
        Ok(())
    }

    /// Decides what a file holds that both changed; also what it was before.
    fn content<'b>(
        &self,
        both: &'b Both<'_>,
        ours: &Found,
        base_bytes: Option<Vec<u8>>,
        merger: &Merger,
    ) -> Result<(Content, Option<&'b File>)> {
        let (base, last, theirs) = (both.base.as_ref(), both.last.as_ref(), both.theirs);
        let known = last.or(base);
        if ours.file.holds_same(theirs) {
            return Ok((Content::Ours, known));
        }
        let is_known =
            |known: Option<&File>| known.is_some_and(|known| known.holds_same(&ours.file));
        if is_known(known) || is_known(base) {
            return Ok((Content::Theirs, known));
        }
        let name = plain(both.target);
        let way = merger.way(both.path);
        let ours_bytes = text(&self.checkout.root, &both.at, MOST)?.filter(|text| is_text(text));
        let theirs_bytes = match self.bytes_of_guest(both.path, theirs)? {
            Some(From::Here(bytes)) => Some(bytes),
            _ => self.work.text(both.path)?,
        };
        let theirs_bytes = theirs_bytes.filter(|text| is_text(text));
        let (Some(ours_bytes), Some(theirs_bytes), true) =
            (ours_bytes, theirs_bytes, way != Way::Binary)
        else {
            if known.is_some_and(|known| known.holds_same(theirs)) {
                return Ok((Content::Ours, known));
            }
            let told = format!("{name} cannot be merged as text, and changed on both sides");
            return Ok((Content::Conflict(ConflictKind::Binary, None, told), known));
        };
        let (mut before, mut before_bytes) = (base, base_bytes);
        if let Some(last) = last {
            let is_as_before = base.is_some_and(|base| base.holds_same(last));
            let bytes = if is_as_before {
                before_bytes.clone()
            } else {
                self.last.and_then(|known| known.text(last))
            };
            // Whether the host began from what it got, or put that away, shows in what it has of it.
            let is_put_away = match bytes.as_ref().filter(|_| !is_as_before) {
                None => false,
                Some(bytes) => {
                    let held = before_bytes.as_deref().unwrap_or_default();
                    let whole = merger.merge(&ours_bytes, held, bytes, Way::Text)?;
                    matches!(whole, Merged::Clean(whole) if whole != ours_bytes)
                }
            };
            if !is_put_away {
                (before, before_bytes) = (Some(last), bytes);
            }
        }
        if before.is_some_and(|before| before.holds_same(theirs)) {
            return Ok((Content::Ours, before));
        }
        let kind = if before.is_none() { ConflictKind::AddAdd } else { ConflictKind::Content };
        let told = format!("Merge conflict in {name}");
        let bytes = match (before, before_bytes) {
            (Some(_), None) => {
                let told = format!(
                    "{told}: what went in cannot be told from what git keeps of it, so that nothing \
                     can be merged"
                );
                return Ok((Content::Conflict(kind, None, told), before));
            }
            (_, bytes) => bytes.unwrap_or_default(),
        };
        if !is_text(&bytes) {
            let told = format!("{name} was no text when it went in, and changed on both sides");
            return Ok((Content::Conflict(ConflictKind::Binary, None, told), before));
        }
        Ok(match merger.merge(&ours_bytes, &bytes, &theirs_bytes, way)? {
            Merged::Conflict(hunks) => (Content::Conflict(kind, Some(hunks), told), before),
            // Two that were added are two, however much alike.
            Merged::Clean(_) if before.is_none() => (Content::Conflict(kind, None, told), before),
            Merged::Clean(bytes) if bytes == ours_bytes => (Content::Ours, before),
            Merged::Clean(bytes) => (Content::Bytes(bytes), before),
        })
    }

    /// Turns what a file is to hold into steps.
    fn settle(
        &self,
        both: &Both<'_>,
        ours: Found,
        content: Content,
        before: Option<&File>,
        verdict: &mut Verdict,
    ) {
        let is_merged = matches!(content, Content::Bytes(_));
        let (sum, from) = match content {
            Content::Conflict(kind, hunks, told) => {
                verdict.conflict(both.target, kind, told, hunks);
                return;
            }
            Content::Ours => {
                let from = From::File(self.checkout.root.clone(), both.at.clone());
                (ours.file.sum.clone(), from)
            }
            Content::Theirs => {
                let Ok(Some(from)) = self.bytes_of_guest(both.path, both.theirs) else {
                    let told = format!("{} cannot be made as it went in", plain(both.target));
                    verdict.conflict(both.target, ConflictKind::Content, told, None);
                    return;
                };
                (both.theirs.sum.clone(), from)
            }
            Content::Bytes(bytes) => (hex(&Sha256::digest(&bytes)), From::Here(bytes)),
        };
        let mode = if self.checkout.keeps_mode {
            ours.file.mode
        } else {
            let before = before.map_or(ours.file.mode, |before| before.mode);
            merged_mode(ours.file.mode, before, both.theirs.mode)
        };
        let new = Some(New { mode, sum: sum.clone(), from });
        let path = both.target.to_vec();
        if both.at == both.target {
            if sum == ours.file.sum && mode == ours.file.mode {
                verdict.kept.push(path);
                return;
            }
            if is_merged {
                verdict.merged.insert(path.clone());
            }
            verdict.step(Step { path, over: Some(ours), new });
            return;
        }
        match self.lies(both.target) {
            Ok(Lies::Found(found)) if found.file.sum == sum => {}
            Ok(Lies::Found(_)) => {
                let told = format!(
                    "{} renamed to {} in the guest, where the host has another file",
                    plain(&both.at),
                    plain(both.target)
                );
                verdict.conflict(both.target, ConflictKind::RenameDelete, told, None);
                return;
            }
            _ => {
                verdict.merged.insert(path.clone());
                verdict.step(Step { path, over: None, new });
            }
        }
        verdict.step(Step { path: both.at.clone(), over: Some(ours), new: None });
    }

    /// Finds directories in the place of files, files in the place of directories, and what is neither.
    fn in_the_way(&self, verdict: &mut Verdict) -> Result<()> {
        let goes: BTreeSet<Vec<u8>> =
            verdict.steps.values().filter(|s| s.new.is_none()).map(|s| s.path.clone()).collect();
        let comes: Vec<Vec<u8>> =
            verdict.steps.values().filter(|s| s.new.is_some()).map(|s| s.path.clone()).collect();
        let kind = ConflictKind::InTheWay;
        let mut left = MAX_IN_THE_WAY;
        for path in comes {
            if let Some(file) = self.checkout.in_the_way(&path)?
                && !goes.contains(file)
            {
                let told = format!(
                    "{} is no directory on the host, where {} would lie",
                    plain(file),
                    plain(&path)
                );
                verdict.conflict(&path, kind, told, None);
                continue;
            }
            match self.lies(&path)? {
                Lies::Dir => {
                    let said =
                        || format!("cannot list '{}'", self.checkout.root.join(&path).display());
                    match inside(&self.checkout.root, &path, &goes, &mut left).with_context(said)? {
                        Ok(dirs) => verdict.empty.extend(dirs),
                        Err(other) => {
                            let told = format!(
                                "{} is a directory on the host, which holds {}",
                                plain(&path),
                                plain(&other)
                            );
                            verdict.conflict(&path, kind, told, None);
                        }
                    }
                }
                Lies::Other => {
                    let told = format!("{} is no file on the host", plain(&path));
                    verdict.conflict(&path, kind, told, None);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn staged(&self, verdict: &mut Verdict) {
        let paths: Vec<Vec<u8>> = verdict.steps.keys().cloned().collect();
        for path in paths.iter().filter(|path| self.checkout.is_staged(path)) {
            let told = format!("{} has staged changes on the host", plain(path));
            verdict.conflict(path, ConflictKind::Staged, told, None);
        }
    }

    /// Finds names that are one on a file system where case does not count.
    fn cases(&self, verdict: &mut Verdict) -> Result<()> {
        if !self.checkout.folds_case {
            return Ok(());
        }
        let words = ["ls-tree", "-r", "-z", "--name-only", &self.sides.whole];
        let answer = self.sides.git_for_guest().run(words, b"")?;
        let fold = |path: &[u8]| String::from_utf8_lossy(path).to_lowercase();
        let mut names: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for path in split_zero(&answer) {
            names.entry(fold(path)).or_default().insert(path.to_vec());
        }
        for step in verdict.steps.clone().values().filter(|step| step.new.is_some()) {
            let alike = names.get(&fold(&step.path)).into_iter().flatten();
            if let Some(other) = alike.into_iter().find(|other| **other != step.path) {
                let told = format!(
                    "{} and {} differ in case alone, which does not count here",
                    plain(&step.path),
                    plain(other)
                );
                verdict.conflict(&step.path, ConflictKind::Case, told, None);
            }
        }
        Ok(())
    }
}

impl Verdict {
    fn step(&mut self, step: Step) {
        self.steps.insert(step.path.clone(), step);
    }

    fn conflict(&mut self, path: &[u8], kind: ConflictKind, told: String, hunks: Option<String>) {
        let words = words(kind, &told);
        let conflict = Conflict { path: shown(path), kind, words, hunks };
        self.conflicts.entry(path.to_vec()).or_insert(conflict);
    }
}
