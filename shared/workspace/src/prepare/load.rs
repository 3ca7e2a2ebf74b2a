//! What goes, piece by piece, with what is remembered of it.

use crate::{
    git::{DIR, Git, LINK, MODULE},
    host::Dir,
    host::attributes::attributes_are_files,
    host::include::Taking,
    host::index::{self, Stat, index_line, index_sum},
    host::remotes::{self, Ways, tracking},
    host::source::Ref,
    host::unit::{Unit, carrying},
    names::hex,
    path::{join, text},
    prepare::plan::{self, Behind, Item, Plan},
    prepare::ready::{packed_refs, small_files, unfinished_commits},
    prepare::wish::Wish,
    record::given::{Given, Seen, Sort, Tree},
    record::store::{DEPTH, History, Store},
    temporary::Temporary,
};
use banger_doc::{Context, Position, Result, WorkspaceMode};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Instant,
};

/// Stands for all references to branches of remotes, which no look at a guest tells apart from what it
/// fetched itself.
pub(crate) const REMOTE_REFS: &[u8] = b".git/refs/remotes";

/// Says whether a reference is to a branch of a remote.
pub(crate) fn is_remote(name: &str) -> bool {
    name.starts_with("refs/remotes/")
}

/// Where the content of something that goes comes from.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Disk(Dir, Vec<u8>, Seen),
    Bytes(Vec<u8>),
    Link(Vec<u8>),
    Dir,
}

/// Something that goes.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) path: Vec<u8>,
    pub(crate) content: Content,
    pub(crate) mode: u32,
    /// Seconds since 1970; none is the guest's time when it is written.
    pub(crate) mtime_s: Option<i64>,
}

/// What goes, ready to be sent.
#[derive(Default)]
pub(crate) struct Load {
    /// What the guest is to have, and what it was read from.
    pub(crate) tree: Tree,
    pub(crate) pieces: BTreeMap<Vec<u8>, Piece>,
    /// Packs of objects: path in the guest, file on the host.
    pub(crate) packs: BTreeMap<Vec<u8>, PathBuf>,
    /// Directories that every `.git` has, whatever is in them.
    pub(crate) dirs: Vec<String>,
    pub(crate) position: Position,
    pub(crate) refs: BTreeMap<String, String>,
    pub(crate) packed: Vec<u8>,
    /// The index as it lies on the host.
    pub(crate) index: Vec<u8>,
    /// How many bytes the name of an object has.
    pub(crate) oid_len: usize,
    pub(crate) base_commit: Option<String>,
    pub(crate) host_commit: Option<String>,
    pub(crate) prepared_tree: String,
    pub(crate) behind: Behind,
    pub(crate) files: u64,
    pub(crate) notes: Vec<String>,
    /// Files that were made for this alone.
    pub(crate) scratch: Vec<Temporary>,
}

impl Load {
    /// Fits the index of the unit at `at` to the files that go; `is_sure` says which of them hold what
    /// was planned.
    pub(crate) fn fitted_index(
        &self,
        bytes: &[u8],
        oid_len: usize,
        at: &[u8],
        is_sure: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>> {
        index::fitted(bytes, oid_len, |entry| {
            let full = join(at, &entry.path);
            let (given, piece) = (self.tree.get(&full)?, self.pieces.get(&full)?);
            let (seen, mtime_s) = (given.host?, piece.mtime_s?);
            // Truncated as git does.
            let same = Stat::Same { size: seen.size as u32, mtime_s: mtime_s as u32 };
            let is_same = given.oid == entry.oid && is_sure(&full);
            Some(if is_same { same } else { Stat::Unsure })
        })
    }
}

/// What a guest was given before.
#[derive(Clone, Copy)]
pub(crate) struct Before<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) prepared_tree: &'a str,
}

