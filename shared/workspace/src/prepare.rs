//! Putting a repository or a directory into a guest.

use crate::{
    git::Git,
    given::{Given, Seen, Sort, Tree},
    guest::{self, Changes, How, Look, Scratch, hex, index_line, index_sum},
    index, plan,
    plan::{DIR, Item, LINK, MODULE, Plan},
    ready::{packed_refs, small_files, unfinished_commits},
    record::Folder,
    source::{Head, Ref, Repository, Source},
    store::{DEPTH, History, Store},
};
use banger_channel::files::{Files, Limits, Put};
use banger_doc::{Context, Error, Position, Result, Workspace, WorkspaceMode, WorkspacePlan};
use banger_state::clock_ms;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    io::{Read, Write},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Where a workspace lies in a guest unless the user says otherwise.
pub const GUEST_PATH: &str = "/root/repo";

/// Submodules inside submodules deeper than this are refused.
const MAX_DEPTH: usize = 20;

/// What is asked of a prepare.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The repository or directory on the host, or a path inside it.
    pub path: PathBuf,
    /// Where it goes in the guest.
    pub guest_path: String,
    /// How much of the repository goes.
    pub mode: WorkspaceMode,
    /// A branch that is to be made in the guest alone.
    pub branch: Option<String>,
    /// What that branch begins at; HEAD otherwise.
    pub from: Option<String>,
    /// Whether untracked files go.
    pub include_untracked: bool,
    /// Whether work of the guest may be overwritten.
    pub force: bool,
}

/// A repository on its way: the one that was asked for, or a submodule of it.
struct Unit {
    /// Where its files lie below the root; empty for the outermost.
    at: Vec<u8>,
    /// Where its `.git` lies below the root.
    git_at: String,
    repository: Repository,
    plan: Plan,
    head: Head,
    index_bytes: Vec<u8>,
    /// Names of its submodules.
    modules: Vec<String>,
    /// Whether its files are those of its HEAD, so that an unfinished merge goes along.
    is_as_it_lies: bool,
    scratch: Option<tempfile::TempDir>,
}

/// Where the content of something that goes comes from.
#[derive(Clone, Debug)]
enum Content {
    Disk(PathBuf, Seen),
    Bytes(Vec<u8>),
    Link(Vec<u8>),
    Dir,
}

/// Something that goes.
#[derive(Clone, Debug)]
struct Piece {
    path: Vec<u8>,
    content: Content,
    mode: u32,
    mtime_s: i64,
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
    let source = Source::open(&wish.path)?;
    let scratch = tempfile::tempdir().context("cannot make a scratch directory")?;
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
    Ok(WorkspacePlan {
        host_path: host_path.display().to_string(),
        guest_path: wish.guest_path.clone(),
        mode: wish.mode,
        files,
        size_bytes,
        untracked_left,
        base_commit,
        notes,
    })
}

/// Returns a path for people and documents.
pub(crate) fn shown(path: &[u8]) -> String {
    std::str::from_utf8(path).map_or_else(|_| path.escape_ascii().to_string(), ToOwned::to_owned)
}

fn join(dir: &[u8], path: &[u8]) -> Vec<u8> {
    if dir.is_empty() { path.to_vec() } else { [dir, b"/", path].concat() }
}

fn format_of(source: &Source) -> &str {
    match source {
        Source::Repository(repository) => &repository.format,
        Source::Directory(_) => "sha1",
    }
}

/// Plans the repository and, where the whole of it goes, its submodules.
fn units(source: Source, wish: &Wish, store: &Store) -> Result<Vec<Unit>> {
    let Source::Repository(repository) = source else { return Ok(Vec::new()) };
    let mut units = Vec::new();
    let first = first_unit(*repository, wish, store)?;
    add_units(first, wish, &mut units, 0)?;
    Ok(units)
}

