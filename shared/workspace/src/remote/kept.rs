//! What repositories of the host's keep of what git brought out of VMs: a reference for each object below
//! `refs/banger/VM/`, whose name is the object's, and a document of each repository in the state.

use crate::{
    host::refs::{Changes, open_common},
    host::source::Repository,
    names::hex,
};
use banger_doc::{Context, Error, Kept, Kind, Pulled, Result, Workspace, shell_word};
use banger_state::{State, VmFolder, clock_ms, place, read_document, write_document};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What remembers, beyond the life of a VM, what is kept of it in repositories of the host's.
#[derive(Clone, Debug)]
pub struct Keeper {
    /// The VM's name.
    pub vm: String,
    /// The VM's id.
    pub vm_id: String,
    /// The folder of the documents.
    pub shelf: PathBuf,
}

impl Keeper {
    /// Makes the one of a VM.
    pub fn of(state: &State, vm: &VmFolder) -> Result<Self> {
        let (name, vm_id) = (vm.name().to_string(), vm.vm()?.id);
        Ok(Self { vm: name, vm_id, shelf: state.path(place::KEPT) })
    }

    /// Returns what the references are called by which a repository keeps objects of this VM.
    pub(crate) fn below(&self) -> String {
        format!("refs/banger/{}/", self.vm)
    }

    /// Remembers that a repository is about to have these references of the workspace at `guest_path`, whose
    /// folder is locked: nobody else writes the document.
    pub(crate) fn note(
        &self,
        guest_path: &str,
        repository: &Repository,
        references: &BTreeSet<String>,
    ) -> Result<()> {
        let common = common_of(repository)?;
        let sum = hex(&Sha256::digest(format!("{} {guest_path}\n{common}", self.vm_id)));
        fs::create_dir_all(&self.shelf)
            .with_context(|| format!("cannot make '{}'", self.shelf.display()))?;
        let path = self.shelf.join(format!("{}.json", &sum[..32]));
        let mut all = references.clone();
        if path.exists() {
            all.extend(read_document::<Kept>(&path)?.references);
        }
        let kept = Kept {
            vm: self.vm.clone(),
            vm_id: self.vm_id.clone(),
            repository: common,
            object_format: repository.format.clone(),
            references: all.into_iter().collect(),
            kept_unix_ms: clock_ms(),
            gone_unix_ms: None,
        };
        write_document(&path, &kept)
    }
}

pub(crate) fn common_of(repository: &Repository) -> Result<String> {
    let path = repository.host.common.path();
    path.to_str().map(ToOwned::to_owned).ok_or_else(|| {
        Error::usage(format!("'{}' cannot be remembered: its path is not UTF-8", path.display()))
            .hint("rename it")
    })
}

/// What of a document's was over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Over {
    /// The document.
    pub path: PathBuf,
    /// The VM's name.
    pub vm: String,
    /// The repository's git directory.
    pub repository: String,
    /// How many references of it went, or would go.
    pub references: usize,
}

/// Removes what repositories keep of VMs that are gone for so many days, and the documents of repositories
/// that are gone themselves. A VM's end is told by the first call that sees it gone. Whatever becomes of one
/// document, the others are tried.
pub fn remove_kept(state: &State, days: u64, dry_run: bool) -> Result<(Vec<Over>, Vec<Error>)> {
    // Before the VMs, so that one that begins meanwhile is not taken for gone.
    let dir = state.path(place::KEPT);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    let mut alive = BTreeSet::new();
    for name in state.vms().names()? {
        match state.vms().get(&name) {
            Ok(vm) => drop(alive.insert(vm.id.clone())),
            Err(error) if error.kind() == Kind::NotFound => {}
            // It may be any.
            Err(error) => return Ok((Vec::new(), vec![error])),
        }
    }
    let (mut over, mut failures) = (Vec::new(), Vec::new());
    let (mut ending, mut staying) = (Vec::new(), Staying::new());
    for path in paths {
        match judged(&path, &alive, days, dry_run) {
            Ok((kept, true)) => ending.push((path, kept)),
            Ok((kept, false)) => {
                staying.entry(kept.repository).or_default().extend(kept.references);
            }
            Err(error) => failures.push(error),
        }
    }
    for (path, kept) in ending {
        match remove_one(&path, kept, &staying, dry_run) {
            Ok(found) => over.push(found),
            Err(error) => failures.push(error.or_hint(format!(
                "'rm {}' leaves the references, and has them forgotten",
                shell_word(&path)
            ))),
        }
    }
    Ok((over, failures))
}

/// What goes on to be kept in each repository: a VM of the same name may keep the same commit.
type Staying = BTreeMap<String, BTreeSet<String>>;

/// Reads a document and says whether it is over.
fn judged(path: &Path, alive: &BTreeSet<String>, days: u64, dry_run: bool) -> Result<(Kept, bool)> {
    let mut kept: Kept = read_document(path)?;
    if !has_repository(&kept) {
        return Ok((kept, true));
    }
    if alive.contains(&kept.vm_id) {
        return Ok((kept, false));
    }
    let now = clock_ms();
    let is_news = kept.gone_unix_ms.is_none();
    let gone = *kept.gone_unix_ms.get_or_insert(now);
    let is_over = now.saturating_sub(gone) >= days.saturating_mul(24 * 3600 * 1000);
    if is_news && !is_over && !dry_run {
        write_document(path, &kept)?;
    }
    Ok((kept, is_over))
}

fn has_repository(kept: &Kept) -> bool {
    let is_gone = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    !fs::symlink_metadata(&kept.repository).is_err_and(is_gone)
}

fn remove_one(path: &Path, kept: Kept, staying: &Staying, dry_run: bool) -> Result<Over> {
    let mut references = 0;
    if has_repository(&kept) {
        let refs = open_common(&kept.repository, &kept.object_format)?;
        let there = refs.list("refs/banger/")?;
        let stays = |name: &String| {
            staying.get(&kept.repository).is_some_and(|staying| staying.contains(name))
        };
        let mine = kept.references.iter().filter(|name| there.contains_key(*name) && !stays(name));
        let changes: Changes = mine.map(|name| (name.clone(), None)).collect();
        references = changes.len();
        if !dry_run {
            refs.change(&changes)?;
        }
    }
    if !dry_run {
        fs::remove_file(path).with_context(|| format!("cannot remove '{}'", path.display()))?;
    }
    let (vm, repository) = (kept.vm, kept.repository);
    Ok(Over { path: path.to_owned(), vm, repository, references })
}

/// Returns what was brought of a guest into repositories that keep it still.
pub(crate) fn still_kept(record: &Workspace) -> Vec<&Pulled> {
    let is_kept = |pulled: &&Pulled| {
        let below = |name: &String| name.rsplit_once('/').map(|(below, _)| below.to_owned());
        let Some(below) = pulled.references.first().and_then(below) else { return true };
        let refs = open_common(&pulled.repository, &record.object_format);
        let there = refs.and_then(|refs| refs.list(&below));
        there.is_ok_and(|there| pulled.references.iter().all(|name| there.contains_key(name)))
    };
    record.pulled.iter().filter(is_kept).collect()
}
