//! Looking at what is to go into a VM, without changing a byte of it.

use crate::{
    git::{Git, is_oid, split_zero},
    index::{self, Index},
    remotes::remote_of,
};
use banger_doc::{Context, Error, Kind, Result, shell_word};
use banger_state::read_limited;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

/// The largest index, list of references or small file of a repository that is read.
const MAX_FILE: u64 = 1 << 30;

/// What is to go into a VM.
#[derive(Debug)]
pub(crate) enum Source {
    /// A repository with a work tree.
    Repository(Box<Repository>),
    /// A directory without git.
    Directory(PathBuf),
}

/// Where HEAD is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Head {
    /// The branch, as `refs/heads/NAME`, unless HEAD is detached.
    pub(crate) branch: Option<String>,
    /// The commit; none on a branch without commits.
    pub(crate) commit: Option<String>,
}

/// A reference.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Ref {
    /// Full name.
    pub(crate) name: String,
    /// The object it names.
    pub(crate) oid: String,
    /// What a tag object names.
    pub(crate) peeled: String,
    /// The reference that it stands for, if it is a symbolic one.
    pub(crate) target: Option<String>,
}

/// A repository as it lies on the host.
#[derive(Debug)]
pub(crate) struct Repository {
    /// The work tree.
    pub(crate) root: PathBuf,
    /// What belongs to this work tree.
    pub(crate) git_dir: PathBuf,
    /// What all work trees share.
    pub(crate) common_dir: PathBuf,
    /// `sha1` or `sha256`.
    pub(crate) format: String,
    /// Where HEAD is.
    pub(crate) head: Head,
    /// The configuration that counts here, the last value of each key.
    pub(crate) config: BTreeMap<String, String>,
    /// References, sorted.
    pub(crate) refs: Vec<Ref>,
    /// Commits whose parents are not there.
    pub(crate) shallow: Vec<String>,
    /// Its index.
    pub(crate) index: Index,
    /// The same, as bytes, and when it was written.
    pub(crate) index_bytes: Vec<u8>,
    /// When the index was written: seconds and nanoseconds.
    pub(crate) index_mtime: (i64, i64),
    /// Whether those are not the bytes that lie on the host.
    is_index_made: bool,
}

impl Source {
    /// Looks at `path`, which may be anywhere inside a work tree.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = fs::canonicalize(path).map_err(|error| {
            let error_kind = error.kind();
            let said = Error::failed(format!("cannot look at '{}'", path.display()));
            if error_kind == std::io::ErrorKind::NotFound {
                Error::not_found(format!("no '{}'", path.display()))
                    .hint("a repository or another directory goes in; a command comes after '--'")
            } else {
                said.because(error)
            }
        })?;
        if !path.is_dir() {
            return Err(Error::usage(format!("'{}' is no directory", path.display()))
                .hint("a repository or another directory goes in; 'banger vm cp' copies files"));
        }
        let git = Git::as_user(&path);
        let words = ["rev-parse", "--is-bare-repository", "--is-inside-work-tree"];
        let ended = git.attempt(words, b"")?;
        if !ended.status.success() {
            if !path.ancestors().any(|dir| fs::symlink_metadata(dir.join(".git")).is_ok())
                && !is_bare(&path)
            {
                return Ok(Self::Directory(path));
            }
            let said = ended.words.trim().lines().next().unwrap_or("git refuses it").to_owned();
            return Err(Error::failed(format!("cannot use '{}'", path.display()))
                .because(said.escape_debug().to_string())
                .hint(format!(
                    "'git -C {} status' shows what git thinks of it",
                    shell_word(&path)
                )));
        }
        match ended.answer.split(|byte| *byte == b'\n').next() {
            Some(b"true") => {
                return Err(Error::usage(format!("'{}' is a bare repository", path.display()))
                    .hint("give a work tree of it: 'git worktree add' or 'git clone' makes one"));
            }
            _ if !ended.answer.ends_with(b"true\n") => {
                return Err(Error::usage(format!("'{}' is not in a work tree", path.display()))
                    .hint("give the directory that holds the files"));
            }
            _ => {}
        }
        Repository::open(&git).map(|repository| Self::Repository(Box::new(repository)))
    }

    /// Returns the directory that holds the files.
    pub(crate) fn root(&self) -> &Path {
        match self {
            Self::Repository(repository) => &repository.root,
            Self::Directory(path) => path,
        }
    }
}

