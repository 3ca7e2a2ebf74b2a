//! Looking at what is to go into a VM, without changing a byte of it. Whoever wrote it is not trusted.

use crate::{
    git::{self, Git, is_oid, split_zero},
    host::attributes::attributes_are_files,
    host::copy::{Copy, Settings},
    host::index::{self, Index},
    host::{self, Dir, HostGit, Trusted},
    names::{is_ref_name, remote_of},
    temporary::Temporary,
};
use banger_doc::{Context, Error, Kind, Result, shell_word};
use banger_state::read_limited;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The largest index of a repository that is read.
const MAX_FILE: u64 = 512 << 20;
/// The largest small file.
const MAX_SMALL: u64 = 16 << 20;

/// What is to go into a VM.
#[derive(Debug)]
pub(crate) enum Source {
    /// A repository with a work tree.
    Repository(Box<Repository>),
    /// A directory without git.
    Directory(Dir),
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
    /// Its directories.
    pub(crate) host: HostGit,
    /// What git is asked in its place.
    copy: Copy,
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
    /// What the user is to know of its settings.
    pub(crate) notes: Vec<String>,
    /// Whether its own settings name a list of what to ignore, which is not read.
    pub(crate) has_own_excludes: bool,
}

impl Source {
    /// Looks at `path`, which may be anywhere inside a work tree. `trusted` are directories of git's outside
    /// that its repository may lead to.
    pub(crate) fn open(path: &Path, trusted: &[PathBuf]) -> Result<Self> {
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
        let trusted = Trusted::open(trusted)?;
        match host::find(&path)? {
            Some(root) => {
                must_be_on_one_disk(&path, root)?;
                let host = HostGit::open(root, &trusted)?;
                Ok(Self::Repository(Box::new(Repository::open(host)?)))
            }
            None => Ok(Self::Directory(Dir::open(&path)?)),
        }
    }

    /// Returns the directory that holds the files.
    pub(crate) fn root(&self) -> &Path {
        match self {
            Self::Repository(repository) => &repository.root,
            Self::Directory(dir) => dir.path(),
        }
    }
}

impl Repository {
    pub(crate) fn open(host: HostGit) -> Result<Self> {
        let root = host.root.path().to_owned();
        let mut settings = Settings::of(&host)?;
        if let Some(key) = settings.partial() {
            let remote = key.strip_prefix("remote.").and_then(|rest| rest.rsplit_once('.'));
            let remote = remote.map_or("origin", |(name, _)| name);
            return Err(Error::usage(format!(
                "'{}' is a partial clone ('{}'): objects it lacks would have to be fetched",
                root.display(),
                key.escape_debug()
            ))
            .hint(format!(
                "'git fetch --refetch --no-filter {}' and 'git config --unset-all {}' make it a whole one",
                shell_word(remote),
                shell_word(key)
            )));
        }
        host.check_work_tree(settings.get("core.worktree"), settings.is_true("core.bare"))?;
        let files = settings.take_files();
        let copy = Copy::make(&host, &settings)?;
        accepted(&host, &copy)?;
        let format = copy.git().text(["rev-parse", "--show-object-format"])?;
        let oid_len = match format.as_str() {
            "sha1" => 20,
            "sha256" => 32,
            other => {
                return Err(Error::failed(format!("objects of format '{other}' are not known")));
            }
        };
        let config = config(&host, &copy, settings)?;
        let head = head(&host, &copy.git())?;
        let refs = refs(&copy.git())?;
        let shallow = host.read_in(&host.common, b"shallow", MAX_FILE)?;
        let shallow = shallow.map(|bytes| lines_of_oids(&bytes)).unwrap_or_default();
        let mut index_mtime = (0, 0);
        let mut index_bytes = Vec::new();
        let mut index = Index::default();
        if let Some(file) = host.file_in(&host.git, b"index")? {
            let path = host.git.join(b"index");
            let meta =
                file.metadata().with_context(|| format!("cannot look at '{}'", path.display()))?;
            index_mtime = (meta.mtime(), meta.mtime_nsec());
            index_bytes = host::read(&file, MAX_FILE, &path)?;
            if !index_bytes.is_empty() {
                index = index::parse(&index_bytes, oid_len, index::MOST_OF_HOST)
                    .with_context(|| format!("cannot read '{}'", path.display()))?;
            }
        }
        let has_own_excludes = files.iter().any(|(key, _)| key == "core.excludesfile");
        let notes = files.iter().map(|(key, value)| {
            format!(
                "'{key}' of the repository names '{}', which is not read; it counts from your own settings",
                value.escape_debug()
            )
        });
        let mut repository = Self {
            notes: notes.collect(),
            root,
            host,
            copy,
            format,
            head,
            config,
            refs,
            shallow,
            index,
            index_bytes,
            index_mtime,
            has_own_excludes,
        };
        if repository.index.is_partial {
            repository.make_index_whole(oid_len)?;
        }
        Ok(repository)
    }

