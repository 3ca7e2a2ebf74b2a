//! Bringing a guest's work out as a patch. Nothing in the guest changes by it.

mod mails;
mod mbox;
pub(crate) mod sides;

use crate::{
    export::sides::{Handover, Sides},
    guest::differences,
    host::source::Source,
    status::changes,
};
use banger_channel::files::Files;
use banger_doc::{Change, Context, Error, Result};
use std::{
    fs::File,
    io::{Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// The word that asks for the commit that was prepared, where a commit is asked for.
const PREPARED: &str = "prepared";

/// What is asked of an export.
#[derive(Clone, Debug, Default)]
pub struct Want {
    /// The commit that the patch is to apply to, or `prepared` for the one that was prepared; what went in
    /// otherwise, local edits included.
    pub base_commit: Option<String>,
    /// Whether to say only how much changed.
    pub stat: bool,
    /// Whether to make mails of the guest's commits, and of the rest, in place of one patch.
    pub commits: bool,
    /// Directories of git's that every repository of the host's may lead to.
    pub configured: Vec<PathBuf>,
}

/// A patch that was made and waits to be handed over.
pub struct Export {
    handover: Option<Handover>,
    /// The patch.
    pub patch: File,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// The commit that it applies to; none if it applies to what went in.
    pub base_commit: Option<String>,
    /// What it changes.
    pub changes: Vec<Change>,
    /// What the user is to know.
    pub notes: Vec<String>,
    /// Where the workspace lies in the guest.
    pub guest_path: String,
    /// Where it came from.
    pub host_path: String,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

impl Export {
    /// Makes the patch, or the mails, of all the guest did. `dir` is the place of the workspace's record.
    pub fn make(dir: &Path, files: &Files<'_>, want: &Want) -> Result<Self> {
        let look = if want.commits { Sides::with_commits } else { Sides::look };
        let mut sides = look(dir, files)?;
        let git = sides.git_for_guest();
        let patch = tempfile::tempfile_in(dir).context("cannot make a file for the patch")?;
        let mut notes = sides.notes.clone();
        let made = if want.commits {
            mails_of(&mut sides, want, &patch, &mut notes)?
        } else {
            patch_of(&sides, want, &patch, &mut notes)?
        };
        let size_bytes = patch.metadata().context("cannot look at the patch")?.len();
        (&patch).seek(SeekFrom::Start(0)).context("cannot read the patch")?;
        let changes = changes(&differences(&git, &made.base, &made.tree)?);
        if !want.stat {
            notes.extend(sides.other_commits().map(|what| format!("{what} are not in the patch")));
        }
        let (guest_path, host_path) =
            (sides.record.guest_path.clone(), sides.record.host_path.clone());
        // How much changed is no work.
        let handover = Some(sides.handover(made.out)?).filter(|_| !want.stat);
        let base_commit = made.base_commit;
        Ok(Self { handover, patch, size_bytes, base_commit, changes, notes, guest_path, host_path })
    }

    /// Writes down that the patch was handed over.
    pub fn done(self) -> Result<()> {
        self.handover.map_or(Ok(()), Handover::done)
    }
}

/// What was made, as trees.
struct Made {
    /// What it applies to, and what comes of that.
    base: String,
    tree: String,
    /// What is out once it is.
    out: String,
    base_commit: Option<String>,
}

/// Makes one patch.
fn patch_of(sides: &Sides, want: &Want, file: &File, notes: &mut Vec<String>) -> Result<Made> {
    let (base, tree, base_commit) = match &want.base_commit {
        None => (sides.base.clone(), sides.tree.clone(), None),
        Some(asked) => {
            let commit = base_of(sides, asked, want)?;
            let base = match &commit {
                Some(commit) => commit.clone(),
                None if sides.record.is_repository => sides.empty_tree()?,
                None => sides.record.prepared_tree.clone(),
            };
            (sides.with_ignored(base)?, sides.whole.clone(), commit)
        }
    };
    notes.extend(sides.kept.clone().filter(|_| want.base_commit.is_none()));
    let common = [
        "diff-tree",
        "-r",
        "-M",
        "--no-ext-diff",
        "--no-textconv",
        "--ignore-submodules=none",
        "--submodule=short",
    ];
    let form: &[&str] = if want.stat { &["--stat"] } else { &["-p", "--binary", "--full-index"] };
    let words: Vec<&str> =
        common.iter().chain(form).copied().chain([base.as_str(), tree.as_str()]).collect();
    let copy = file.try_clone().context("cannot copy a descriptor")?;
    sides.git_for_guest().to_file(&words, copy).context("cannot make the patch")?;
    Ok(Made { base, out: tree.clone(), tree, base_commit })
}

/// Makes mails of the guest's commits, and of the rest.
fn mails_of(sides: &mut Sides, want: &Want, file: &File, notes: &mut Vec<String>) -> Result<Made> {
    let record = &sides.record;
    if !record.is_repository {
        return Err(Error::usage(format!(
            "'{}' in the guest was a directory without git when it was put there",
            record.guest_path
        ))
        .hint("without '--commits' a patch of its changes is made"));
    }
    if want.base_commit.as_deref().is_some_and(|asked| asked != PREPARED) {
        let words = "'--commits' are those since the commit that was prepared";
        return Err(Error::usage(words).hint(
            "'--base-commit prepared' has local edits that went in among them; no other goes with it",
        ));
    }
    let mails = mails::write(sides, want.base_commit.is_some(), file)?;
    notes.extend(mails.notes);
    let base_commit = record.base_commit.clone();
    let base = base_commit.clone().map_or_else(|| sides.empty_tree(), Ok)?;
    sides.told = mails.commits;
    Ok(Made { base, tree: mails.sum, out: mails.out, base_commit })
}

/// Finds the commit that is asked for; none if that is the one that was prepared, and there was none.
fn base_of(sides: &Sides, asked: &str, want: &Want) -> Result<Option<String>> {
    if asked == PREPARED {
        return Ok(sides.record.base_commit.clone());
    }
    let full = format!("{asked}^{{commit}}");
    let words = ["rev-parse", "--verify", "--quiet", "--end-of-options", &full];
    let ended = sides.store.git_for_guest(None).attempt(words, b"")?;
    let oid = String::from_utf8_lossy(&ended.answer).trim().to_owned();
    if ended.status.success() && crate::git::is_oid(&oid) {
        return Ok(Some(oid));
    }
    // A scratch has what only the host's repository has.
    let record = &sides.record;
    let trusted = [crate::record::trusted(record), want.configured.clone()].concat();
    if let Ok(Source::Repository(repository)) = Source::open(Path::new(&record.host_path), &trusted)
    {
        let oid = repository.resolve(asked)?;
        sides.store.bring(&repository, &oid, &sides.scratch)?;
        return Ok(Some(oid));
    }
    Err(Error::not_found(format!("no commit '{}' on the host", asked.escape_debug()))
        .hint("give one that the guest was given or that the host's repository has"))
}