impl Repository {
    fn open(git: &Git) -> Result<Self> {
        // One by one: a path may hold a line end.
        let place = |word: &str| -> Result<PathBuf> {
            let answer = git.run(["rev-parse", "--path-format=absolute", word], b"")?;
            let bytes = answer.strip_suffix(b"\n").unwrap_or(&answer);
            Ok(PathBuf::from(OsStr::from_bytes(bytes)))
        };
        let root = place("--show-toplevel")?;
        let git_dir = place("--absolute-git-dir")?;
        let common_dir = place("--git-common-dir")?;
        let format = git.text(["rev-parse", "--show-object-format"])?;
        let oid_len = match format.as_str() {
            "sha1" => 20,
            "sha256" => 32,
            other => {
                return Err(Error::failed(format!("objects of format '{other}' are not known")));
            }
        };
        let config = config(&Git::as_user(&root))?;
        if let Some((key, _)) = config.iter().find(|(key, value)| {
            key.starts_with("remote.") && key.ends_with(".promisor") && value.as_str() != "false"
        }) {
            let remote = key.trim_start_matches("remote.").trim_end_matches(".promisor");
            return Err(Error::usage(format!(
                "'{}' is a partial clone: objects it lacks would have to be fetched",
                root.display()
            ))
            .hint(format!(
                "'git fetch --refetch --no-filter {}' and 'git config unset {}' make it a whole one",
                shell_word(remote),
                shell_word(key)
            )));
        }
        let careful = Git::at(&root);
        let head = head(&careful)?;
        let refs = refs(&careful)?;
        let shallow = match read_limited(&common_dir.join("shallow"), MAX_FILE) {
            Ok(bytes) => lines_of_oids(&bytes),
            Err(_) => Vec::new(),
        };
        let index_path = git_dir.join("index");
        let mut index_mtime = (0, 0);
        let mut index_bytes = Vec::new();
        if let Ok(meta) = fs::metadata(&index_path) {
            index_mtime = (meta.mtime(), meta.mtime_nsec());
            index_bytes = read_limited(&index_path, MAX_FILE)?;
        }
        let mut index = Index::default();
        if !index_bytes.is_empty() {
            index = index::parse(&index_bytes, oid_len)
                .with_context(|| format!("cannot read '{}'", index_path.display()))?;
        }
        let mut repository = Self {
            root,
            git_dir,
            common_dir,
            format,
            head,
            config,
            refs,
            shallow,
            index,
            index_bytes,
            index_mtime,
            is_index_made: false,
        };
        if repository.index.is_partial {
            repository.make_index_whole(oid_len)?;
        }
        Ok(repository)
    }

    /// Replaces what was read of a split or sparse index by a whole one, made in a repository of
    /// banger's: git would touch trees and shared indexes in the one it reads.
    fn make_index_whole(&mut self, oid_len: usize) -> Result<()> {
        let dir = tempfile::tempdir().context("cannot make a scratch directory")?;
        let copy = dir.path().join("index");
        let form = format!("--object-format={}", self.format);
        Git::at(dir.path()).run(["init", "-q", "--bare", "--template=", &form, "repo.git"], b"")?;
        let own = dir.path().join("repo.git");
        let git = Git::own(&own)
            .work_tree(&self.root)
            .env("GIT_INDEX_FILE", &copy)
            .set("core.safecrlf=false")
            .set("core.splitIndex=false");
        if self.index.is_sparse {
            self.spread_index(&git)?;
        } else {
            fs::write(&copy, &self.index_bytes).context("cannot copy the index")?;
            for entry in fs::read_dir(&self.git_dir).into_iter().flatten().flatten() {
                if entry.file_name().as_bytes().starts_with(b"sharedindex.") {
                    let _ = fs::copy(entry.path(), own.join(entry.file_name()));
                }
            }
            let words = ["update-index", "--no-split-index", "--force-write-index"];
            git.run(words, b"").context("cannot make a whole index of a split one")?;
        }
        self.is_index_made = true;
        self.index_bytes = read_limited(&copy, MAX_FILE)?;
        self.index = index::parse(&self.index_bytes, oid_len)?;
        if self.index.is_partial {
            return Err(Error::failed(format!(
                "'{}' has an index that cannot be made whole",
                self.root.display()
            ))
            .hint("'git sparse-checkout reapply --no-sparse-index' makes it whole"));
        }
        Ok(())
    }