    /// Replaces what was read of a split or sparse index by a whole one, made in a repository of
    /// banger's: git would touch trees and shared indexes in the one it reads.
    fn make_index_whole(&mut self, oid_len: usize) -> Result<()> {
        let dir = Temporary::new()?;
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
            if let Some(oid) = &self.index.shared {
                let name = format!("sharedindex.{oid}");
                let bytes = self.host.read_in(&self.host.git, name.as_bytes(), MAX_FILE)?;
                fs::write(own.join(name), bytes.unwrap_or_default())
                    .context("cannot copy the shared index")?;
            }
            let words = ["update-index", "--no-split-index", "--force-write-index"];
            git.run(words, b"").context("cannot make a whole index of a split one")?;
        }
        self.index_bytes = read_limited(&copy, MAX_FILE)?;
        self.index = index::parse(&self.index_bytes, oid_len, index::MOST_OF_HOST)?;
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
            if entry.mode == git::DIR {
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
        let paths = self.index.entries.iter().map(|entry| entry.path.as_slice());
        attributes_are_files(&self.host.root, paths)?;
        // Files that differ make it say so by its status. What lies in submodules is none of its business.
        git.attempt(["update-index", "-q", "--refresh", "--ignore-submodules"], b"").map(drop)
    }

    /// Returns a way to call git on what it says, with nothing of its configuration.
    pub(crate) fn git(&self) -> Git {
        self.copy.git()
    }

    /// Returns the same in a jail, with `more` objects, which somebody else made.
    pub(crate) fn git_with(&self, more: &Path) -> Git {
        self.copy.git_with(more)
    }

    /// Returns where its objects lie, all of which were looked at.
    pub(crate) fn objects(&self) -> &Path {
        self.copy.objects()
    }

