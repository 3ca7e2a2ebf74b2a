//! A copy of what a repository of the host's says, without its settings. Git runs in the copy: what the
//! repository sets has no effect, and of its own files git opens only objects, which were looked at before.

use crate::{
    git::{Git, split_zero},
    host::{HostGit, Sort},
    names::is_ref_name,
    temporary::Temporary,
};
use banger_doc::{Context, Error, Result};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

/// The largest file of settings.
const MAX_CONFIG: u64 = 4 << 20;
/// The most references, and the most bytes of all of them together.
const MAX_REFS: usize = 500_000;
const MAX_REF_BYTES: u64 = 128 << 20;
/// The most bytes of one file that a single reference is.
const MAX_REF: u64 = 8192;
/// The most bytes of what logs say where references were.
const MAX_LOGS: u64 = 256 << 20;

/// Settings whose effect is wanted in the copy.
const KEPT: &[&str] = &[
    "core.repositoryformatversion",
    "core.filemode",
    "core.symlinks",
    "core.ignorecase",
    "core.precomposeunicode",
    "core.autocrlf",
    "core.eol",
];
/// The same below `branch.` and `remote.`, by the last word.
const KEPT_OF_EACH: &[(&str, &[&str])] =
    &[("branch.", &["remote", "merge", "pushremote"]), ("remote.", &["url", "fetch"])];
/// Settings that name a file to read: they count from the user and the system alone.
const NAME_A_FILE: &[&str] = &["core.excludesfile", "core.attributesfile", "include.path"];

/// What a repository sets, in the order of its file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(pub(crate) Vec<(String, String)>);

impl Settings {
    /// Reads what git lists.
    pub(crate) fn listed<'a>(items: impl Iterator<Item = &'a [u8]>) -> Self {
        let items = items.map(|item| {
            let text = String::from_utf8_lossy(item);
            // A key without a value means true.
            let (key, value) = text.split_once('\n').unwrap_or((&text, "true"));
            (key.to_owned(), value.to_owned())
        });
        Self(items.collect())
    }

    /// Reads the settings of a repository, of which nothing else is opened.
    pub(crate) fn of(host: &HostGit) -> Result<Self> {
        let mut settings = Self::default();
        settings.add(host, false)?;
        if settings.is_true("extensions.worktreeconfig") {
            settings.add(host, true)?;
        }
        Ok(settings)
    }

    fn add(&mut self, host: &HostGit, is_own: bool) -> Result<()> {
        let (dir, name) =
            if is_own { (&host.git, "config.worktree") } else { (&host.common, "config") };
        let Some(bytes) = host.read_in(dir, name.as_bytes(), MAX_CONFIG)? else { return Ok(()) };
        if bytes.is_empty() {
            return Ok(());
        }
        // Outside every repository, so that it reads no other settings.
        let git = Git::at(Path::new("/")).env("GIT_DIR", "/dev/null");
        let words = ["config", "--file", "-", "--no-includes", "--list", "-z"];
        let answer = git.run(words, &bytes);
        let answer = answer.with_context(|| {
            format!("cannot read the settings in '{}'", dir.join(name.as_bytes()).display())
        })?;
        self.0.extend(Self::listed(split_zero(&answer)).0);
        Ok(())
    }

    /// Returns the value that counts.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_true(&self, key: &str) -> bool {
        let off = ["false", "no", "off", "0", ""];
        self.get(key).is_some_and(|value| !off.contains(&value.to_ascii_lowercase().as_str()))
    }

    /// Returns the first setting that says that objects are to be fetched when they are looked for.
    pub(crate) fn partial(&self) -> Option<&str> {
        let is_partial = |key: &str| {
            key == "extensions.partialclone"
                || key.starts_with("remote.")
                    && (key.ends_with(".partialclonefilter")
                        || key.ends_with(".promisor") && self.is_true(key))
        };
        self.0.iter().map(|(key, _)| key.as_str()).find(|key| is_partial(key))
    }

    /// Takes out the settings that name a file, and returns them.
    pub(crate) fn take_files(&mut self) -> Vec<(String, String)> {
        let names_a_file = |key: &str| NAME_A_FILE.contains(&key) || key.starts_with("includeif.");
        let (taken, left) =
            std::mem::take(&mut self.0).into_iter().partition(|(key, _)| names_a_file(key));
        self.0 = left;
        taken
    }

    /// Writes those that count in a copy.
    fn text(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.0 {
            let of_each = KEPT_OF_EACH.iter().any(|(start, ends)| {
                key.strip_prefix(start)
                    .and_then(|rest| rest.rsplit_once('.'))
                    .is_some_and(|(name, end)| !name.is_empty() && ends.contains(&end))
            });
            // What git does not know of these it has to refuse.
            let is_extension = key.starts_with("extensions.") && key != "extensions.worktreeconfig";
            if !of_each && !is_extension && !KEPT.contains(&key.as_str()) {
                continue;
            }
            let Some((section, rest)) = key.split_once('.') else { continue };
            let section = match rest.rsplit_once('.') {
                Some((name, _)) => format!("{section} {}", crate::names::quoted(name)),
                None => section.to_owned(),
            };
            let name = rest.rsplit_once('.').map_or(rest, |(_, name)| name);
            let _ = write!(text, "[{section}]\n\t{name} = {}\n", crate::names::quoted(value));
        }
        text
    }
}