fn first_unit(repository: Repository, wish: &Wish, store: &Store) -> Result<Unit> {
    let mut head = repository.head.clone();
    let mut is_as_it_lies = true;
    let mut files_of = None;
    if let Some(branch) = &wish.branch {
        let full = format!("refs/heads/{branch}");
        if !crate::source::is_ref_name(&full) || branch.starts_with('-') {
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
            (plan::of_repository(&repository, wish.include_untracked)?, bytes)
        }
        Some(commit) => {
            let dir = tempfile::tempdir().context("cannot make a scratch directory")?;
            let git = carrying(&repository, store.reading(&repository));
            let (mut plan, bytes) = plan::of_commit(&repository, &git, &commit, dir.path())?;
            plan.notes
                .push(format!("the guest gets commit {commit}; local edits stay on the host"));
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
fn carrying(repository: &Repository, mut git: Git) -> Git {
    for key in ["core.autocrlf", "core.eol", "core.filemode", "core.symlinks"] {
        if let Some(value) = repository.setting(key) {
            git = git.set(format!("{key}={value}"));
        }
    }
    git.set("core.safecrlf=false")
}

fn add_units(mut unit: Unit, wish: &Wish, units: &mut Vec<Unit>, depth: usize) -> Result<()> {
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
        let dir = unit.plan.root.join(OsStr::from_bytes(&path));
        let is_real = fs::symlink_metadata(&dir).is_ok_and(|meta| meta.is_dir());
        let source = if is_real { Source::open(&dir).ok() } else { None };
        let module = match source {
            Some(Source::Repository(module)) if module.root == dir => module,
            _ => {
                unit.plan.notes.push(format!("submodule '{}' is not checked out", shown(&path)));
                continue;
            }
        };
        let modules_dir = unit.repository.common_dir.join("modules");
        let name = module.git_dir.strip_prefix(&modules_dir).ok().and_then(Path::to_str);
        let name = name.map_or_else(|| shown(&path), ToOwned::to_owned);
        if !banger_channel::files::is_inside(name.as_bytes()) {
            return Err(Error::failed(format!("submodule '{}' has no usable name", shown(&path))));
        }
        let plan = plan::of_repository(&module, wish.include_untracked)?;
        inner.push(Unit {
            at: join(&unit.at, &path),
            git_at: format!("{}/modules/{name}", unit.git_at),
            head: module.head.clone(),
            index_bytes: module.index_bytes.clone(),
            plan,
            repository: *module,
            modules: Vec::new(),
            is_as_it_lies: true,
            scratch: None,
        });
        unit.modules.push(name);
    }
    units.insert(place, unit);
    for unit in inner {
        add_units(unit, wish, units, depth + 1)?;
    }
    Ok(())
}

/// What goes, ready to be sent.
#[derive(Default)]
struct Load {
    /// What the guest is to have, and what it was read from.
    tree: Tree,
    pieces: BTreeMap<Vec<u8>, Piece>,
    /// Packs of objects: path in the guest, file on the host.
    packs: BTreeMap<Vec<u8>, PathBuf>,
    /// Directories that every `.git` has, whatever is in them.
    dirs: Vec<String>,
    position: Position,
    refs: BTreeMap<String, String>,
    packed: Vec<u8>,
    index: Vec<u8>,
    base_commit: Option<String>,
    host_commit: Option<String>,
    prepared_tree: String,
    untracked_left: u64,
    files: u64,
    notes: Vec<String>,
    /// Files that were made for this alone.
    scratch: Vec<tempfile::TempDir>,
}

/// Prepares a workspace: `dir` is the place for its record, `files` the guest.
pub fn prepare(dir: &Path, files: &Files<'_>, wish: &Wish) -> Result<Workspace> {
    check_guest_path(&wish.guest_path)?;
    let source = Source::open(&wish.path)?;
    let folder = Folder::open(dir)?;
    let before = folder.record()?;
    let host_path = source.root().to_path_buf();
    let is_repository = matches!(source, Source::Repository(_));
    let format = format_of(&source).to_owned();
    let keeps_mode = keeps_mode(&source);
    let same = before.as_ref().filter(|before| {
        before.guest_path == wish.guest_path
            && before.is_repository == is_repository
            && before.object_format == format
    });
    // What is there already: refuse before anything is read or written.
    let mut seen = None;
    if let Some(before) = &before {
        let store = Store::open(dir, &before.object_format)?;
        let (given, next) = folder.trees(before)?;
        let look = guest::look(
            files,
            &before.guest_path,
            &store,
            &given,
            next.as_ref(),
            before.is_repository,
            keeps_mode,
        )?;
        if !wish.force && look.is_there {
            refuse_to_overwrite(&folder, files, before, &given, &look, keeps_mode)?;
        }
        seen = Some((given, look));
    }
    if before.is_some() && same.is_none() {
        folder.forget()?;
    }
    let store = Store::open(dir, &format)?;
    let given = seen
        .as_ref()
        .zip(same)
        .map(|((tree, _), same)| Before { tree, prepared_tree: &same.prepared_tree });
    let load = match source {
        Source::Directory(root) => load_directory(&root, &store, given)?,
        source @ Source::Repository(_) => {
            let units = units(source, wish, &store)?;
            load_repository(dir, &store, units, wish, given)?
        }
    };
    let mut record = Workspace {
        guest_path: wish.guest_path.clone(),
        host_path: host_path.display().to_string(),
        is_repository,
        mode: wish.mode,
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
        notes: load.notes.clone(),
    };
    let (old, look) = seen.filter(|_| same.is_some()).unwrap_or_default();
    send(&folder, files, wish, same, (old, look), load, &mut record)?;
    Ok(record)
}

fn keeps_mode(source: &Source) -> bool {
    match source {
        Source::Repository(repository) => repository.setting("core.filemode") == Some("false"),
        Source::Directory(_) => false,
    }
}

/// Fails if a prepare would overwrite what the guest did since the last one and nobody exported.
fn refuse_to_overwrite(
    folder: &Folder,
    files: &Files<'_>,
    before: &Workspace,
    given: &Tree,
    look: &Look,
    keeps_mode: bool,
) -> Result<()> {
    let moved = crate::status::moved(before, &look.position);
    if look.changes.is_empty() && moved.is_empty() {
        return Ok(());
    }
    let store = Store::open(folder.path(), &before.object_format)?;
    let lost = crate::status::unexported(files, before, &store, given, look, keeps_mode)?;
    let mut words = lost;
    if words.is_empty() {
        // Exported, but still the only copy that is in use.
        words = crate::status::words(look, &moved);
    }
    Err(Error::conflict(format!(
        "'{}' in the guest has work of its own: {}",
        before.guest_path,
        words.join(", ")
    ))
    .hint("'banger workspace export' brings it out; '--force' overwrites it"))
}

fn load_directory(root: &Path, store: &Store, before: Option<Before<'_>>) -> Result<Load> {
    let plan = plan::of_directory(root, &store.git())?;
    let mut load = Load { notes: plan.notes.clone(), ..Load::default() };
    let git = store.git_writing_to(&store.local);
    add_plan(&mut load, &plan, b"", before, true)?;
    load.prepared_tree = hash_plan(&mut load.tree, &plan, git, store, before)?;
    Ok(load)
}

fn load_repository(
    dir: &Path,
    store: &Store,
    units: Vec<Unit>,
    wish: &Wish,
    before: Option<Before<'_>>,
) -> Result<Load> {
    let mut load = Load::default();
    for mut unit in units {
        load.scratch.extend(unit.scratch.take());
        let unit = &unit;
        let is_first = unit.at.is_empty();
        let own_store;
        let store = if is_first {
            store
        } else {
            let name = hex(&Sha256::digest(&unit.at)[..8]);
            let place = dir.join("modules").join(name);
            fs::create_dir_all(&place).context("cannot make a directory")?;
            own_store = Store::open(&place, &unit.repository.format)?;
            &own_store
        };
        let history = fetch(store, unit, wish.mode)?;
        load.notes.extend(unit.plan.notes.iter().cloned());
        load.untracked_left += unit.plan.untracked_left;
        add_plan(&mut load, &unit.plan, &unit.at, before, is_first)?;
        if is_first {
            for (path, (mode, oid)) in &unit.plan.sparse {
                let given = Given {
                    sort: Sort::Sparse,
                    mode: *mode,
                    sum: String::new(),
                    oid: oid.clone(),
                    host: None,
                    guest: None,
                };
                load.tree.insert(path.clone(), given);
            }
            for (path, oid) in &unit.plan.modules {
                let given = Given {
                    sort: Sort::Module,
                    mode: MODULE,
                    sum: String::new(),
                    oid: oid.clone(),
                    host: None,
                    guest: None,
                };
                load.tree.insert(path.clone(), given);
            }
            let git = carrying(&unit.repository, store.git_writing_to(&store.local));
            load.prepared_tree = hash_plan(&mut load.tree, &unit.plan, git, store, before)?;
            load.base_commit.clone_from(&unit.head.commit);
            load.host_commit.clone_from(&unit.repository.head.commit);
        }
        add_git(&mut load, store, unit, &history)?;
    }
    Ok(load)
}

/// Brings the objects of a unit into its store.
fn fetch(store: &Store, unit: &Unit, mode: WorkspaceMode) -> Result<History> {
    let repository = &unit.repository;
    let mut must: Vec<Ref> = Vec::new();
    if let Some(commit) = &unit.head.commit {
        let name = unit.head.branch.clone().unwrap_or_else(|| "HEAD".into());
        must.push(Ref { name, oid: commit.clone(), peeled: commit.clone() });
    }
    if let Some(branch) = &repository.head.branch {
        let short = branch.trim_start_matches("refs/heads/");
        let remote = repository.setting(&format!("branch.{short}.remote"));
        let merge = repository.setting(&format!("branch.{short}.merge"));
        if let (Some(remote), Some(merge)) = (remote, merge) {
            let upstream =
                format!("refs/remotes/{remote}/{}", merge.trim_start_matches("refs/heads/"));
            must.extend(repository.refs.iter().filter(|r| r.name == upstream).cloned());
        }
        // The host's own branch stays known where the guest gets one of its own.
        must.extend(repository.refs.iter().filter(|r| r.name == *branch).cloned());
    }
    let depth = (mode == WorkspaceMode::Shallow).then_some(DEPTH);
    let before = store.history();
    let cut = if depth.is_some() { before.shallow.clone() } else { BTreeSet::new() };
    let unfinished = if unit.is_as_it_lies { unfinished_commits(repository) } else { Vec::new() };
    let index = index::parse_or_empty(&unit.index_bytes, store.oid_len)?;
    let listed = || index.entries.iter().filter(|entry| entry.mode != MODULE);
    let mut key = Sha256::new();
    key.update(format!(
        "{must:?} {:?} {:?} {unfinished:?} {depth:?}",
        repository.refs, repository.shallow
    ));
    key.update(index_sum(&index));
    let key = hex(&key.finalize());
    if before.key == key {
        let mut history = before;
        history.refs.remove("HEAD");
        return Ok(history);
    }
    let mut history = store.choose(repository, &must, &unfinished, depth, &cut)?;
    history.key = key;
    let mut more: BTreeSet<String> = unfinished.into_iter().collect();
    let intended = listed().filter(|entry| entry.intent_to_add).map(|entry| entry.oid.clone());
    // The object of a path that is only intended need not be there.
    more.extend(store.present(repository, &intended.collect())?);
    more.extend(listed().filter(|entry| !entry.intent_to_add).map(|entry| entry.oid.clone()));
    store.fetch(repository, &history, &before, &more)?;
    history.refs.remove("HEAD");
    Ok(history)
}

/// Adds the files of a plan.
fn add_plan(
    load: &mut Load,
    plan: &Plan,
    at: &[u8],
    before: Option<Before<'_>>,
    is_first: bool,
) -> Result<()> {
    for (path, item) in &plan.items {
        let full = join(at, path);
        let disk = plan.root.join(OsStr::from_bytes(path));
        let sort = match item.mode {
            _ if !is_first || plan::has_git(path) => Sort::Inner,
            DIR => Sort::Dir,
            _ if item.is_link => Sort::Link,
            _ => Sort::File,
        };
        let known = before.and_then(|before| before.tree.get(&full));
        let known = known.filter(|given| given.host == Some(item.seen) && given.sort == sort);
        let (sum, content) = match known {
            Some(given) if !item.is_link => {
                (given.sum.clone(), Content::Disk(disk.clone(), item.seen))
            }
            _ => read_item(item, &disk)
                .with_context(|| format!("cannot read '{}'", disk.display()))?,
        };
        let oid = item.oid.clone().or_else(|| known.map(|given| given.oid.clone()));
        let given = Given {
            sort,
            mode: item.mode,
            sum,
            oid: oid.unwrap_or_default(),
            host: Some(item.seen),
            guest: None,
        };
        load.files += 1;
        load.tree.insert(full.clone(), given);
        let mtime_s = item.seen.mtime_ns.div_euclid(1_000_000_000);
        let mode = if item.is_link { LINK } else { item.mode };
        load.pieces.insert(full.clone(), Piece { path: full, content, mode, mtime_s });
    }
    Ok(())
}

fn read_item(item: &Item, disk: &Path) -> std::io::Result<(String, Content)> {
    if item.mode == DIR {
        return Ok((String::new(), Content::Dir));
    }
    if item.is_link {
        let target = fs::read_link(disk)?.as_os_str().as_bytes().to_vec();
        return Ok((hex(&Sha256::digest(&target)), Content::Link(target)));
    }
    let mut file = open_file(disk)?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            size => sum.update(&buffer[..size]),
        }
    }
    Ok((hex(&sum.finalize()), Content::Disk(disk.to_owned(), item.seen)))
}

