//! Bringing a guest's work out as a patch. Nothing in the guest changes by it.

use crate::{
    guest::{self, differences},
    record::Folder,
    scratch::Scratch,
    source::Source,
    status::{changes, inner_changes, look, no_workspace},
    store::Store,
};
use banger_channel::files::Files;
use banger_doc::{Change, Context, Error, Exported, Result, Workspace};
use banger_state::clock_ms;
use std::{
    fs::File,
    io::{Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// What is asked of an export.
#[derive(Clone, Debug, Default)]
pub struct Want {
    /// The commit that the patch is to apply to; the one recorded at prepare otherwise.
    pub base_commit: Option<String>,
    /// Whether to say only how much changed.
    pub stat: bool,
    /// Directories of git's that every repository of the host's may lead to.
    pub configured: Vec<PathBuf>,
}

/// A patch that was made and waits to be handed over.
pub struct Export {
    folder: Folder,
    record: Workspace,
    exported: Option<Exported>,
    /// The patch.
    pub patch: File,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// The commit that it applies to.
    pub base_commit: Option<String>,
    /// What it changes.
    pub changes: Vec<Change>,
    /// What the user is to know.
    pub notes: Vec<String>,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

impl Export {
    /// Makes the patch of all the guest changed. `dir` is the place of the workspace's record.
    pub fn make(dir: &Path, files: &Files<'_>, want: &Want) -> Result<Self> {
        if crate::read(dir)?.is_none() {
            return Err(no_workspace());
        }
        let folder = Folder::open(dir, files.budget().left()?)?;
        let record = folder.record()?.ok_or_else(no_workspace)?;
        let (given, next) = folder.trees(&record)?;
        let store = Store::open(dir, &record.object_format)?.until(files.budget().end());
        let look = look(files, &record, &store, &given, next.as_ref())?;
        if !look.is_there {
            return Err(Error::not_found(format!("no '{}' in the guest", record.guest_path))
                .hint("somebody removed it there"));
        }
        let scratch = store.scratch()?;
        let keeps = store.keeps_mode();
        let tree =
            guest::tree_of(files, &record.guest_path, &store, &scratch, &given, &look, keeps)?;
        let git = store.git_for_guest(Some(&scratch));
        let mut base_commit = record.base_commit.clone();
        if let Some(asked) = &want.base_commit {
            base_commit = Some(find_commit(&store, &record, &scratch, asked, want)?);
        }
        let base = match &base_commit {
            Some(commit) => commit.clone(),
            None if record.is_repository => {
                let index = scratch.path().join("empty");
                let git = git.clone().env("GIT_INDEX_FILE", &index);
                git.text(["write-tree"])?
            }
            None => record.prepared_tree.clone(),
        };
        let patch = tempfile::tempfile_in(dir).context("cannot make a file for the patch")?;
        let common = [
            "diff-tree",
            "-r",
            "-M",
            "--no-ext-diff",
            "--no-textconv",
            "--ignore-submodules=none",
            "--submodule=short",
        ];
        let form: &[&str] =
            if want.stat { &["--stat"] } else { &["-p", "--binary", "--full-index"] };
        let words: Vec<&str> =
            common.iter().chain(form).copied().chain([base.as_str(), tree.as_str()]).collect();
        let copy = patch.try_clone().context("cannot copy a descriptor")?;
        git.to_file(&words, copy).context("cannot make the patch")?;
        let size_bytes = patch.metadata().context("cannot look at the patch")?.len();
        (&patch).seek(SeekFrom::Start(0)).context("cannot read the patch")?;
        let changed = changes(&differences(&git, &base, &tree)?);
        scratch.remove()?;
        let exported = (!want.stat).then(|| {
            // Other branches are not in a patch, so they stay as they were given.
            let mut position = record.given.clone();
            position.head.clone_from(&look.position.head);
            let name = look.position.head.trim_start_matches("ref: ").to_owned();
            if let Some(oid) = look.position.refs.get(&name) {
                position.refs.insert(name, oid.clone());
            }
            position.index_sha256.clone_from(&look.position.index_sha256);
            Exported { tree, position, unix_ms: clock_ms() }
        });
        let mut notes = look.notes.clone();
        let inner = inner_changes(&given, &look);
        if inner > 0 {
            notes.push(format!("changes to {inner} files of submodules are not in the patch"));
        }
        let others = exported.as_ref().map_or(0, |exported| {
            let refs = &exported.position.refs;
            look.position.refs.iter().filter(|(name, oid)| refs.get(*name) != Some(oid)).count()
        });
        if others > 0 {
            notes.push(format!("commits on {others} other branches or tags are not in the patch"));
        }
        let changes = changed;
        Ok(Self { folder, record, exported, patch, size_bytes, base_commit, changes, notes })
    }

    /// Writes down that the patch was handed over.
    pub fn done(mut self) -> Result<()> {
        if let Some(exported) = self.exported.take() {
            self.record.exported = Some(exported);
            self.folder.write(&self.record)?;
        }
        Ok(())
    }
}

/// Finds a commit in what the guest was given, else in the host's repository, of which the scratch then has
/// it.
fn find_commit(
    store: &Store,
    record: &Workspace,
    scratch: &Scratch,
    asked: &str,
    want: &Want,
) -> Result<String> {
    let full = format!("{asked}^{{commit}}");
    let words = ["rev-parse", "--verify", "--quiet", "--end-of-options", &full];
    let ended = store.git_for_guest(None).attempt(words, b"")?;
    let oid = String::from_utf8_lossy(&ended.answer).trim().to_owned();
    if ended.status.success() && crate::git::is_oid(&oid) {
        return Ok(oid);
    }
    let trusted = [crate::record::trusted(record), want.configured.clone()].concat();
    if let Ok(Source::Repository(repository)) = Source::open(Path::new(&record.host_path), &trusted)
    {
        let oid = repository.resolve(asked)?;
        store.bring(&repository, &oid, scratch)?;
        return Ok(oid);
    }
    Err(Error::not_found(format!("no commit '{}' on the host", asked.escape_debug()))
        .hint("give one that the guest was given or that the host's repository has"))
}