    /// Writes an index that lists the files of each directory of a sparse one.
    fn spread_index(&self, git: &Git) -> Result<()> {
        let mut lines = Vec::new();
        let mut skipped = Vec::new();
        for entry in &self.index.entries {
            if entry.mode == 0o040_000 {
                let listed = self.git().run(["ls-tree", "-r", "-z", &entry.oid], b"")?;
                for line in split_zero(&listed) {
                    let Some(tab) = line.iter().position(|byte| *byte == b'\t') else { continue };
                    let head = String::from_utf8_lossy(&line[..tab]).into_owned();
                    let (mode, oid) = (head.split(' ').next(), head.split(' ').nth(2));
                    let path = [entry.path.as_slice(), &line[tab + 1..]].concat();
                    lines.extend_from_slice(
                        format!("{} {} 0\t", mode.unwrap_or_default(), oid.unwrap_or_default())
                            .as_bytes(),
                    );
                    lines.extend_from_slice(&path);
                    lines.push(0);
                    skipped.extend_from_slice(&path);
                    skipped.push(0);
                }
                continue;
            }
            let head = format!("{:06o} {} {}\t", entry.mode, entry.oid, entry.stage);
            lines.extend_from_slice(head.as_bytes());
            lines.extend_from_slice(&entry.path);
            lines.push(0);
            if entry.skip_worktree {
                skipped.extend_from_slice(&entry.path);
                skipped.push(0);
            }
        }
        git.run(["update-index", "-z", "--index-info"], &lines)?;
        if !skipped.is_empty() {
            git.run(["update-index", "--skip-worktree", "-z", "--stdin"], &skipped)?;
        }
        // Files that differ make it say so by its status.
        git.attempt(["update-index", "-q", "--refresh"], b"").map(drop)
    }

    /// Returns a way to call git on it, with nothing of its configuration running.
    pub(crate) fn git(&self) -> Git {
        Git::at(&self.root)
    }

    /// Returns where its objects lie.
    pub(crate) fn objects(&self) -> PathBuf {
        self.common_dir.join("objects")
    }

    /// Returns the value of a setting.
    pub(crate) fn setting(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(String::as_str)
    }

    /// Reads a small file that belongs to this work tree, or else to all of them.
    pub(crate) fn small_file(&self, name: &str) -> Option<Vec<u8>> {
        let own = read_limited(&self.git_dir.join(name), 16 << 20);
        own.or_else(|_| read_limited(&self.common_dir.join(name), 16 << 20)).ok()
    }

    /// Returns the commit that `name` means to the user.
    pub(crate) fn resolve(&self, name: &str) -> Result<String> {
        let git = Git::as_user(&self.root);
        let full = format!("{name}^{{commit}}");
        let words = ["rev-parse", "--verify", "--quiet", "--end-of-options", &full];
        let ended = git.attempt(words, b"")?;
        let oid = String::from_utf8_lossy(&ended.answer).trim().to_owned();
        if ended.status.success() && is_oid(&oid) {
            return Ok(oid);
        }
        Err(Error::not_found(format!("no commit '{name}' in '{}'", self.root.display()))
            .hint("'git log --all --oneline' shows what is there"))
    }

    /// Returns the untracked files that no rule ignores.
    pub(crate) fn untracked(&self) -> Result<Vec<Vec<u8>>> {
        let mut git = self.git();
        if let Some(path) = self.excludes_file() {
            git = git.set(format!("core.excludesFile={}", path.display()));
        }
        let copy = tempfile::tempdir().context("cannot make a scratch directory")?;
        if self.is_index_made {
            let copy = copy.path().join("index");
            fs::write(&copy, &self.index_bytes).context("cannot copy the index")?;
            git = git.env("GIT_INDEX_FILE", copy).set("index.sparse=false");
        }
        let words = ["ls-files", "-z", "--others", "--exclude-standard"];
        let answer = git.run(words, b"").context("cannot list untracked files")?;
        Ok(split_zero(&answer).map(<[u8]>::to_vec).collect())
    }