fn open_file(path: &Path) -> std::io::Result<File> {
    // A pipe or a link put in the file's place since is not opened.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    File::options().read(true).custom_flags(flags).open(path)
}

/// What a guest was given before.
#[derive(Clone, Copy)]
struct Before<'a> {
    tree: &'a Tree,
    prepared_tree: &'a str,
}

/// Returns what makes a tree of git.
fn parts(tree: &Tree) -> impl Iterator<Item = (&Vec<u8>, u32, &String)> {
    let listed = tree.iter().filter(|(_, given)| !matches!(given.sort, Sort::Dir | Sort::Inner));
    listed.map(|(path, given)| (path, given.mode, &given.oid))
}

/// Finds the object of each file that has none yet, and makes the tree of them all, unless it is the
/// one of before.
fn hash_plan(
    tree: &mut Tree,
    plan: &Plan,
    git: Git,
    store: &Store,
    before: Option<Before<'_>>,
) -> Result<String> {
    if let Some(before) = before
        && parts(tree).eq(parts(before.tree))
        && parts(tree).all(|part| !part.2.is_empty())
    {
        return Ok(before.prepared_tree.to_owned());
    }
    let scratch = Scratch::new(store)?;
    let git = git.work_tree(&plan.root).env("GIT_INDEX_FILE", scratch.index());
    let mut lines = Vec::new();
    let mut open = Vec::new();
    for (path, given) in tree.iter() {
        if matches!(given.sort, Sort::Dir | Sort::Inner) {
            continue;
        }
        if given.oid.is_empty() {
            open.extend_from_slice(path);
            open.push(0);
        } else {
            index_line(&mut lines, given.mode, &given.oid, path);
        }
    }
    git.run(["update-index", "-z", "--index-info"], &lines)?;
    if !open.is_empty() {
        git.run(["update-index", "--add", "--replace", "-z", "--stdin"], &open)
            .context("cannot read the files that have local edits")?;
    }
    let listed = git.run(["ls-files", "-z", "--stage"], b"")?;
    for line in crate::git::split_zero(&listed) {
        let Some(tab) = line.iter().position(|byte| *byte == b'\t') else { continue };
        let head = String::from_utf8_lossy(&line[..tab]).into_owned();
        let oid = head.split(' ').nth(1).unwrap_or_default();
        if let Some(given) = tree.get_mut(&line[tab + 1..])
            && given.oid.is_empty()
        {
            oid.clone_into(&mut given.oid);
        }
    }
    git.text(["write-tree", "--missing-ok"]).context("cannot make a tree of the files")
}

