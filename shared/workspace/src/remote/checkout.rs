//! Moving the branch that a guest has checked out, with its index and its files: forward alone, and only where
//! that loses nothing. Git runs on the host; what goes is what a checkout of the commit changes.

use crate::{
    git::MODULE,
    guest::{is_alike, seen, tree_of},
    host::Dir,
    host::index,
    host::source::Repository,
    host::tools::is_of_tools,
    host::unit::carrying,
    names::hex,
    path::{join, parents, shown},
    prepare::load::{Load, Piece, add_plan},
    prepare::plan::{self, is_safe},
    prepare::send::append_piece,
    record::given::{Given, Sort, Tree},
    remote::offer::Offer,
    remote::wip::{Listed, listed},
    temporary::Temporary,
};
use banger_channel::files::{Entry, Files, Put, What};
use banger_doc::{Context, Error, Position, Result, ToolRefusal, visible};
use banger_state::clock_ms;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// What lies in a `.git` while something is going on that goes by the branch as it is.
const UNFINISHED: [&str; 6] =
    ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply", "BISECT_LOG"];

/// A move of the checked-out branch that may be made.
pub(crate) struct Checkout {
    commit: String,
    /// What the guest had before, as far as it was given.
    before: Tree,
    /// What it is to have been given then.
    after: Tree,
    pieces: Vec<Piece>,
    gone: Vec<Vec<u8>>,
    /// The index that goes with the commit.
    pub(crate) index: Vec<u8>,
    index_sha256: String,
    /// Where the files lie that go.
    _scratch: Temporary,
}

/// Files of a commit, as git makes them, and the index that goes with it.
struct Made {
    load: Load,
    index: Vec<u8>,
    index_sha256: String,
}

/// What the guest has, and what it is to have.
struct Listings {
    head: Listed,
    new: Listed,
    /// The guest's files but those that it ignores.
    files: Listed,
}

impl Listings {
    fn moves(&self, path: &[u8]) -> bool {
        self.head.get(path) != self.new.get(path)
    }
}