pub(crate) fn load_directory(
    root: &Dir,
    store: &Store,
    taking: &Taking,
    before: Option<Before<'_>>,
) -> Result<Load> {
    let plan = plan::of_directory(root, &store.git(), taking)?;
    let mut load = Load { notes: plan.notes.clone(), ..Load::default() };
    load.behind.add(b"", &plan);
    let git = store.git_writing_to(&store.local);
    add_plan(&mut load, &plan, b"", before, true)?;
    load.prepared_tree = hash_plan(&mut load.tree, &plan, git, store, before)?;
    Ok(load)
}

pub(crate) fn load_repository(
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
        load.notes.extend(unit.plan.notes.iter().chain(&history.notes).cloned());
        load.behind.add(&unit.at, &unit.plan);
        add_plan(&mut load, &unit.plan, &unit.at, before, is_first)?;
        if is_first {
            for (path, (mode, oid)) in &unit.plan.sparse {
                let given = Given::of_object(Sort::Sparse, *mode, oid.clone());
                load.tree.insert(path.clone(), given);
            }
            for (path, oid) in &unit.plan.modules {
                let given = Given::of_object(Sort::Module, MODULE, oid.clone());
                load.tree.insert(path.clone(), given);
            }
            let git = carrying(&unit.repository, store.git_writing_to(&store.local));
            load.prepared_tree = hash_plan(&mut load.tree, &unit.plan, git, store, before)?;
            load.base_commit.clone_from(&unit.head.commit);
            load.host_commit.clone_from(&unit.repository.head.commit);
        }
        for path in unit.plan.modules.keys() {
            // Git takes a submodule whose directory is missing for a deleted one.
            let lies = fs::symlink_metadata(unit.plan.root.join(path));
            if lies.is_ok_and(|meta| meta.is_dir()) {
                let path = join(&unit.at, path);
                let piece =
                    Piece { path: path.clone(), content: Content::Dir, mode: DIR, mtime_s: None };
                load.pieces.insert(path, piece);
            }
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
        let (oid, peeled) = (commit.clone(), commit.clone());
        must.push(Ref { name, oid, peeled, target: None });
    }
    if let Some(branch) = &repository.head.branch {
        let short = branch.trim_start_matches("refs/heads/");
        let remote = repository.setting(&format!("branch.{short}.remote"));
        let merge = repository.setting(&format!("branch.{short}.merge"));
        if let (Some(remote), Some(merge)) = (remote, merge) {
            let upstream = tracking(remote, merge);
            must.extend(repository.refs.iter().filter(|r| r.name == upstream).cloned());
        }
        // The host's own branch stays known where the guest gets one of its own.
        must.extend(repository.refs.iter().filter(|r| r.name == *branch).cloned());
    }
    let depth = (mode == WorkspaceMode::Shallow).then_some(DEPTH);
    let before = store.history();
    let cut = if depth.is_some() { before.shallow.clone() } else { BTreeSet::new() };
    let unfinished = if unit.is_as_it_lies { unfinished_commits(repository)? } else { Vec::new() };
    let index = index::parse_or_empty(&unit.index_bytes, store.oid_len, index::MOST_OF_HOST)?;
    let listed = || index.entries.iter().filter(|entry| entry.mode != MODULE);
    let bases = if depth.is_some() { remotes::bases(repository) } else { Vec::new() };
    let mut key = Sha256::new();
    key.update(format!(
        "{must:?} {:?} {:?} {unfinished:?} {depth:?} {bases:?} {:?}",
        repository.refs,
        repository.shallow,
        remotes::named(repository, repository.refs.iter().map(|known| &known.name))
    ));
    key.update(index_sum(&index));
    let key = hex(&key.finalize());
    if before.key == key {
        let mut history = before;
        history.refs.remove("HEAD");
        return Ok(history);
    }
    let ways = match &unit.head.commit {
        Some(head) => remotes::ways(repository, head, &bases)?,
        None => Ways::default(),
    };
    let mut history = store.choose(repository, &must, &unfinished, &ways, depth, &cut)?;
    (history.key, history.notes) = (key, ways.notes);
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
pub(crate) fn add_plan(
    load: &mut Load,
    plan: &Plan,
    at: &[u8],
    before: Option<Before<'_>>,
    is_first: bool,
) -> Result<()> {
    for (path, item) in &plan.items {
        let full = join(at, path);
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
                (given.sum.clone(), Content::Disk(plan.root.clone(), path.clone(), item.seen))
            }
            _ => read_item(item, &plan.root, path, None)
                .with_context(|| format!("cannot read '{}'", plan.root.join(path).display()))?,
        };
        let oid = item.oid.clone().or_else(|| known.map(|given| given.oid.clone()));
        let given = Given {
            sort,
            mode: item.mode,
            sum,
            oid: oid.unwrap_or_default(),
            beside: item.beside,
            host: Some(item.seen),
            guest: None,
        };
        load.files += 1;
        load.tree.insert(full.clone(), given);
        let mtime_s = Some(item.seen.mtime_ns.div_euclid(1_000_000_000).max(0));
        let mode = if item.is_link { LINK } else { item.mode };
        load.pieces.insert(full.clone(), Piece { path: full, content, mode, mtime_s });
    }
    Ok(())
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
    let scratch = store.scratch()?;
    let git = git.work_tree(plan.root.path()).env("GIT_INDEX_FILE", scratch.index());
    let mut lines = Vec::new();
    let mut open = Vec::new();
    for (path, mode, oid) in parts(tree) {
        if oid.is_empty() {
            open.push(path.clone());
        } else {
            index_line(&mut lines, mode, oid, path);
        }
    }
    git.run(["update-index", "-z", "--index-info"], &lines)?;
    for (path, oid) in add_to_index(&git, &plan.root, &open)? {
        if let Some(given) = tree.get_mut(&path)
            && given.oid.is_empty()
        {
            given.oid = oid;
        }
    }
    git.text(["write-tree", "--missing-ok"]).context("cannot make a tree of the files")
}