/// Adds the `.git` of a unit.
fn add_git(load: &mut Load, store: &Store, unit: &Unit, history: &History) -> Result<()> {
    let repository = &unit.repository;
    let up = |path: &str| "../".repeat(path.split('/').count());
    let at = shown(&unit.at);
    let work_tree = (!unit.at.is_empty()).then(|| format!("{}{at}", up(&unit.git_at)));
    let small =
        small_files(repository, history, unit.is_as_it_lies, work_tree.as_deref(), &unit.modules);
    let mut inner: Vec<(String, Vec<u8>)> =
        small.into_iter().map(|(name, bytes)| (format!("{}/{name}", unit.git_at), bytes)).collect();
    let head = match (&unit.head.branch, &unit.head.commit) {
        (Some(branch), _) => format!("ref: {branch}"),
        (None, commit) => commit.clone().unwrap_or_default(),
    };
    let packed = packed_refs(repository, &history.refs);
    if unit.at.is_empty() {
        // The store reads attributes as the guest does.
        for name in ["info/attributes", "info/exclude"] {
            let target = store.dir.join(name);
            let key = format!(".git/{name}");
            match inner.iter().find(|(path, _)| *path == key) {
                Some((_, bytes)) => {
                    fs::create_dir_all(store.dir.join("info"))
                        .context("cannot make a directory")?;
                    banger_state::replace(&target, bytes)?;
                }
                None => drop(fs::remove_file(&target)),
            }
        }
        for key in
            ["core.autocrlf", "core.eol", "core.filemode", "core.symlinks", "core.ignorecase"]
        {
            match repository.setting(key) {
                Some(value) => drop(store.git().run(["config", key, value], b"")?),
                None => drop(store.git().attempt(["config", "--unset-all", key], b"")?),
            }
        }
        load.position.head = head;
        load.position.refs.clone_from(&history.refs);
        load.position.refs.retain(|name, _| !name.starts_with("refs/remotes/"));
        let index = index::parse_or_empty(&unit.index_bytes, store.oid_len)?;
        if !unit.index_bytes.is_empty() {
            load.position.index_sha256 = index_sum(&index);
        }
        load.refs.clone_from(&history.refs);
        load.packed = packed;
        load.index.clone_from(&unit.index_bytes);
    } else {
        inner.push((format!("{}/HEAD", unit.git_at), format!("{head}\n").into_bytes()));
        inner.push((format!("{}/packed-refs", unit.git_at), packed));
        if !unit.index_bytes.is_empty() {
            inner.push((format!("{}/index", unit.git_at), unit.index_bytes.clone()));
        }
        let link = format!("gitdir: {}{}\n", up(&at), unit.git_at);
        inner.push((format!("{at}/.git"), link.into_bytes()));
    }
    for name in ["objects/info", "objects/pack", "refs/heads", "refs/tags"] {
        load.dirs.push(format!("{}/{name}", unit.git_at));
    }
    for (path, bytes) in inner {
        add_small(load, path.into_bytes(), bytes);
    }
    for name in store.packs()? {
        for end in ["pack", "idx"] {
            let file = store.dir.join(format!("objects/pack/{name}.{end}"));
            let path = format!("{}/objects/pack/{name}.{end}", unit.git_at).into_bytes();
            load.tree.insert(path.clone(), inner_given(name.clone()));
            load.packs.insert(path, file);
        }
    }
    Ok(())
}

