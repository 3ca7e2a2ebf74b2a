//! The repositories that go: the one that was asked for, and submodules of it.

use crate::{
    git::Git,
    host::include::Taking,
    host::source::{Head, Repository, Source},
    host::{HostGit, Trusted},
    path::{join as joined, shown, text},
    prepare::plan::{self, Plan},
    prepare::wish::Wish,
    record::store::Store,
    temporary::Temporary,
};
use banger_doc::{Context, Error, Result, WorkspaceMode};
use std::{fs, path::Path};

/// Submodules inside submodules deeper than this are refused.
const MAX_DEPTH: usize = 20;

/// A repository on its way: the one that was asked for, or a submodule of it.
pub(crate) struct Unit {
    /// Where its files lie below the root; empty for the outermost.
    pub(crate) at: Vec<u8>,
    /// Where its `.git` lies below the root.
    pub(crate) git_at: String,
    pub(crate) repository: Repository,
    pub(crate) plan: Plan,
    pub(crate) head: Head,
    pub(crate) index_bytes: Vec<u8>,
    /// Names of its submodules.
    pub(crate) modules: Vec<String>,
    /// Whether its files are those of its HEAD, so that an unfinished merge goes along.
    pub(crate) is_as_it_lies: bool,
    pub(crate) scratch: Option<Temporary>,
}

/// Plans the repository and, where the whole of it goes, its submodules.
pub(crate) fn units(
    source: Source,
    wish: &Wish,
    taking: &Taking,
    store: &Store,
) -> Result<Vec<Unit>> {
    let Source::Repository(repository) = source else { return Ok(Vec::new()) };
    let mut units = Vec::new();
    let first = first_unit(*repository, wish, taking, store)?;
    add_units(first, wish, taking, &mut units, 0)?;
    Ok(units)
}

fn first_unit(repository: Repository, wish: &Wish, taking: &Taking, store: &Store) -> Result<Unit> {
    let mut head = repository.head.clone();
    let mut is_as_it_lies = true;
    let mut files_of = None;
    if let Some(branch) = &wish.branch {
        let full = format!("refs/heads/{branch}");
        if !crate::names::is_ref_name(&full) || branch.starts_with('-') {
            let shown = branch.escape_debug();
            return Err(Error::usage(format!("'{shown}' is not the name of a branch")));
        }
        if repository.refs.iter().any(|r| r.name == full) {
            return Err(Error::conflict(format!("branch '{branch}' exists on the host"))
                .hint("choose another name; without '--branch' the guest gets the host's branch"));
        }
        head.branch = Some(full);
        if let Some(from) = &wish.from {
            let commit = repository.resolve(from)?;
            is_as_it_lies = Some(&commit) == repository.head.commit.as_ref();
            if !is_as_it_lies {
                files_of = Some(commit.clone());
            }
            head.commit = Some(commit);
        }
    } else if wish.from.is_some() {
        return Err(Error::usage("'--from' needs '--branch'"));
    }
    let mut scratch = None;
    let (plan, index_bytes) = match files_of {
        None => {
            let bytes = repository.index_bytes.clone();
            (plan::of_repository(&repository, taking, b"")?, bytes)
        }
        Some(commit) => {
            let dir = Temporary::new()?;
            let git = carrying(&repository, store.reading(&repository));
            let (mut plan, bytes) = plan::of_commit(&repository, &git, &commit, dir.path())?;
            plan.notes
                .push(format!("the guest gets commit {commit}; local edits stay on the host"));
            if !wish.include.is_empty() || wish.include_untracked {
                plan.notes.push("files that nobody tracks stay there too".into());
            }
            scratch = Some(dir);
            (plan, bytes)
        }
    };
    Ok(Unit {
        at: Vec::new(),
        git_at: ".git".into(),
        repository,
        plan,
        head,
        index_bytes,
        modules: Vec::new(),
        is_as_it_lies,
        scratch,
    })
}

/// Adds the settings under which bytes of a work tree become bytes of an object.
pub(crate) fn carrying(repository: &Repository, mut git: Git) -> Git {
    for key in ["core.autocrlf", "core.eol", "core.filemode", "core.symlinks"] {
        if let Some(value) = repository.setting(key) {
            git = git.set(format!("{key}={value}"));
        }
    }
    git.set("core.safecrlf=false")
}

fn add_units(
    mut unit: Unit,
    wish: &Wish,
    taking: &Taking,
    units: &mut Vec<Unit>,
    depth: usize,
) -> Result<()> {
    if !unit.plan.modules.is_empty() && wish.mode == WorkspaceMode::Shallow {
        let first = unit.plan.modules.keys().next().map(|path| shown(path)).unwrap_or_default();
        return Err(Error::usage(format!(
            "'{}' has submodules, as '{first}'",
            unit.repository.root.display()
        ))
        .hint("'--mode full_copy' takes the whole repository with its submodules"));
    }
    if depth > MAX_DEPTH {
        return Err(Error::failed("submodules lie too deep in each other"));
    }
    let place = units.len();
    let mut inner = Vec::new();
    let paths: Vec<Vec<u8>> = unit.plan.modules.keys().cloned().collect();
    for path in paths {
        let dir = unit.plan.root.join(&path);
        let git = joined(&path, b".git");
        let is_real = fs::canonicalize(&dir).is_ok_and(|real| real == dir);
        if !is_real
            || !plan::is_safe(&path)
            || fs::symlink_metadata(unit.plan.root.join(&git)).is_err()
        {
            unit.plan.notes.push(format!("submodule '{}' is not checked out", shown(&path)));
            continue;
        }
        let module = HostGit::open(&dir, &Trusted::open(&wish.all_trusted())?);
        let module = module.and_then(Repository::open);
        let module =
            module.with_context(|| format!("submodule '{}' cannot go along", shown(&path)))?;
        let modules_dir = unit.repository.host.common.path().join("modules");
        let name = module.host.git.path().strip_prefix(&modules_dir).ok().and_then(Path::to_str);
        let name = name.map_or_else(|| text(&path), ToOwned::to_owned);
        if !banger_channel::files::is_inside(name.as_bytes()) {
            return Err(Error::failed(format!("submodule '{}' has no usable name", shown(&path))));
        }
        let at = joined(&unit.at, &path);
        let plan = plan::of_repository(&module, taking, &at)?;
        inner.push(Unit {
            at,
            git_at: format!("{}/modules/{name}", unit.git_at),
            head: module.head.clone(),
            index_bytes: module.index_bytes.clone(),
            plan,
            repository: module,
            modules: Vec::new(),
            is_as_it_lies: true,
            scratch: None,
        });
        unit.modules.push(name);
    }
    units.insert(place, unit);
    for unit in inner {
        add_units(unit, wish, taking, units, depth + 1)?;
    }
    Ok(())
}