/// Adds files below `root` to the index of `git`, and returns the object of every path in that.
pub(crate) fn add_to_index(
    git: &Git,
    root: &Dir,
    paths: &[Vec<u8>],
) -> Result<Vec<(Vec<u8>, String)>> {
    if !paths.is_empty() {
        attributes_are_files(root, paths.iter().map(Vec::as_slice))?;
        let list: Vec<u8> =
            paths.iter().flat_map(|path| [path.as_slice(), b"\0"].concat()).collect();
        // One wait for the disk for all of them.
        let git = git.clone().set("core.fsyncMethod=batch");
        git.run(["update-index", "--add", "--replace", "-z", "--stdin"], &list)
            .context("cannot read the files that have local edits")?;
    }
    let listed = git.run(["ls-files", "-z", "--stage"], b"")?;
    let lines = crate::git::split_zero(&listed).filter_map(|line| {
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let head = String::from_utf8_lossy(&line[..tab]).into_owned();
        Some((line[tab + 1..].to_vec(), head.split(' ').nth(1)?.to_owned()))
    });
    Ok(lines.collect())
}

/// Makes the tree of what was given, as far as its objects are known.
pub(crate) fn tree_of_given(tree: &Tree, store: &Store) -> Result<String> {
    let scratch = store.scratch()?;
    let git = store.git_writing_to(&store.local).env("GIT_INDEX_FILE", scratch.index());
    let mut lines = Vec::new();
    for (path, mode, oid) in parts(tree).filter(|(_, _, oid)| !oid.is_empty()) {
        index_line(&mut lines, mode, oid, path);
    }
    git.run(["update-index", "-z", "--index-info"], &lines)?;
    git.text(["write-tree", "--missing-ok"]).context("cannot make a tree of the files")
}

/// Returns what makes a tree of git.
fn parts(tree: &Tree) -> impl Iterator<Item = (&Vec<u8>, u32, &String)> {
    let listed = tree.iter().filter(|(_, given)| !matches!(given.sort, Sort::Dir | Sort::Inner));
    listed.map(|(path, given)| (path, given.mode, &given.oid))
}