fn inner_given(sum: String) -> Given {
    let (mode, oid) = (0o100_644, String::new());
    Given { sort: Sort::Inner, mode, sum, oid, host: None, guest: None }
}

fn add_small(load: &mut Load, path: Vec<u8>, bytes: Vec<u8>) {
    load.tree.insert(path.clone(), inner_given(hex(&Sha256::digest(&bytes))));
    let mtime_s = (clock_ms() / 1000) as i64;
    let content = Content::Bytes(bytes);
    load.pieces.insert(path.clone(), Piece { path, content, mode: 0o100_644, mtime_s });
}

/// Sends what the guest lacks, removes what it is not to have any more, and writes the record.
fn send(
    folder: &Folder,
    files: &Files<'_>,
    wish: &Wish,
    before: Option<&Workspace>,
    (old, look): (Tree, Look),
    mut load: Load,
    record: &mut Workspace,
) -> Result<()> {
    let root = &wish.guest_path;
    let is_within = look.is_there && !look.is_empty;
    let mut plan = Sending::default();
    if is_within {
        plan.only_changes(&old, &look, &load, before, wish.force);
    } else {
        plan.everything(&load);
    }
    if let Some(before) = before.filter(|before| before.next.is_none())
        && plan.is_empty()
        && plan.gone.is_empty()
    {
        return keep(folder, before, old, &look, load, record);
    }
    let next_name = folder.write_tree(&load.tree)?;
    // The record says what is about to happen before it does, so that a repeat tells traces of
    // a killed prepare from a guest's work.
    let mut begun = before.cloned().unwrap_or_else(|| record.clone());
    if before.is_none() {
        begun.tree_file = folder.write_tree(&Tree::new())?;
        begun.given = Position::default();
    }
    begun.next_tree_file = Some(next_name.clone());
    begun.next = Some(record.given.clone());
    folder.write(&begun)?;
    let gone: Vec<&[u8]> = plan.gone.iter().map(Vec::as_slice).collect();
    if !gone.is_empty() {
        files.remove(root, &gone, Limits::default())?;
    }
    let mut sent_at = BTreeMap::new();
    if !plan.is_empty() {
        let how = match (is_within, wish.force) {
            (true, _) => Put::Within,
            (false, true) => Put::Aside,
            (false, false) => Put::Fresh,
        };
        let put = files.put(root, how, Limits::default(), |writer| {
            sent_at = plan.write(writer, &load)?;
            Ok(())
        });
        if let Err(error) = put {
            if before.is_none() && error.kind() == banger_doc::Kind::Conflict {
                folder.forget()?;
                return Err(Error::conflict(format!(
                    "'{root}' in the guest holds files that banger did not put there"
                ))
                .hint("'--force' moves them aside; '--guest-path' chooses another place"));
            }
            return Err(error);
        }
    }
    remember(files, root, &mut load.tree, &look, &sent_at)?;
    record.tree_file = folder.write_tree(&load.tree)?;
    folder.write(record)?;
    folder.tidy(&record.tree_file);
    Ok(())
}