    /// Returns the user's own list of what to ignore everywhere.
    pub(crate) fn excludes_file(&self) -> Option<PathBuf> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        if let Some(path) = self.setting("core.excludesfile") {
            return match path.strip_prefix("~/") {
                Some(rest) => home.map(|home| home.join(rest)),
                None => Some(path.into()),
            };
        }
        let base = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty());
        let base = base.map(PathBuf::from).or_else(|| home.map(|home| home.join(".config")))?;
        Some(base.join("git/ignore"))
    }
}

/// Says whether a directory looks like the inside of a `.git`, which holds passwords and programs.
fn is_bare(path: &Path) -> bool {
    path.join("config").is_file() && path.join("objects").is_dir() && path.join("refs").is_dir()
}

fn config(git: &Git) -> Result<BTreeMap<String, String>> {
    let answer = git.run(["config", "--list", "-z"], b"").context("cannot read the settings")?;
    let mut config = BTreeMap::new();
    for item in split_zero(&answer) {
        let text = String::from_utf8_lossy(item);
        // A key without a value means true.
        let (key, value) = text.split_once('\n').unwrap_or((&text, "true"));
        // A remote is fetched from its first address; nothing takes those before it back.
        let is_address = remote_of(key).is_some() && !value.is_empty();
        if !(is_address && config.get(key).is_some_and(|known: &String| !known.is_empty())) {
            config.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(config)
}

fn head(git: &Git) -> Result<Head> {
    let branch = git.attempt(["symbolic-ref", "-q", "HEAD"], b"")?;
    let branch = branch
        .status
        .success()
        .then(|| String::from_utf8_lossy(&branch.answer).trim_end_matches('\n').to_owned());
    let commit = git.attempt(["rev-parse", "--verify", "-q", "HEAD^{commit}"], b"")?;
    let oid = String::from_utf8_lossy(&commit.answer).trim().to_owned();
    let commit = (commit.status.success() && is_oid(&oid)).then_some(oid);
    if branch.is_none() && commit.is_none() {
        return Err(Error::failed("HEAD names no commit").hint("'git fsck' says what is damaged"));
    }
    Ok(Head { branch, commit })
}

fn refs(git: &Git) -> Result<Vec<Ref>> {
    let form = "--format=%(objectname) %(*objectname) %(symref) %(refname)";
    let answer = git.run(["for-each-ref", form], b"").context("cannot list references")?;
    let mut refs = Vec::new();
    for line in String::from_utf8_lossy(&answer).lines() {
        // No name of a reference has a space.
        let fields: Vec<&str> = line.split(' ').collect();
        let [oid, peeled, target, name] = fields[..] else { continue };
        // One that is not UTF-8 cannot be named in a document.
        if is_oid(oid) && is_ref_name(name) && !name.contains('\u{fffd}') {
            let peeled = if is_oid(peeled) { peeled } else { oid };
            let target = is_ref_name(target).then(|| target.to_owned());
            let [name, oid, peeled] = [name, oid, peeled].map(ToOwned::to_owned);
            refs.push(Ref { name, oid, peeled, target });
        }
    }
    Ok(refs)
}

/// Says whether `name` is one that git-check-ref-format(1) allows below `refs/`.
pub(crate) fn is_ref_name(name: &str) -> bool {
    name.starts_with("refs/")
        && name.len() < 1024
        && !name.contains("..")
        && !name.contains("@{")
        && !name.bytes().any(|b| b < 0x20 || b == 0x7f || b" ~^:?*[\\".contains(&b))
        && name.split('/').count() >= 2
        && name.split('/').all(|part| {
            let ends_badly = Path::new(part).extension().is_some_and(|end| end == "lock");
            !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && !ends_badly
        })
}

/// Reads lines that each hold an object's name.
pub(crate) fn lines_of_oids(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::trim).filter(|line| is_oid(line)).map(ToOwned::to_owned).collect()
}

/// Says whether an error means that something is not there.
pub(crate) fn is_absent(error: &Error) -> bool {
    error.kind() == Kind::NotFound
}
