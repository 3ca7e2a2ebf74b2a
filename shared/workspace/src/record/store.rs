//! The repository that banger keeps of what a guest was given: objects only, made by banger, so
//! that git can run in it without running anything of the host's repository or of the guest's.

use crate::{
    git::{Git, is_oid, lines},
    host::remotes::{self, Ways},
    host::source::{Ref, Repository},
    scratch::Scratch,
};
use banger_doc::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// How many commits deep the history is that goes into a guest.
pub(crate) const DEPTH: usize = 10;
/// The most commits that are looked at to find where the history is cut.
const MAX_COMMITS: usize = 200_000;

/// A repository of banger's.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// The repository: what the guest has too.
    pub(crate) dir: PathBuf,
    /// Objects of content that no commit or index of the host's repository has.
    pub(crate) local: PathBuf,
    /// How many bytes the name of an object has.
    pub(crate) oid_len: usize,
    /// When work on what a guest holds has to end.
    end: Option<Instant>,
}

/// What history a guest gets.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct History {
    /// References by name.
    pub(crate) refs: BTreeMap<String, String>,
    /// Commits whose parents do not go.
    pub(crate) shallow: BTreeSet<String>,
    /// A digest of all it was decided from.
    #[serde(default)]
    pub(crate) key: String,
    /// What the user is to know of it.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
}

impl Store {
    /// Opens the store in `dir`, made if missing.
    pub(crate) fn open(dir: &Path, format: &str) -> Result<Self> {
        let repository = dir.join("repo.git");
        let local = dir.join("local");
        fs::create_dir_all(&local).with_context(|| format!("cannot make '{}'", local.display()))?;
        if !repository.join("HEAD").exists() {
            let form = format!("--object-format={format}");
            let git = Git::at(dir);
            git.run(["init", "-q", "--bare", "--template=", &form, "repo.git"], b"")?;
        }
        let oid_len = if format == "sha256" { 32 } else { 20 };
        Ok(Self { dir: repository, local, oid_len, end: None })
    }

    /// Has all calls of git end by then.
    #[must_use]
    pub(crate) fn until(self, end: Instant) -> Self {
        Self { end: Some(end), ..self }
    }

    /// Returns a way to call git on what the guest has too.
    pub(crate) fn git(&self) -> Git {
        Git::own(&self.dir).until(self.end)
    }

    /// Returns a way to call git that reads all objects and writes new ones to `new`.
    pub(crate) fn git_writing_to(&self, new: &Path) -> Git {
        self.git()
            .env("GIT_OBJECT_DIRECTORY", new)
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", self.all_objects())
    }

    /// Makes a directory of work in progress beside it.
    pub(crate) fn scratch(&self) -> Result<Scratch> {
        Scratch::beside(self.dir.parent().expect("because a store lies in a VM's folder"))
    }

    /// Returns a way to call git on what a guest wrote or names: in a jail, which shows what banger gave the
    /// guest and, to write, the scratch alone.
    pub(crate) fn git_for_guest(&self, scratch: Option<&Scratch>) -> Git {
        match scratch {
            Some(scratch) => self.git_for_guest_in(&scratch.objects(), scratch),
            None => self.git_writing_to(&self.local).jailed(self.seen(), None),
        }
    }

    /// The same with new objects in another folder of the scratch.
    pub(crate) fn git_for_guest_in(&self, objects: &Path, scratch: &Scratch) -> Git {
        let git = self.git_writing_to(objects).env("GIT_INDEX_FILE", scratch.index());
        git.jailed(self.seen(), Some(scratch.path()))
    }

    /// Returns what a jail shows.
    fn seen(&self) -> [PathBuf; 2] {
        [self.dir.clone(), self.local.clone()]
    }

    /// Returns the list of all places of objects.
    fn all_objects(&self) -> OsString {
        let mut places = quoted(&self.dir.join("objects"));
        places.push(":");
        places.push(quoted(&self.local));
        places
    }