/// Writes the record of a prepare that had nothing to send.
fn keep(
    folder: &Folder,
    before: &Workspace,
    old: Tree,
    look: &Look,
    mut load: Load,
    record: &mut Workspace,
) -> Result<()> {
    settle(&mut load.tree, &look.same, look, &Sent::new());
    record.exported.clone_from(&before.exported);
    record.tree_file =
        if load.tree == old { before.tree_file.clone() } else { folder.write_tree(&load.tree)? };
    folder.write(record)?;
    folder.tidy(&record.tree_file);
    Ok(())
}

/// Looks at what was sent, and writes down how each file looks in the guest now.
fn remember(
    files: &Files<'_>,
    root: &str,
    tree: &mut Tree,
    look: &Look,
    sent_at: &Sent,
) -> Result<()> {
    let mut now: BTreeMap<Vec<u8>, Seen> = BTreeMap::new();
    {
        files.scan(root, Limits::default(), |entry| {
            if tree.contains_key(&entry.path) {
                let seen = Seen {
                    size: entry.size,
                    mtime_ns: entry.mtime_ns,
                    ctime_ns: entry.ctime_ns,
                    ino: entry.ino,
                };
                now.insert(entry.path, seen);
            }
            Ok(())
        })?;
    }
    settle(tree, &now, look, sent_at);
    Ok(())
}

/// Writes down how each file looks in the guest, where it is sure what it holds.
fn settle(tree: &mut Tree, now: &BTreeMap<Vec<u8>, Seen>, look: &Look, sent_at: &Sent) {
    // A change within the clock's own grain would not be seen.
    let fresh = clock_ms() as i64 * 1_000_000 - 2_000_000_000;
    for (path, given) in tree.iter_mut() {
        let seen = now.get(path).copied();
        given.guest = match sent_at.get(path) {
            Some(Some((size, mtime_s))) => seen.filter(|seen| {
                seen.size == *size && seen.mtime_ns == mtime_s.saturating_mul(1_000_000_000)
            }),
            // It changed on the host while it was read: what the guest has is not known.
            Some(None) => {
                given.oid.clear();
                given.host = None;
                None
            }
            None => seen.filter(|seen| look.same.get(path) == Some(seen)),
        };
        if given.host.is_some_and(|host| host.ctime_ns > fresh) {
            given.host = None;
        }
    }
}