/// The copy, gone with its value.
#[derive(Debug)]
pub(crate) struct Copy {
    dir: Temporary,
    /// What stands for the directory that belongs to the work tree.
    git_dir: PathBuf,
    /// The repository's own objects.
    objects: PathBuf,
    /// These and those of others that it reads.
    all_objects: Vec<PathBuf>,
}

impl Copy {
    /// Copies what git has to know of a repository.
    pub(crate) fn make(host: &HostGit, settings: &Settings) -> Result<Self> {
        let dir = Temporary::new()?;
        let common = dir.path().join("repo.git");
        let (git_dir, objects) = (common.clone(), common.join("objects"));
        let mut copy = Self { dir, git_dir, objects, all_objects: Vec::new() };
        for name in ["objects", "refs", "info"] {
            fs::create_dir_all(common.join(name)).context("cannot make a scratch directory")?;
        }
        write(&common.join("config"), settings.text().as_bytes())?;
        write(&common.join("HEAD"), &host.head()?)?;
        let mut left = MAX_REF_BYTES;
        copy.put(host, "packed-refs", &mut left)?;
        copy.put(host, "shallow", &mut left)?;
        copy_refs(host, &common, &mut left)?;
        if let Some(exclude) = host.read_in(&host.common, b"info/exclude", 16 << 20)? {
            write(&common.join("info/exclude"), &exclude)?;
        }
        if host.is_linked() {
            copy.git_dir = common.join("worktrees/it");
            fs::create_dir_all(&copy.git_dir).context("cannot make a scratch directory")?;
            fs::rename(common.join("HEAD"), copy.git_dir.join("HEAD"))
                .context("cannot copy HEAD")?;
            // Git takes a directory for a repository only with one.
            write(&common.join("HEAD"), b"ref: refs/heads/none\n")?;
            write(&copy.git_dir.join("commondir"), b"../..\n")?;
            copy_tables(host, &host.git, &copy.git_dir, &mut left)?;
        }
        copy_tables(host, &host.common, &common, &mut left)?;
        for name in ["ORIG_HEAD", "FETCH_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD"] {
            if let Some(bytes) = host.read_in(&host.git, name.as_bytes(), 16 << 20)? {
                write(&copy.git_dir.join(name), &bytes)?;
            }
        }
        copy.all_objects = host.objects()?;
        if let Some(first) = copy.all_objects.first() {
            copy.objects.clone_from(first);
        }
        Ok(copy)
    }

    fn put(&self, host: &HostGit, name: &str, left: &mut u64) -> Result<()> {
        if let Some(bytes) = host.read_in(&host.common, name.as_bytes(), *left)? {
            *left -= bytes.len() as u64;
            write(&self.common().join(name), &bytes)?;
        }
        Ok(())
    }

    /// Returns what stands for the directory that all work trees share.
    pub(crate) fn common(&self) -> PathBuf {
        self.dir.path().join("repo.git")
    }

    /// Returns where the repository's own objects lie.
    pub(crate) fn objects(&self) -> &Path {
        &self.objects
    }