    /// Returns which objects none of the stores of submodules has; those lie beside this one.
    pub(crate) fn missing_in_modules<'a>(
        &self,
        oids: impl Iterator<Item = &'a String>,
    ) -> Result<BTreeSet<String>> {
        let oids: BTreeSet<&String> = oids.collect();
        if oids.is_empty() {
            return Ok(BTreeSet::new());
        }
        let beside = self.dir.parent().expect("because a store lies in a VM's folder");
        let mut places = OsString::new();
        for entry in fs::read_dir(beside.join("modules")).into_iter().flatten().flatten() {
            places.push(quoted(&entry.path().join("repo.git/objects")));
            places.push(":");
            places.push(quoted(&entry.path().join("local")));
            places.push(":");
        }
        // Only names of the guest's are read here, and objects of the host's alone.
        let git = self.git().env("GIT_ALTERNATE_OBJECT_DIRECTORIES", places);
        let folders = [self.dir.clone(), beside.join("modules")];
        let git = git.jailed(folders.into_iter().filter(|dir| dir.is_dir()), None);
        let answer = git.run(["cat-file", "--batch-check"], lines(oids).as_bytes())?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        Ok(answer
            .lines()
            .filter_map(|line| line.strip_suffix(" missing"))
            .map(ToOwned::to_owned)
            .collect())
    }

    /// Reads blobs: those that are there, of at most `most` bytes each, and so many as have together at
    /// most `all`.
    pub(crate) fn blobs(
        &self,
        oids: &BTreeSet<&String>,
        most: u64,
        all: u64,
    ) -> Result<BTreeMap<String, Vec<u8>>> {
        self.blobs_with(None, oids, most, all)
    }

    /// Reads blobs that lie in the store or in a scratch, within the same bounds.
    pub(crate) fn blobs_with(
        &self,
        scratch: Option<&Scratch>,
        oids: &BTreeSet<&String>,
        most: u64,
        all: u64,
    ) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut found = BTreeMap::new();
        if oids.is_empty() {
            return Ok(found);
        }
        let git = self.git_for_guest(scratch);
        let answer =
            git.run(["cat-file", "--batch-check"], lines(oids.iter().copied()).as_bytes())?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let mut sum = 0;
        let small = answer.lines().filter_map(|line| {
            let (oid, size) = line.split_once(" blob ")?;
            size.parse::<u64>().ok().filter(|size| *size <= most).map(|size| (oid, size))
        });
        let asked: Vec<String> = small
            .map_while(|(oid, size)| {
                sum += size;
                (sum <= all).then(|| oid.to_owned())
            })
            .collect();
        if !asked.is_empty() {
            let answer = git.run(["cat-file", "--batch"], lines(&asked).as_bytes())?;
            each_object(&answer, |oid, _, body| {
                found.insert(oid.to_owned(), body.to_owned());
            })?;
        }
        Ok(found)
    }

    /// Returns the names of the packs, without an ending.
    pub(crate) fn packs(&self) -> Result<BTreeSet<String>> {
        let dir = self.dir.join("objects/pack");
        let mut packs = BTreeSet::new();
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let name = entry.with_context(|| format!("cannot list '{}'", dir.display()))?;
            let name = name.file_name().to_string_lossy().into_owned();
            if let Some(name) = name.strip_suffix(".idx") {
                packs.insert(name.to_owned());
            }
        }
        Ok(packs)
    }

    /// Returns the history that was fetched last.
    pub(crate) fn history(&self) -> History {
        fs::read(self.dir.join("banger-history.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Decides what history goes: what `must` names and, above the cut, what leads to it; `ways`; then
    /// every reference to a commit that goes anyway. Without a depth everything goes.
    pub(crate) fn choose(
        &self,
        source: &Repository,
        must: &[Ref],
        extra: &[String],
        ways: &Ways,
        depth: Option<usize>,
        cut_before: &BTreeSet<String>,
    ) -> Result<History> {
        let mut history = History::default();
        history.shallow.extend(source.shallow.iter().cloned());
        for chosen in must {
            history.refs.insert(chosen.name.clone(), chosen.oid.clone());
        }
        let Some(depth) = depth else {
            // The stash is a stack that only its log knows, and the rest is of tools.
            for chosen in source.refs.iter().filter(|r| {
                ["refs/heads/", "refs/tags/", "refs/remotes/", "refs/notes/"]
                    .iter()
                    .any(|start| r.name.starts_with(start))
                    && !is_remotes_head(r)
            }) {
                history.refs.insert(chosen.name.clone(), chosen.oid.clone());
            }
            return Ok(history);
        };
        history.shallow.extend(cut_before.iter().cloned());
        let git = self.reading(source);
        let mut going: BTreeSet<String> = BTreeSet::new();
        let mut level: BTreeSet<String> = must.iter().map(|r| r.peeled.clone()).collect();
        level.extend(extra.iter().cloned());
        for step in 1..=depth {
            let mut next = BTreeSet::new();
            let new: Vec<String> = level.iter().filter(|c| !going.contains(*c)).cloned().collect();
            for (commit, parents) in parents(&git, &new)? {
                let cut = step == depth && !parents.is_empty();
                if cut {
                    history.shallow.insert(commit.clone());
                }
                if !history.shallow.contains(&commit) {
                    next.extend(parents);
                }
                going.insert(commit);
            }
            if going.len() > MAX_COMMITS {
                return Err(Error::failed("the history is too wide to be cut")
                    .hint("'--mode full_copy' takes all of it"));
            }
            level = next;
        }
        history.shallow.retain(|c| !ways.inside.contains(c) || source.shallow.contains(c));
        going.extend(ways.inside.iter().cloned());
        let ends: Vec<String> = ways.ends.difference(&going).cloned().collect();
        for (commit, parents) in parents(&git, &ends)? {
            if !parents.is_empty() {
                history.shallow.insert(commit.clone());
            }
            going.insert(commit);
        }
        // A commit at the cut may be an ancestor of another whose parents all go.
        let all_go = |commit: &String, parents: &Vec<String>| {
            going.contains(commit) && parents.iter().all(|parent| going.contains(parent))
        };
        let cut: Vec<String> = history
            .shallow
            .iter()
            .filter(|c| going.contains(*c) && !cut_before.contains(*c))
            .cloned()
            .collect();
        for (commit, parents) in parents(&git, &cut)? {
            if all_go(&commit, &parents) && !source.shallow.contains(&commit) {
                history.shallow.remove(&commit);
            }
        }
        history.shallow.retain(|c| going.contains(c) || cut_before.contains(c));
        let leading = source.refs.iter().filter(|r| going.contains(&r.peeled));
        for other in leading.clone() {
            if ["refs/heads/", "refs/tags/"].iter().any(|start| other.name.starts_with(start)) {
                history.refs.insert(other.name.clone(), other.oid.clone());
            }
        }
        let remotes = remotes::named(source, history.refs.keys()).addresses;
        let starts: Vec<String> =
            remotes.keys().map(|name| format!("refs/remotes/{name}/")).collect();
        for other in leading.filter(|r| !is_remotes_head(r)) {
            if starts.iter().any(|start| other.name.starts_with(start)) {
                history.refs.insert(other.name.clone(), other.oid.clone());
            }
        }
        Ok(history)
    }

    /// Brings the objects of a history and `more` into the store, as one pack of what it lacks.
    pub(crate) fn fetch(
        &self,
        source: &Repository,
        history: &History,
        before: &History,
        more: &BTreeSet<String>,
    ) -> Result<()> {
        let tips: BTreeSet<&String> = history.refs.values().chain(more).collect();
        let mut asked = String::new();
        for tip in &tips {
            let _ = writeln!(asked, "{tip}");
        }
        let known = self.git().run(["cat-file", "--batch-check"], asked.as_bytes())?;
        let known = String::from_utf8_lossy(&known);
        let new: Vec<&str> =
            known.lines().filter_map(|line| line.strip_suffix(" missing")).collect();
        if new.is_empty() && history.shallow == before.shallow {
            return self.remember(history);
        }
        let mut words = String::new();
        for commit in &history.shallow {
            let _ = writeln!(words, "--shallow {commit}");
        }
        for tip in &tips {
            let _ = writeln!(words, "{tip}");
        }
        // A history that was cut elsewhere has holes where this one may need objects.
        if before.shallow.is_subset(&history.shallow) {
            for old in before.refs.values() {
                let _ = writeln!(words, "^{old}");
            }
        }
        let base = self.dir.join("objects/pack/pack");
        let git = self.reading(source);
        let base = base.as_os_str();
        let pack = ["pack-objects", "--revs", "--shallow", "--delta-base-offset", "--non-empty"];
        let pack = pack.iter().map(OsString::from);
        let pack = pack.chain([OsString::from("-q"), base.to_owned()]);
        git.run(pack, words.as_bytes())
            .with_context(|| format!("cannot read the history of '{}'", source.root.display()))?;
        self.remember(history)
    }

    /// Brings a commit of a repository without its history into a scratch, where a jail shows it.
    pub(crate) fn bring(&self, source: &Repository, commit: &str, scratch: &Scratch) -> Result<()> {
        let dir = scratch.objects().join("pack");
        fs::create_dir_all(&dir).context("cannot make a scratch directory")?;
        let base = dir.join("pack").into_os_string();
        let words = ["pack-objects", "--revs", "--shallow", "--delta-base-offset", "-q"];
        let words = words.iter().map(OsString::from).chain([base]);
        let commits = format!("--shallow {commit}\n{commit}\n");
        self.reading(source).run(words, commits.as_bytes()).map(drop).with_context(|| {
            format!("cannot read the commit '{commit}' of '{}'", source.root.display())
        })
    }

    /// Says whether modes of files are kept as they were given.
    pub(crate) fn keeps_mode(&self) -> bool {
        let said = self.git().attempt(["config", "--get", "core.filemode"], b"");
        said.is_ok_and(|said| said.answer.starts_with(b"false"))
    }

    /// Writes down what history the store has.
    fn remember(&self, history: &History) -> Result<()> {
        let lines = lines(&history.shallow);
        let write = |name: &str, bytes: &[u8]| banger_state::replace(&self.dir.join(name), bytes);
        if lines.is_empty() {
            let _ = fs::remove_file(self.dir.join("shallow"));
        } else {
            write("shallow", lines.as_bytes())?;
        }
        let bytes = serde_json::to_vec(history).context("cannot write a history")?;
        write("banger-history.json", &bytes)
    }

    /// Returns those of `oids` that the store or a repository has.
    pub(crate) fn present(
        &self,
        source: &Repository,
        oids: &BTreeSet<String>,
    ) -> Result<Vec<String>> {
        if oids.is_empty() {
            return Ok(Vec::new());
        }
        let asked = lines(oids);
        let answer = self.reading(source).run(["cat-file", "--batch-check"], asked.as_bytes())?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let present = answer.lines().filter(|line| !line.ends_with(" missing"));
        Ok(present.filter_map(|line| line.split(' ').next()).map(ToOwned::to_owned).collect())
    }

    /// Returns a way to call git on the store that reads the objects of a repository too.
    pub(crate) fn reading(&self, source: &Repository) -> Git {
        self.git().env("GIT_ALTERNATE_OBJECT_DIRECTORIES", quoted(source.objects()))
    }
}

/// Says whether a reference only says which branch of a remote others begin at.
fn is_remotes_head(known: &Ref) -> bool {
    known.target.is_some() && known.name.starts_with("refs/remotes/")
}

/// Quotes a path for a list that is separated by colons.
fn quoted(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_encoded_bytes();
    if !bytes.contains(&b':') && !bytes.starts_with(b"\"") {
        return path.into();
    }
    let text = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"").into()
}

/// Reads the parents of commits; tags are followed to theirs.
fn parents(git: &Git, commits: &[String]) -> Result<Vec<(String, Vec<String>)>> {
    if commits.is_empty() {
        return Ok(Vec::new());
    }
    let answer = git.run(["cat-file", "--batch"], lines(commits).as_bytes())?;
    let mut found = Vec::new();
    each_object(&answer, |oid, sort, body| {
        if sort != "commit" {
            return;
        }
        let lines = body.split(|byte| *byte == b'\n').skip(1);
        let parents = lines
            .map_while(|line| line.strip_prefix(b"parent "))
            .filter_map(|oid| std::str::from_utf8(oid).ok().filter(|oid| is_oid(oid)))
            .map(ToOwned::to_owned)
            .collect();
        found.push((oid.to_owned(), parents));
    })?;
    Ok(found)
}

/// Reads what `git cat-file --batch` says: name, sort and content of each object.
pub(crate) fn each_object(answer: &[u8], mut take: impl FnMut(&str, &str, &[u8])) -> Result<()> {
    let mut rest = answer;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = rest.get(end + 1..).unwrap_or_default();
        let fields: Vec<&str> = head.split(' ').collect();
        let [oid, sort, size] = fields[..] else {
            return Err(Error::failed(format!("the repository lacks an object: {head}"))
                .hint("'git fsck' says what is damaged"));
        };
        let size: usize = size.parse().context("git answered no size")?;
        take(oid, sort, rest.get(..size).unwrap_or_default());
        rest = rest.get(size + 1..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_on_what_a_guest_wrote_sees_that_and_the_store_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "sha1").unwrap();
        let scratch = store.scratch().unwrap();
        let (inside, outside) = (scratch.tree().join("file"), dir.path().join("outside"));
        for file in [&inside, &outside] {
            fs::write(file, "words\n").unwrap();
        }
        let hash = |git: Git, file: &Path| {
            let words = ["hash-object", "-w", "--no-filters", file.to_str().unwrap()];
            git.attempt(words, b"").unwrap()
        };
        let jailed = || store.git_for_guest(Some(&scratch)).work_tree(&scratch.tree());
        let known = hash(jailed(), &inside);
        assert!(known.status.success(), "{}", known.words);
        let oid = String::from_utf8(known.answer).unwrap();
        let oid = oid.trim();
        let object = scratch.objects().join(&oid[..2]).join(&oid[2..]);
        assert!(object.is_file());
        let owner = |path: &Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
        assert_eq!(owner(&object), owner(&inside));
        // Without the jail it reads whatever it is led to.
        assert!(hash(store.git_writing_to(&scratch.objects()), &outside).status.success());
        for file in [outside.as_path(), Path::new("/etc/passwd")] {
            let said = hash(jailed(), file);
            assert!(said.words.contains("No such file or directory"), "{}", said.words);
        }
        // Where nothing is to be written, nothing can.
        let read = store.git_for_guest(None).attempt(["hash-object", "-w", "--stdin"], b"new");
        assert!(!read.unwrap().status.success());
        assert!(banger_jail::weaker().is_none());
    }

    #[test]
    fn blobs_are_read_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "sha1").unwrap();
        let write = |content: &[u8]| {
            let git = store.git_writing_to(&store.local);
            let said = git.run(["hash-object", "-w", "--stdin"], content).unwrap();
            String::from_utf8(said).unwrap().trim().to_owned()
        };
        let (a, b, large) = (write(b"a\n\nb"), write(b"bb\n"), write(&[b'x'; 1000]));
        let absent = "0".repeat(40);
        let read = |oids: &[&String], most, all| {
            let found = store.blobs(&oids.iter().copied().collect(), most, all).unwrap();
            found.into_values().collect::<Vec<_>>()
        };
        let all = [&a, &b, &large, &absent];
        let mut found = read(&all, 100, 1 << 20);
        found.sort();
        assert_eq!(found, [b"a\n\nb".to_vec(), b"bb\n".to_vec()]);
        assert_eq!(read(&all, 1000, 1 << 20).len(), 3);
        assert_eq!(read(&[&a, &b], 100, 5).len(), 1);
        assert!(read(&[&absent], 100, 100).is_empty() && read(&[], 100, 100).is_empty());
    }
}