    /// Returns a path for a file of work in progress, which goes with this value.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.copy.scratch(name)
    }

    /// Returns the value of a setting.
    pub(crate) fn setting(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(String::as_str)
    }

    /// Reads a small file that belongs to this work tree, or else to all of them.
    pub(crate) fn small_file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match self.host.read_in(&self.host.git, name.as_bytes(), MAX_SMALL)? {
            Some(bytes) => Ok(Some(bytes)),
            None => self.host.read_in(&self.host.common, name.as_bytes(), MAX_SMALL),
        }
    }

    /// Reads a small file that belongs to this work tree.
    pub(crate) fn own_file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.host.read_in(&self.host.git, name.as_bytes(), MAX_SMALL)
    }

    /// Says whether something of this name lies where this work tree's own things do.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.host.git.sort(name.as_bytes()).is_ok_and(|sort| sort.is_some())
    }

    /// Returns the commit that `name` means to the user.
    pub(crate) fn resolve(&self, name: &str) -> Result<String> {
        if name.contains("@{") || name.starts_with("stash") {
            self.copy.add_logs(&self.host)?;
        }
        let full = format!("{name}^{{commit}}");
        let words = ["rev-parse", "--verify", "--quiet", "--end-of-options", &full];
        let ended = self.git().attempt(words, b"")?;
        let oid = String::from_utf8_lossy(&ended.answer).trim().to_owned();
        if ended.status.success() && is_oid(&oid) {
            return Ok(oid);
        }
        Err(Error::not_found(format!("no commit '{name}' in '{}'", self.root.display()))
            .hint("'git log --all --oneline' shows what is there"))
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

/// Fails where git would not look so far up for a repository.
fn must_be_on_one_disk(path: &Path, root: &Path) -> Result<()> {
    let disk = |dir: &Path| fs::metadata(dir).map(|meta| meta.dev()).ok();
    if disk(path) == disk(root) {
        return Ok(());
    }
    Err(Error::failed(format!("cannot use '{}'", path.display()))
        .because(format!("'{}', which has a '.git', is on another file system", root.display()))
        .hint(format!(
            "give {} itself, or a directory without a '.git' above it",
            shell_word(root)
        )))
}

/// Fails unless git takes the repository for one, and for one of somebody it trusts.
fn accepted(host: &HostGit, copy: &Copy) -> Result<()> {
    let root = host.root.path();
    // Its settings are not read for that.
    let mut git = Git::as_user(root)
        .env("GIT_COMMON_DIR", copy.common())
        .env("GIT_OBJECT_DIRECTORY", copy.common().join("objects"));
    if let Some(above) = root.parent() {
        git = git.env("GIT_CEILING_DIRECTORIES", above);
    }
    let ended = git.attempt(["rev-parse", "--absolute-git-dir"], b"")?;
    if ended.status.success() {
        return Ok(());
    }
    Err(Error::failed(format!("cannot use '{}'", root.display()))
        .because(git::said(&ended))
        .hint(format!("'git -C {} status' shows what git thinks of it", shell_word(root))))
}

/// Returns what the user and the system set, and then what the repository does.
fn config(host: &HostGit, copy: &Copy, own: Settings) -> Result<BTreeMap<String, String>> {
    let git = Git::as_user(host.root.path())
        .env("GIT_DIR", host.git.path())
        .env("GIT_COMMON_DIR", copy.common())
        .env("GIT_OBJECT_DIRECTORY", copy.common().join("objects"));
    let words = ["config", "--show-scope", "--includes", "--list", "-z"];
    let answer = git.run(words, b"").context("cannot read your settings")?;
    let parts: Vec<&[u8]> = answer.split(|byte| *byte == 0).collect();
    let users = parts.chunks_exact(2);
    let users = users.filter(|part| matches!(part[0], b"system" | b"global")).map(|part| part[1]);
    let mut config = BTreeMap::new();
    for (key, value) in Settings::listed(users).0.into_iter().chain(own.0) {
        // A remote is fetched from its first address; nothing takes those before it back.
        let is_address = remote_of(&key).is_some() && !value.is_empty();
        if !(is_address && config.get(&key).is_some_and(|known: &String| !known.is_empty())) {
            config.insert(key, value);
        }
    }
    Ok(config)
}

fn head(host: &HostGit, git: &Git) -> Result<Head> {
    let text = host.head()?;
    if text.trim_ascii_end() == b"ref: refs/heads/.invalid" {
        // A clone that is being made has no branch yet.
        return Ok(Head { branch: Some("refs/heads/.invalid".into()), commit: None });
    }
    let branch = git.attempt(["symbolic-ref", "-q", "HEAD"], b"")?;
    let branch = branch
        .status
        .success()
        .then(|| String::from_utf8_lossy(&branch.answer).trim_end_matches('\n').to_owned());
    let commit = git.attempt(["rev-parse", "--verify", "-q", "HEAD^{commit}"], b"")?;
    let oid = String::from_utf8_lossy(&commit.answer).trim().to_owned();
    let commit = (commit.status.success() && is_oid(&oid)).then_some(oid);
    if branch.is_none() && commit.is_none() {
        // This one says why.
        let why = git.attempt(["rev-list", "-1", "HEAD", "--"], b"")?;
        return Err(Error::failed("HEAD names no commit")
            .because(git::said(&why))
            .hint("'git fsck' says what is damaged"));
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

/// Reads lines that each hold an object's name.
pub(crate) fn lines_of_oids(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::trim).filter(|line| is_oid(line)).map(ToOwned::to_owned).collect()
}

/// Says whether an error means that something is not there.
pub(crate) fn is_absent(error: &Error) -> bool {
    error.kind() == Kind::NotFound
}