impl Offer {
    /// Says how the guest's checked-out branch gets to `commit`, or in words why it does not. Nothing is written.
    /// What is as in the commit already is in nobody's way: so it is after a push that was killed.
    pub(crate) fn checkout(
        &self,
        files: &Files<'_>,
        repository: &Repository,
        commit: &str,
    ) -> Result<std::result::Result<Checkout, String>> {
        let root = &self.record.guest_path;
        let unfinished = UNFINISHED.map(|name| format!(".git/{name}"));
        let asked: Vec<&[u8]> = unfinished.iter().map(String::as_bytes).collect();
        if files.stat(root, &asked)?.iter().any(Option::is_some) {
            return Ok(Err("a merge, a rebase or the like is going on there".into()));
        }
        let before = self.settled(files)?;
        let tree = match (&self.tree, self.record.next.is_some()) {
            (None, _) => return Ok(Err("its files cannot be told from its commit".into())),
            (Some(tree), false) => tree.clone(),
            (Some(_), true) => {
                let scratch = &self.brought.scratch;
                let keeps = self.store.keeps_mode();
                tree_of(files, root, &self.store, scratch, &before, &self.look, keeps)?
            }
        };
        let git = self.brought.git(&self.store);
        let head = self.head.as_ref().map(|head| listed(&git, head)).transpose()?;
        let listings = Listings {
            head: head.unwrap_or_default(),
            new: listed(&repository.git(), commit)?,
            files: listed(&git, &tree)?,
        };
        if let Some(why) = self.unclean(&listings) {
            return Ok(Err(why));
        }
        let is_kept = |path: &Vec<u8>, (mode, oid): &(u32, String)| {
            let has = |given: &Given| {
                matches!(given.sort, Sort::File | Sort::Link)
                    && given.beside.is_none()
                    && (given.mode, &given.oid) == (*mode, oid)
            };
            self.look.same.contains_key(path) && before.get(path).is_some_and(has)
        };
        let open =
            listings.new.iter().filter(|(path, entry)| entry.0 != MODULE && !is_kept(path, entry));
        let open: BTreeSet<Vec<u8>> = open.map(|(path, _)| path.clone()).collect();
        let gone = listings.head.iter().filter(|(path, was)| {
            !listings.new.contains_key(*path) && listings.files.get(*path) == Some(*was)
        });
        let gone: BTreeSet<Vec<u8>> = gone.map(|(path, _)| path.clone()).collect();
        let found = match self.around(files, &open, &gone)? {
            Ok(found) => found,
            Err(in_the_way) => return Ok(Err(in_the_way)),
        };
        let scratch = Temporary::new()?;
        let Made { load, index, index_sha256 } =
            match self.load(repository, commit, &listings, &open, &scratch)? {
                Ok(load) => load,
                Err(why) => return Ok(Err(why)),
            };
        let mut after = before.clone();
        after.retain(|path, given| {
            matches!(given.sort, Sort::Inner | Sort::Dir)
                || given.beside.is_some()
                || listings.new.contains_key(path)
        });
        for (path, (mode, oid)) in listings.new.iter().filter(|(_, (mode, _))| *mode == MODULE) {
            after.insert(path.clone(), Given::of_object(Sort::Module, *mode, oid.clone()));
        }
        let Load { tree, mut pieces, .. } = load;
        let sums = self.sums(files, &found, tree.keys())?;
        let (mut go, mut told) = (Vec::new(), Vec::new());
        for (path, mut given) in tree {
            given.oid.clone_from(&listings.new[&path].1);
            given.host = None;
            let lies = found.get(&path);
            let agrees = |entry: &&Entry| {
                is_alike(&given, entry, self.store.keeps_mode())
                    && sums.get(&path) == Some(&given.sum)
            };
            given.guest = lies.filter(agrees).map(seen);
            if given.guest.is_none() {
                if listings.files.get(&path) == listings.new.get(&path) {
                    told.push(path.clone());
                } else if lies.is_some_and(|entry| entry.what != What::Dir)
                    && !listings.files.contains_key(&path)
                {
                    // In no tree of the guest's files is what its own rules ignore.
                    return Ok(Err(in_the_way(&path)));
                } else {
                    go.extend(pieces.remove(&path));
                }
            }
            after.insert(path, given);
        }
        // To git these are as in the commit, though other bytes, as with line ends: they stay, and are known by
        // those bytes, unless they changed since the look that git was told of.
        let list: Vec<&[u8]> = told.iter().map(Vec::as_slice).collect();
        let now = if list.is_empty() { Vec::new() } else { files.stat(root, &list)? };
        for (path, entry) in told.iter().zip(now) {
            let looked = self.look.entries.get(path).map(seen);
            let same = entry.map(|entry| seen(&entry)).filter(|now| looked == Some(*now));
            if let (Some(given), Some(seen), Some(sum)) =
                (after.get_mut(path), same, sums.get(path))
            {
                given.guest = Some(seen);
                given.sum.clone_from(sum);
            }
        }
        Ok(Ok(Checkout {
            commit: commit.to_owned(),
            before,
            after,
            pieces: go,
            gone: gone.into_iter().collect(),
            index,
            index_sha256,
            _scratch: scratch,
        }))
    }

    /// Returns what the guest was given, where an update that did not end gave some of it already.
    fn settled(&self, files: &Files<'_>) -> Result<Tree> {
        let mut tree = self.given.clone();
        let Some(next) = &self.next else { return Ok(tree) };
        let look = &self.look;
        let differs = |path: &&Vec<u8>, next: &Given| {
            !self.given.get(*path).is_some_and(|given| given.is_same(next))
        };
        let open: Vec<(&Vec<u8>, &Given)> = next
            .iter()
            .filter(|(path, next)| next.is_there() && differs(path, next))
            .filter(|(path, _)| look.same.contains_key(*path))
            .collect();
        let sums = self.sums(files, &look.entries, open.iter().map(|(path, _)| *path))?;
        for (path, next) in open {
            let is_it = |entry: &Entry| is_alike(next, entry, self.store.keeps_mode());
            if look.entries.get(path).is_some_and(is_it) && sums.get(path) == Some(&next.sum) {
                tree.insert(path.clone(), next.clone());
            }
        }
        let is_left = |path: &Vec<u8>, given: &Given| {
            !matches!(given.sort, Sort::File | Sort::Link)
                || next.contains_key(path)
                || look.entries.contains_key(path)
        };
        tree.retain(|path, given| is_left(path, given));
        Ok(tree)
    }