/// Adds the `.git` of a unit.
fn add_git(load: &mut Load, store: &Store, unit: &Unit, history: &History) -> Result<()> {
    let repository = &unit.repository;
    let up = |path: &str| "../".repeat(path.split('/').count());
    let at = text(&unit.at);
    let work_tree = (!unit.at.is_empty()).then(|| format!("{}{at}", up(&unit.git_at)));
    let small =
        small_files(repository, history, unit.is_as_it_lies, work_tree.as_deref(), &unit.modules)?;
    let mut inner: Vec<(String, Vec<u8>)> =
        small.into_iter().map(|(name, bytes)| (format!("{}/{name}", unit.git_at), bytes)).collect();
    let head = match (&unit.head.branch, &unit.head.commit) {
        (Some(branch), _) => format!("ref: {branch}"),
        (None, commit) => commit.clone().unwrap_or_default(),
    };
    let packed = packed_refs(repository, &history.refs);
    if unit.at.is_empty() {
        // The store reads attributes as the guest does.
        let target = store.dir.join("info/attributes");
        match inner.iter().find(|(path, _)| path == ".git/info/attributes") {
            Some((_, bytes)) => {
                fs::create_dir_all(store.dir.join("info")).context("cannot make a directory")?;
                banger_state::replace(&target, bytes)?;
            }
            None => drop(fs::remove_file(&target)),
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
        let index = index::parse_or_empty(&unit.index_bytes, store.oid_len, index::MOST_OF_HOST)?;
        if !unit.index_bytes.is_empty() {
            load.position.index_sha256 = index_sum(&index);
        }
        load.refs.clone_from(&history.refs);
        let remote: Vec<_> = history.refs.iter().filter(|(name, _)| is_remote(name)).collect();
        let sum = hex(&Sha256::digest(format!("{remote:?}")));
        load.tree.insert(REMOTE_REFS.to_vec(), inner_given(sum));
        load.packed = packed;
        load.index.clone_from(&unit.index_bytes);
        load.oid_len = store.oid_len;
    } else {
        inner.push((format!("{}/HEAD", unit.git_at), format!("{head}\n").into_bytes()));
        inner.push((format!("{}/packed-refs", unit.git_at), packed));
        if !unit.index_bytes.is_empty() {
            let bytes = load.fitted_index(&unit.index_bytes, store.oid_len, &unit.at, |_| true)?;
            inner.push((format!("{}/index", unit.git_at), bytes));
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
    Given { sort: Sort::Inner, mode, sum, oid, beside: None, host: None, guest: None }
}

fn add_small(load: &mut Load, path: Vec<u8>, bytes: Vec<u8>) {
    load.tree.insert(path.clone(), inner_given(hex(&Sha256::digest(&bytes))));
    let content = Content::Bytes(bytes);
    load.pieces.insert(path.clone(), Piece { path, content, mode: 0o100_644, mtime_s: None });
}

/// Reads something that goes, its sum and where its content is from; fails if that takes until after `end`.
pub(crate) fn read_item(
    item: &Item,
    root: &Dir,
    path: &[u8],
    end: Option<Instant>,
) -> std::io::Result<(String, Content)> {
    if item.mode == DIR {
        return Ok((String::new(), Content::Dir));
    }
    if item.is_link {
        let target = fs::read_link(root.join(path))?.as_os_str().as_bytes().to_vec();
        return Ok((hex(&Sha256::digest(&target)), Content::Link(target)));
    }
    // A pipe or a link put in the file's place since is not opened.
    let mut file = root.file(path)?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        if end.is_some_and(|end| Instant::now() >= end) {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        match file.read(&mut buffer)? {
            0 => break,
            size => sum.update(&buffer[..size]),
        }
    }
    Ok((hex(&sum.finalize()), Content::Disk(root.clone(), path.to_vec(), item.seen)))
}