    /// Returns a path for a file of work in progress.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns a way to call git that answers from the copy and the repository's objects.
    pub(crate) fn git(&self) -> Git {
        Git::own(&self.git_dir).env("GIT_OBJECT_DIRECTORY", &self.objects)
    }

    /// Returns a way to call git in a jail that answers from these and from `more` objects, which somebody
    /// else made.
    pub(crate) fn git_with(&self, more: &Path) -> Git {
        let seen = self.all_objects.iter().map(PathBuf::as_path);
        let seen = seen.chain([self.dir.path(), more]).filter(|dir| dir.is_dir());
        let git = self.git().env("GIT_ALTERNATE_OBJECT_DIRECTORIES", more);
        git.jailed(seen.map(Path::to_owned), None)
    }

    /// Copies what says where references were.
    pub(crate) fn add_logs(&self, host: &HostGit) -> Result<()> {
        let mut left = MAX_LOGS;
        let common = [(&host.common, self.common(), "logs/refs")];
        let own = host.read_in(&host.git, b"logs/HEAD", left)?;
        if let Some(bytes) = own {
            left -= bytes.len() as u64;
            fs::create_dir_all(self.git_dir.join("logs")).context("cannot copy logs")?;
            write(&self.git_dir.join("logs/HEAD"), &bytes)?;
        }
        for (dir, to, start) in common {
            let mut waiting = vec![start.to_owned()];
            let mut count = 0;
            while let Some(at) = waiting.pop() {
                for (name, sort) in host.list_in(dir, at.as_bytes(), MAX_REFS)? {
                    let Ok(name) = String::from_utf8(name) else { continue };
                    let path = format!("{at}/{name}");
                    let is_ref = path.strip_prefix("logs/").is_some_and(is_ref_name);
                    count += 1;
                    if !is_ref || count > MAX_REFS {
                        continue;
                    }
                    if sort == Sort::Dir {
                        waiting.push(path);
                    } else if let Some(bytes) = host.read_in(dir, path.as_bytes(), left)? {
                        left -= bytes.len() as u64;
                        let to = to.join(&path);
                        fs::create_dir_all(to.parent().unwrap_or(&to))
                            .context("cannot copy logs")?;
                        write(&to, &bytes)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Copies references that are files of their own.
fn copy_refs(host: &HostGit, to: &Path, left: &mut u64) -> Result<()> {
    let too_many = || {
        Error::failed(format!("'{}' has too many references", host.root.path().display())).hint(
            format!("{MAX_REFS} may go, of {MAX_REF_BYTES} bytes; 'git pack-refs --all' and 'git remote prune' help"),
        )
    };
    let mut seen = BTreeSet::new();
    let mut waiting = vec!["refs".to_owned()];
    while let Some(at) = waiting.pop() {
        for (name, sort) in host.list_in(&host.common, at.as_bytes(), MAX_REFS)? {
            // One that git does not take is none, and one that is not UTF-8 cannot be named in a document.
            let Ok(name) = String::from_utf8(name) else { continue };
            let path = format!("{at}/{name}");
            if path != "refs" && !is_ref_name(&path) || !seen.insert(path.clone()) {
                continue;
            }
            if seen.len() > MAX_REFS {
                return Err(too_many());
            }
            if sort == Sort::Dir {
                fs::create_dir_all(to.join(&path)).context("cannot copy references")?;
                waiting.push(path);
                continue;
            }
            if let Some(bytes) = host.read_in(&host.common, path.as_bytes(), MAX_REF)? {
                *left = left.checked_sub(bytes.len() as u64 + 256).ok_or_else(too_many)?;
                write(&to.join(&path), &bytes)?;
            }
        }
    }
    Ok(())
}

/// Copies references that are in tables (reftable).
fn copy_tables(host: &HostGit, from: &crate::host::Dir, to: &Path, left: &mut u64) -> Result<()> {
    let tables = host.list_in(from, b"reftable", 10_000)?;
    if tables.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(to.join("reftable")).context("cannot copy references")?;
    for (name, _) in tables {
        let Ok(name) = String::from_utf8(name) else { continue };
        let path = format!("reftable/{name}");
        if let Some(bytes) = host.read_in(from, path.as_bytes(), *left)? {
            *left -= bytes.len() as u64;
            write(&to.join(&path), &bytes)?;
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create(path)
        .and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("cannot write '{}'", path.display()))
}