/// Size and time of each file as it was sent, or nothing if it changed while it was read.
type Sent = BTreeMap<Vec<u8>, Option<(u64, i64)>>;

/// What is about to be sent.
#[derive(Default)]
struct Sending {
    packs: Vec<Vec<u8>>,
    pieces: Vec<Vec<u8>>,
    gone: Vec<Vec<u8>>,
    /// Written last: index, references, HEAD.
    last: Vec<(String, Vec<u8>)>,
    dirs: Vec<String>,
}

impl Sending {
    fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.pieces.is_empty() && self.last.is_empty()
    }

    fn everything(&mut self, load: &Load) {
        self.packs = load.packs.keys().cloned().collect();
        self.pieces = load.pieces.keys().cloned().collect();
        self.dirs.clone_from(&load.dirs);
        if load.position.head.is_empty() {
            return;
        }
        self.last.push((".git/packed-refs".into(), load.packed.clone()));
        if !load.index.is_empty() {
            self.last.push((".git/index".into(), load.index.clone()));
        }
        self.last.push((".git/HEAD".into(), format!("{}\n", load.position.head).into_bytes()));
    }

    fn only_changes(
        &mut self,
        old: &Tree,
        look: &Look,
        load: &Load,
        before: Option<&Workspace>,
        force: bool,
    ) {
        // After half an update nothing is known of what was to be written.
        let is_torn = before.is_none_or(|before| before.next.is_some());
        for (path, given) in &load.tree {
            let is_known = old.get(path).is_some_and(|old| old.is_same(given));
            let is_scanned = !plan::has_git(path);
            let is_there = if is_scanned { look.same.contains_key(path) } else { !is_torn };
            if is_known && is_there || !given.is_there() {
                continue;
            }
            if load.packs.contains_key(path) {
                self.packs.push(path.clone());
            } else if load.pieces.contains_key(path) {
                self.pieces.push(path.clone());
            }
        }
        let is_gone = |path: &&Vec<u8>| !load.tree.get(*path).is_some_and(Given::is_there);
        self.gone = old
            .iter()
            .filter(|(path, given)| given.is_there() && given.mode != DIR && is_gone(path))
            .map(|(path, _)| path.clone())
            .collect();
        self.gone.extend(look.litter.iter().cloned());
        if force {
            let deleted = look.changes.iter().filter(|(_, how)| **how == How::Modified);
            for (path, _) in deleted {
                if is_gone(&path) && !self.gone.contains(path) {
                    self.gone.push(path.clone());
                }
            }
        }
        let Some(before) = before.filter(|_| !load.position.head.is_empty()) else { return };
        let here = &look.position;
        if here.index_sha256 != load.position.index_sha256 && !load.index.is_empty() {
            self.last.push((".git/index".into(), load.index.clone()));
        }
        for (name, oid) in &load.refs {
            let is_remote = name.starts_with("refs/remotes/");
            let is_right = here.refs.get(name) == Some(oid)
                || (is_remote && !is_torn && before.base_commit == load.base_commit);
            if !is_right {
                self.last.push((format!(".git/{name}"), format!("{oid}\n").into_bytes()));
            }
        }
        if here.head != load.position.head {
            let head = format!("{}\n", load.position.head).into_bytes();
            self.last.push((".git/HEAD".into(), head));
        }
    }

    /// Returns the time in whole seconds, which is what travels, once the second of the youngest file
    /// is over. The guest's git trusts the times of files older than its index, so an index of the
    /// same second would have it read them all, and a younger one miss an edit in that second.
    fn after_the_youngest(&self, load: &Load) -> i64 {
        let clock = || (clock_ms() / 1000) as i64;
        let now_s = clock();
        // What comes from the future is not waited for; git reads it each time.
        if self.pieces.iter().any(|path| load.pieces[path].mtime_s == now_s) {
            while clock() == now_s {
                thread::sleep(Duration::from_millis(1000 - clock_ms() % 1000));
            }
        }
        clock()
    }

    /// Writes it all as one tar stream and returns, for each file of the host, its size and time as
    /// sent, or nothing if it changed while it was read.
    fn write(&self, writer: &mut dyn Write, load: &Load) -> Result<Sent> {
        let mut sent = BTreeMap::new();
        let now_s = (clock_ms() / 1000) as i64;
        let mut builder = tar::Builder::new(writer);
        for dir in &self.dirs {
            let mut header = header(0o755, tar::EntryType::Directory, 0, now_s);
            append(&mut builder, &mut header, dir.as_bytes(), std::io::empty())?;
        }
        for path in &self.packs {
            let file = &load.packs[path];
            let said = || format!("cannot read '{}'", file.display());
            let mut open = File::open(file).with_context(said)?;
            let meta = open.metadata().with_context(said)?;
            let mtime = plan::seen(&meta).mtime_ns.div_euclid(1_000_000_000);
            let mut header = header(0o444, tar::EntryType::Regular, meta.len(), mtime);
            append(&mut builder, &mut header, path, &mut open)?;
        }
        for path in &self.pieces {
            let piece = &load.pieces[path];
            let result = append_piece(&mut builder, piece)?;
            if matches!(piece.content, Content::Disk(..) | Content::Link(_)) {
                sent.insert(path.clone(), result);
            }
        }
        let now_s = self.after_the_youngest(load);
        for (path, bytes) in &self.last {
            let mut header = header(0o644, tar::EntryType::Regular, bytes.len() as u64, now_s);
            append(&mut builder, &mut header, path.as_bytes(), bytes.as_slice())?;
        }
        builder.finish().context("cannot write to the guest's agent")?;
        Ok(sent)
    }
}