    /// Returns the sums of those paths at which a file or a link lies.
    fn sums<'a>(
        &self,
        files: &Files<'_>,
        found: &BTreeMap<Vec<u8>, Entry>,
        paths: impl Iterator<Item = &'a Vec<u8>>,
    ) -> Result<BTreeMap<Vec<u8>, String>> {
        let (mut sums, mut asked) = (BTreeMap::new(), Vec::new());
        for path in paths {
            match found.get(path) {
                Some(entry) if entry.what == What::Link => {
                    sums.insert(path.clone(), hex(&Sha256::digest(&entry.target)));
                }
                Some(entry) if entry.what == What::File => asked.push(path),
                _ => {}
            }
        }
        if !asked.is_empty() {
            let list: Vec<&[u8]> = asked.iter().map(|path| path.as_slice()).collect();
            let found = files.hash(&self.record.guest_path, &list)?;
            let found = asked.into_iter().zip(found);
            sums.extend(found.filter_map(|(path, sum)| Some((path.clone(), hex(&sum?)))));
        }
        Ok(sums)
    }

    /// Says why the guest's index and files are not those of its commit, or of the new one.
    fn unclean(&self, listings: &Listings) -> Option<String> {
        let Listings { head, new, files } = listings;
        let index = &self.look.index;
        if !index.is_whole {
            return Some("its index is split or sparse, or cannot be read".into());
        }
        if !index.skipped.is_empty() {
            return Some("its checkout is a sparse one".into());
        }
        let modules = index.modules.iter().map(|(at, oid)| (at.clone(), (MODULE, oid.clone())));
        let mut staged: Listed = index.staged.clone();
        staged.extend(modules);
        let quoted = |path: &[u8]| format!("'{}'", visible(&shown(path), 60));
        if let Some(path) = index.tracked.iter().find(|path| !staged.contains_key(*path)) {
            return Some(format!(
                "{} is in conflict there, or only meant to be added",
                quoted(path)
            ));
        }
        if let Some(path) = new.keys().find(|path| !is_safe(path)) {
            return Some(format!("{} is no path of a work tree", quoted(path)));
        }
        let all: BTreeSet<&Vec<u8>> = head.keys().chain(new.keys()).chain(staged.keys()).collect();
        for path in all {
            let (was, will) = (head.get(path), new.get(path));
            let is_module =
                |entry: Option<&(u32, String)>| entry.is_some_and(|(mode, _)| *mode == MODULE);
            if was != will && (is_module(was) || is_module(will)) {
                return Some(format!(
                    "the submodule {} would move, and its files not",
                    quoted(path)
                ));
            }
            let is_either = |has: Option<&(u32, String)>| has == was || has == will;
            if !is_either(staged.get(path)) {
                return Some(format!("{} has staged changes there", quoted(path)));
            }
            if (was.is_some() || will.is_some()) && !is_module(was) && !is_either(files.get(path)) {
                return Some(match was {
                    Some(_) => format!("{} has changes there that are not committed", quoted(path)),
                    None => in_the_way(path),
                });
            }
        }
        None
    }

    /// Returns what lies at these paths now, or says what is in the way of one.
    fn around(
        &self,
        files: &Files<'_>,
        open: &BTreeSet<Vec<u8>>,
        gone: &BTreeSet<Vec<u8>>,
    ) -> Result<std::result::Result<BTreeMap<Vec<u8>, Entry>, String>> {
        let mut asked: BTreeSet<Vec<u8>> = BTreeSet::new();
        for path in open {
            for way in parents(path) {
                asked.insert(way.to_vec());
                asked.insert(join(way, b".git"));
            }
        }
        let list: Vec<&[u8]> = asked.iter().map(Vec::as_slice).collect();
        let found = if list.is_empty() {
            Vec::new()
        } else {
            files.stat(&self.record.guest_path, &list)?
        };
        let found: BTreeMap<Vec<u8>, Entry> = asked
            .iter()
            .cloned()
            .zip(found)
            .filter_map(|(path, entry)| Some((path, entry?)))
            .collect();
        for path in open {
            for way in parents(path) {
                // A repository of the guest's own is no part of this one.
                if found.contains_key(&join(way, b".git")) {
                    return Ok(Err(in_the_way(way)));
                }
                let is_dir = found.get(way).map(|entry| entry.what == What::Dir);
                let is_free = match is_dir {
                    None => true,
                    Some(false) if way.len() < path.len() => gone.contains(way),
                    Some(false) => matches!(found[way].what, What::File | What::Link),
                    Some(true) => way.len() < path.len() || self.goes_whole(path, gone),
                };
                if !is_free {
                    return Ok(Err(in_the_way(way)));
                }
            }
        }
        Ok(Ok(found))
    }

    /// Says whether nothing stays in a directory once those are gone.
    fn goes_whole(&self, dir: &[u8], gone: &BTreeSet<Vec<u8>>) -> bool {
        let inside = join(dir, b"");
        let below = |path: &[u8]| {
            let inside = join(path, b"");
            gone.range(inside.clone()..).next().is_some_and(|path| path.starts_with(&inside))
        };
        let mut entries = self.look.entries.range(inside.clone()..);
        let mut entries = entries.by_ref().take_while(|(path, _)| path.starts_with(&inside));
        entries.all(
            |(path, entry)| {
                if entry.what == What::Dir { below(path) } else { gone.contains(path) }
            },
        )
    }

    /// Has git make these files of a commit, and its index; says what it would take more than git for.
    fn load(
        &self,
        repository: &Repository,
        commit: &str,
        listings: &Listings,
        paths: &BTreeSet<Vec<u8>>,
        scratch: &Temporary,
    ) -> Result<std::result::Result<Made, String>> {
        let (at, index_file) = (scratch.path().join("files"), scratch.path().join("index"));
        fs::create_dir(&at).context("cannot make a scratch directory")?;
        let git = carrying(repository, self.store.reading(repository));
        let git = git.work_tree(&at).env("GIT_INDEX_FILE", &index_file);
        git.run(["read-tree", commit], b"")?;
        let list = |paths: &mut dyn Iterator<Item = &Vec<u8>>| -> Vec<u8> {
            paths.flat_map(|path| [path.as_slice(), b"\0"].concat()).collect()
        };
        let moving = list(&mut paths.iter().filter(|path| listings.moves(path)));
        if !moving.is_empty() {
            let words = ["check-attr", "--cached", "-z", "--stdin", "filter"];
            let answer = git.run(words, &moving)?;
            let fields: Vec<&[u8]> = answer.split(|byte| *byte == 0).collect();
            let is_none = |value: &[u8]| matches!(value, b"unspecified" | b"unset");
            let filtered = fields.chunks_exact(3).find(|fields| !is_none(fields[2]));
            if let Some(fields) = filtered {
                let path = visible(&shown(fields[0]), 60);
                return Ok(Err(format!(
                    "'{path}' goes through a filter, which only git there runs"
                )));
            }
        }
        let bytes = banger_state::read_limited(&index_file, 1 << 30)?;
        let mut index = index::parse(&bytes, self.store.oid_len, index::MOST_OF_HOST)?;
        let sum = index::index_sum(&index);
        let mut load = Load::default();
        if !paths.is_empty() {
            let words = ["checkout-index", "--force", "--quiet", "-z", "--stdin"];
            git.run(words, &list(&mut paths.iter()))
                .with_context(|| format!("cannot make the files of commit '{commit}'"))?;
            index.entries.retain(|entry| paths.contains(&entry.path));
            let at = fs::canonicalize(&at).context("cannot make a scratch directory")?;
            let plan = plan::of_index(repository, &Dir::open(&at)?, &index, (0, 0))?;
            add_plan(&mut load, &plan, b"", None, true)?;
        }
        match paths.iter().find(|path| !load.tree.contains_key(*path)) {
            Some(path) => Err(Error::failed(format!(
                "git made no file '{}' of commit '{commit}'",
                shown(path)
            ))),
            None => Ok(Ok(Made { load, index: bytes, index_sha256: sum })),
        }
    }

    /// Writes down what the guest is about to get, so that a repeat tells traces of a killed push from work.
    pub(crate) fn announce(&mut self, checkout: &Checkout, given: &Position) -> Result<()> {
        let mut begun = self.record.clone();
        if begun.next.is_some() {
            begun.tree_file = self.folder.write_tree(&checkout.before)?;
        }
        begun.next_tree_file = Some(self.folder.write_tree(&checkout.after)?);
        begun.next = Some(checkout.position(given));
        self.folder.write(&begun)?;
        self.record = begun;
        Ok(())
    }

    /// Removes files of the guest's and writes others.
    pub(crate) fn put_files(&self, files: &Files<'_>, checkout: &mut Checkout) -> Result<()> {
        let root = &self.record.guest_path;
        let gone: Vec<&[u8]> = checkout.gone.iter().map(Vec::as_slice).collect();
        if !gone.is_empty() {
            files.remove(root, &gone)?;
        }
        if checkout.pieces.is_empty() {
            return Ok(());
        }
        let mut sent = BTreeMap::new();
        files.put(root, Put::Within, |writer| {
            let mut builder = tar::Builder::new(writer);
            for piece in &checkout.pieces {
                sent.insert(piece.path.clone(), append_piece(&mut builder, piece)?);
            }
            builder.finish().context("cannot write to the guest's agent")
        })?;
        let put: Vec<&[u8]> = sent.keys().map(Vec::as_slice).collect();
        for entry in files.stat(root, &put)?.into_iter().flatten() {
            let seen = seen(&entry);
            let is_it = |(size, mtime_s): (u64, i64)| {
                seen.size == size && seen.mtime_ns == mtime_s.saturating_mul(1_000_000_000)
            };
            if let (Some(given), Some(sent)) =
                (checkout.after.get_mut(&entry.path), sent.get(&entry.path).copied().flatten())
            {
                given.guest = Some(seen).filter(|_| is_it(sent));
            }
        }
        Ok(())
    }

    /// Writes down what the guest has now: all of it was given.
    pub(crate) fn settle(&mut self, checkout: &Checkout, repository: &Repository) -> Result<()> {
        let mut record = self.record.clone();
        record.given = checkout.position(&record.given);
        (record.next, record.next_tree_file, record.exported) = (None, None, None);
        record.base_commit = Some(checkout.commit.clone());
        // What a checkout of the host's got before that is of another time.
        record.prepared_unix_ms = clock_ms();
        let is_its = repository.root.to_str() == Some(record.host_path.as_str());
        if is_its && repository.head.commit.as_deref() == Some(&checkout.commit) {
            record.host_commit.clone_from(&record.base_commit);
        }
        let tools = checkout.pieces.iter().map(|piece| &piece.path).chain(&checkout.gone);
        let tools = tools.filter_map(|path| std::str::from_utf8(path).ok());
        if let Some(path) = tools.filter(|name| is_of_tools(name)).min() {
            // The user said yes to others.
            record.tools_allowed = false;
            record.tools_refused = Some(ToolRefusal { path: path.into(), why: "changed".into() });
        }
        self.position.index_sha256.clone_from(&checkout.index_sha256);
        self.record = self.folder.renew(record, &checkout.after, &checkout.after)?;
        Ok(())
    }
}

impl Checkout {
    /// Returns where HEAD, references and index are with it; the references are `given`'s.
    fn position(&self, given: &Position) -> Position {
        Position { index_sha256: self.index_sha256.clone(), ..given.clone() }
    }
}

fn in_the_way(path: &[u8]) -> String {
    format!("'{}' there is in the way", visible(&shown(path), 60))
}