fn header(mode: u32, sort: tar::EntryType, size: u64, mtime_s: i64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(sort);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(mtime_s.max(0) as u64);
    header
}

fn append(
    builder: &mut tar::Builder<&mut dyn Write>,
    header: &mut tar::Header,
    path: &[u8],
    content: impl Read,
) -> Result<()> {
    builder
        .append_data(header, Path::new(OsStr::from_bytes(path)), content)
        .with_context(|| format!("cannot send '{}'", path.escape_ascii()))
}

fn append_piece(
    builder: &mut tar::Builder<&mut dyn Write>,
    piece: &Piece,
) -> Result<Option<(u64, i64)>> {
    let mode = piece.mode & 0o777;
    let mtime = piece.mtime_s.max(0);
    match &piece.content {
        Content::Dir => {
            let mut header = header(0o755, tar::EntryType::Directory, 0, mtime);
            append(builder, &mut header, &piece.path, std::io::empty())?;
            Ok(None)
        }
        Content::Link(target) => {
            let mut header = header(0o777, tar::EntryType::Symlink, 0, mtime);
            let (path, target) = (OsStr::from_bytes(&piece.path), OsStr::from_bytes(target));
            builder
                .append_link(&mut header, path, target)
                .with_context(|| format!("cannot send '{}'", piece.path.escape_ascii()))?;
            Ok(Some((target.len() as u64, mtime)))
        }
        Content::Bytes(bytes) => {
            let mut header = header(mode, tar::EntryType::Regular, bytes.len() as u64, mtime);
            append(builder, &mut header, &piece.path, bytes.as_slice())?;
            Ok(None)
        }
        Content::Disk(disk, seen) => {
            let said = || format!("cannot read '{}'", disk.display());
            let file = open_file(disk).with_context(said)?;
            let now = file.metadata().with_context(said)?;
            if !now.is_file() {
                return Err(Error::conflict(format!(
                    "'{}' changed while it was read",
                    disk.display()
                ))
                .hint("try again"));
            }
            let size = now.len();
            let mode = if piece.mode == LINK { 0o644 } else { mode };
            let mut header = header(mode, tar::EntryType::Regular, size, mtime);
            // The stream's frame has to hold even if the file shrinks now.
            let content = (&file).take(size).chain(std::io::repeat(0)).take(size);
            append(builder, &mut header, &piece.path, content)?;
            let after = file.metadata().with_context(said)?;
            let is_same = plan::seen(&now) == *seen && plan::seen(&after) == *seen;
            Ok(is_same.then_some((size, mtime)))
        }
    }
}

/// Returns what the host changed since it was prepared.
pub(crate) fn host_changes(record: &Workspace, given: &Tree) -> Result<(Option<String>, Changes)> {
    let source = Source::open(Path::new(&record.host_path))?;
    let scratch = tempfile::tempdir().context("cannot make a scratch directory")?;
    let mut changes = BTreeMap::new();
    let (plan, commit) = match &source {
        Source::Repository(repository) => {
            (plan::of_repository(repository, true)?, repository.head.commit.clone())
        }
        Source::Directory(root) => {
            let store = Store::open(scratch.path(), "sha1")?;
            (plan::of_directory(root, &store.git())?, None)
        }
    };
    for (path, item) in &plan.items {
        let disk = plan.root.join(OsStr::from_bytes(path));
        match given.get(path) {
            None => {
                changes.insert(path.clone(), How::Added);
            }
            Some(given) if given.host == Some(item.seen) => {}
            Some(given) => {
                let sum = read_item(item, &disk).map(|(sum, _)| sum).unwrap_or_default();
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
