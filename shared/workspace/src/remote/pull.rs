//! What git brings out of a guest into a repository of the host's, and how long it counts as brought.

use crate::{
    git::{Git, is_oid, lines},
    guest::STASH,
    host::refs::{Changes, HostRefs},
    host::source::{Repository, Source},
    host::{Dir, Sort},
    names::quoted,
    path::some_of,
    remote::kept::{Keeper, common_of},
    remote::offer::Offer,
};
use banger_doc::{Context, Error, Position, Pulled, PulledRef, Result, WorkspacePull, shell_word};
use banger_state::clock_ms;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

/// How many repositories are remembered that work of one workspace was brought into.
const MAX_REPOSITORIES: usize = 16;
/// The most files of packs that are looked through.
const MAX_PACKS: usize = 100_000;
/// What begins a file beside a pack that `git gc` is to leave; the number of a process follows.
const KEEP: &str = "banger ";
/// The other name of a lock; the number of a process follows.
const LOCK: &str = "banger-lock-";
/// For how many references the commits are counted.
const MAX_COUNTED: usize = 100;

/// Opens the repository of the host's that `path` is in.
pub(crate) fn repository(path: &Path, trusted: &[PathBuf]) -> Result<Box<Repository>> {
    match Source::open(path, trusted)? {
        Source::Repository(repository) => Ok(repository),
        Source::Directory(_) => {
            Err(Error::usage(format!("'{}' is in no repository of git", path.display()))
                .hint("give a repository"))
        }
    }
}

impl Offer {
    /// Returns what a repository has to have for all that is offered to be brought.
    fn tips(&self) -> BTreeSet<String> {
        self.refs.values().chain(&self.stash).chain(&self.wip).cloned().collect()
    }

    /// Returns a folder without objects, for git in a jail that needs none but a repository's own.
    fn nothing(&self) -> Result<PathBuf> {
        let nothing = self.brought.scratch.path().join("nothing");
        fs::create_dir_all(&nothing).context("cannot make a scratch directory")?;
        Ok(nothing)
    }

    /// Has the repository of the host's that `path` is in keep what it has of this, which then counts as
    /// brought; nothing of it is fetched by this.
    pub fn keep(&mut self, path: &Path, trusted: &[PathBuf], keeper: &Keeper) -> Result<()> {
        let repository = repository(path, trusted)?;
        self.keep_in(&repository, keeper, Changes::new())?;
        release(&repository);
        Ok(())
    }

    fn keep_in(&mut self, repository: &Repository, keeper: &Keeper, more: Changes) -> Result<()> {
        let git = repository.git_with(&self.nothing()?);
        let present = present(&git, &self.tips())?;
        let mut kept = BTreeSet::new();
        if is_whole(&git, &present)? {
            kept = present;
        } else {
            for tip in present {
                let alone = BTreeSet::from([tip]);
                if is_whole(&git, &alone)? {
                    kept.extend(alone);
                }
            }
        }
        let names: BTreeMap<String, String> =
            kept.iter().map(|oid| (format!("{}{oid}", keeper.below()), oid.clone())).collect();
        // Before there is any of them, so that none is forgotten.
        let references: BTreeSet<String> = names.keys().cloned().collect();
        if !references.is_empty() {
            keeper.note(&self.record.guest_path, repository, &references)?;
        }
        let refs = HostRefs::open(&repository.host.common, &repository.format)?;
        let there = refs.list(&keeper.below())?;
        let mut changes = more;
        changes.extend(
            names
                .into_iter()
                .filter(|(name, _)| !there.contains_key(name))
                .map(|(name, oid)| (name, Some(oid))),
        );
        refs.change(&changes)?;
        self.write_down(common_of(repository)?, references.into_iter().collect(), &kept)
    }

    /// Writes into the record what of the guest's a repository has.
    fn write_down(
        &mut self,
        repository: String,
        references: Vec<String>,
        kept: &BTreeSet<String>,
    ) -> Result<()> {
        let is_kept = |oid: &String| kept.contains(oid);
        let has_wip = self.wip.as_ref().is_none_or(is_kept);
        let has_head = self.head.as_ref().is_none_or(is_kept);
        let has_stash = !self.stash.is_empty() && self.stash.iter().all(is_kept);
        let refs = self.position.refs.iter().filter(|(name, oid)| match name.as_str() {
            STASH => has_stash,
            _ => kept.contains(*oid),
        });
        let has_all = has_head && has_wip;
        let position = Position {
            head: if has_head { self.position.head.clone() } else { String::new() },
            refs: refs.map(|(name, oid)| (name.clone(), oid.clone())).collect(),
            index_sha256: if has_all && self.has_index {
                self.position.index_sha256.clone()
            } else {
                String::new()
            },
        };
        let tree = self.tree.clone().filter(|_| has_all);
        let unix_ms = clock_ms();
        let pulled = Pulled { repository, references, position, tree, unix_ms };
        self.record.pulled.retain(|known| known.repository != pulled.repository);
        self.record.pulled.insert(0, pulled);
        self.record.pulled.truncate(MAX_REPOSITORIES);
        self.folder.write(&self.record)
    }

    /// Brings all of it into the repository of the host's that `path` is in: as branches of the remote that is
    /// called as the VM is, which is added if there is none.
    pub fn pull(
        &mut self,
        path: &Path,
        trusted: &[PathBuf],
        keeper: &Keeper,
        url: &str,
    ) -> Result<WorkspacePull> {
        let repository = repository(path, trusted)?;
        self.must_fit(&repository)?;
        let remote = keeper.vm.as_str();
        let remote_added = add_remote(&repository, remote, url)?;
        let installed = self.install(&repository, &self.tips(), false)?;
        let below = format!("refs/remotes/{remote}/");
        let refs = HostRefs::open(&repository.host.common, &repository.format)?;
        let before = refs.list(&below)?;
        let mut after = BTreeMap::new();
        for (name, oid) in &self.refs {
            let name = ["refs/heads/", "refs/banger/"].iter().find_map(|s| name.strip_prefix(s));
            if let Some(name) = name {
                after.insert(format!("{below}{name}"), oid.clone());
            }
        }
        let mut changes: Changes = after
            .iter()
            .filter(|(name, oid)| before.get(*name) != Some(oid))
            .map(|(name, oid)| (name.clone(), Some(oid.clone())))
            .collect();
        // What only banger has names for goes when the guest has no such thing any more; branches stay, as they
        // do for git.
        let gone = before.keys().filter(|name| !after.contains_key(*name) && is_own(name, &below));
        changes.extend(gone.map(|name| (name.clone(), None)));
        let changed = self.changed(&repository, &before, &changes)?;
        let kept = self.keep_in(&repository, keeper, changes);
        drop(installed);
        release(&repository);
        kept.map_err(|error| {
            error.or_hint(format!(
                "'git remote prune {}' removes branches that are gone",
                shell_word(remote)
            ))
        })?;
        let short = |name: &str| name.trim_start_matches("refs/remotes/").to_owned();
        let wip = self.wip.as_ref().and_then(|wip| {
            self.refs.iter().find(|(name, oid)| *oid == wip && name.starts_with("refs/banger/"))
        });
        let wip = wip.map(|(name, _)| name.replacen("refs/banger/", &short(&below), 1));
        Ok(WorkspacePull {
            vm: keeper.vm.clone(),
            host_path: repository.root.display().to_string(),
            remote: remote.to_owned(),
            remote_added,
            changed,
            wip,
            notes: self.notes.iter().cloned().chain(self.lies_there(&repository, remote)).collect(),
        })
    }

    /// Says which untracked files of the guest's git does not put into a checkout, since something lies there.
    fn lies_there(&self, repository: &Repository, vm: &str) -> Option<String> {
        let lies = |path: &&Vec<u8>| !matches!(repository.host.root.sort(path), Ok(None));
        let paths: Vec<&[u8]> = self.untracked.iter().filter(lies).map(Vec::as_slice).collect();
        (!paths.is_empty()).then(|| {
            format!(
                "'git stash apply' stops at untracked files that lie on the host already {}: 'banger workspace \
                 apply {}' takes these too",
                some_of(paths.iter().copied(), paths.len(), 4),
                shell_word(vm)
            )
        })
    }

    /// Says what a pull changes.
    fn changed(
        &self,
        repository: &Repository,
        before: &BTreeMap<String, String>,
        changes: &Changes,
    ) -> Result<Vec<PulledRef>> {
        let git = repository.git_with(&self.nothing()?);
        let mut changed = Vec::new();
        for (name, after) in changes {
            let before = before.get(name).cloned();
            let mut commits = None;
            if let Some(oid) = after.as_ref().filter(|_| changed.len() < MAX_COUNTED) {
                let words = ["rev-list", "--count", oid, "--not", "--all", "--"];
                commits = git.text(words).ok().and_then(|count| count.parse().ok());
            }
            let name = name.trim_start_matches("refs/remotes/").to_owned();
            changed.push(PulledRef { name, before, after: after.clone(), commits });
        }
        Ok(changed)
    }

    /// Puts what these offered objects lead to into the repository of the host's that `path` is in. Returns
    /// files there that have to go once references name them; they keep `git gc` from taking them for garbage.
    pub fn fetch(
        &self,
        path: &Path,
        trusted: &[PathBuf],
        wanted: &BTreeSet<String>,
    ) -> Result<Vec<PathBuf>> {
        let offered = self.tips();
        if let Some(other) = wanted.iter().find(|oid| !offered.contains(*oid)) {
            return Err(Error::not_found(format!("the guest has no '{}'", other.escape_debug())));
        }
        let repository = repository(path, trusted)?;
        self.must_fit(&repository)?;
        self.install(&repository, wanted, true)
    }

    fn must_fit(&self, repository: &Repository) -> Result<()> {
        if repository.format == self.record.object_format {
            return Ok(());
        }
        Err(Error::usage(format!(
            "'{}' has objects of format {}, the guest's repository of {}",
            repository.root.display(),
            repository.format,
            self.record.object_format
        ))
        .hint("take the repository that was prepared, or a clone of it"))
    }

    /// Puts the objects that a repository of the host's lacks there, as one pack of what was checked. One that
    /// is empty may get its history from where the guest does.
    fn install(
        &self,
        repository: &Repository,
        tips: &BTreeSet<String>,
        may_cut: bool,
    ) -> Result<Vec<PathBuf>> {
        let out = self.brought.scratch.path().join("out");
        crate::temporary::remove(&out)?;
        fs::create_dir(&out).context("cannot make a scratch directory")?;
        if is_whole(&repository.git_with(&out), tips)? {
            return Ok(Vec::new());
        }
        let there = repository.refs.iter().map(|known| &known.oid);
        let there = there.filter(|oid| self.brought.whole.contains(*oid)).cloned();
        let mut known = crate::remote::bring::known(&self.store, &self.record)?;
        known.extend(there);
        // The host's repository may have lost what the guest was given.
        for known in [known, BTreeSet::new()] {
            let name = self.pack_to(&out, tips, &known)?;
            if is_whole(&repository.git_with(&out), tips)? {
                return name.map_or(Ok(Vec::new()), |name| place_pack(repository, &out, &name));
            }
        }
        let cut = self.store.history().shallow;
        let is_fresh = repository.refs.is_empty() && repository.head.commit.is_none();
        if !may_cut || !is_fresh || cut.is_empty() || !repository.shallow.is_empty() {
            return Err(Error::failed(format!(
                "'{}' lacks commits that the guest's begin from",
                repository.root.display()
            ))
            .hint("take the repository that was prepared, or a clone of it"));
        }
        let name = self.pack_to(&out, tips, &BTreeSet::new())?;
        let keep = name.map_or(Ok(Vec::new()), |name| place_pack(repository, &out, &name))?;
        let common = &repository.host.common;
        replace_locked(&common.join(b"shallow"), lines(&cut).as_bytes())
            .context("cannot say where the history was cut")?;
        Ok(keep)
    }

    /// Makes a pack in `out` of what these lead to and of nothing that those do; says its name.
    fn pack_to(
        &self,
        out: &Path,
        tips: &BTreeSet<String>,
        known: &BTreeSet<String>,
    ) -> Result<Option<String>> {
        crate::temporary::remove(out)?;
        fs::create_dir_all(out.join("pack")).context("cannot make a scratch directory")?;
        let asked = known.iter().fold(lines(tips), |text, oid| text + "^" + oid + "\n");
        let base = out.join("pack/pack");
        let words = ["pack-objects", "--revs", "--delta-base-offset", "--non-empty", "-q"];
        let words = words.iter().map(AsRef::as_ref).chain([base.as_os_str()]);
        let git = self.brought.git(&self.store).set("core.bigFileThreshold=64m");
        let name = git.run(words, asked.as_bytes())?;
        let name = String::from_utf8_lossy(&name).trim().to_owned();
        Ok(Some(name).filter(|name| is_oid(name)))
    }
}

/// Says whether a reference below the remote's stands for what git has none to.
fn is_own(name: &str, below: &str) -> bool {
    let name = name.strip_prefix(below).unwrap_or_default();
    let first = name.split('/').next().unwrap_or_default();
    let plain = first.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
    matches!(plain, "wip" | "detached" | "stash")
}

/// Returns those of `oids` that are there.
fn present(git: &Git, oids: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    if oids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let answer = git.run(["cat-file", "--batch-check"], lines(oids).as_bytes())?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let there = answer.lines().filter(|line| !line.ends_with(" missing"));
    Ok(there.filter_map(|line| line.split(' ').next()).map(ToOwned::to_owned).collect())
}

/// Says whether all that these lead to is there; what the repository's own references lead to is.
fn is_whole(git: &Git, tips: &BTreeSet<String>) -> Result<bool> {
    if tips.is_empty() {
        return Ok(true);
    }
    let words = ["rev-list", "--objects", "--quiet", "--stdin", "--not", "--all"];
    Ok(git.attempt(words, lines(tips).as_bytes())?.status.success())
}

/// Gives a repository a pack that was made in `out`, so that it is there whole or not at all. A file beside it
/// keeps `git gc` from taking it for garbage before a reference names what it holds.
fn place_pack(repository: &Repository, out: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let objects = Dir::open(repository.objects())?;
    let dir = objects.join(b"pack");
    let said = || format!("cannot write to '{}'", dir.display());
    match objects.sort(b"pack").with_context(said)? {
        Some(Sort::Dir) => {}
        None => fs::create_dir(&dir).with_context(said)?,
        Some(_) => {
            return Err(
                Error::failed(format!("'{}' is no directory", dir.display())).hint("move it away")
            );
        }
    }
    let keep = dir.join(format!("pack-{name}.keep"));
    let write = || -> std::io::Result<()> {
        let target = |end: &str| dir.join(format!("pack-{name}.{end}"));
        if target("idx").exists() {
            return Ok(());
        }
        match File::create_new(&keep) {
            Ok(mut file) => file.write_all(format!("{KEEP}{}\n", std::process::id()).as_bytes())?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        // The list is last: without it git sees no pack.
        for end in ["pack", "idx"] {
            let from = out.join(format!("pack/pack-{name}.{end}"));
            // `git gc` removes files of such a name that a killed program left.
            let temporary = dir.join(format!("tmp_{end}_banger{}", std::process::id()));
            let copied = copy(&from, &temporary).and_then(|()| fs::rename(&temporary, target(end)));
            if copied.is_err() {
                let _ = fs::remove_file(&temporary);
                let _ = fs::remove_file(&keep);
            }
            copied?;
        }
        File::open(&dir)?.sync_all()
    };
    write().with_context(said)?;
    Ok(vec![keep])
}

/// Removes what keeps packs of banger's from being garbage, of this program and of those that were killed.
pub(crate) fn release(repository: &Repository) {
    let common = repository.host.common.path();
    remove_abandoned(common, &common.join("config.lock"));
    let Ok(objects) = Dir::open(repository.objects()) else { return };
    for (name, _) in objects.list(b"pack", MAX_PACKS).unwrap_or_default() {
        let path = [&b"pack/"[..], &name].concat();
        let Some(text) = Some(&path).filter(|path| path.ends_with(b".keep")).and_then(|path| {
            let file = objects.file(path).ok()?;
            String::from_utf8(crate::host::read(&file, 100, &objects.join(path)).ok()?).ok()
        }) else {
            continue;
        };
        let pid = text.strip_prefix(KEEP).and_then(|pid| pid.trim().parse().ok());
        if pid.is_some_and(|pid| pid == std::process::id() || !is_alive(pid)) {
            let _ = fs::remove_file(objects.join(&path));
        }
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut target = File::options().write(true).create_new(true).mode(0o444).open(to)?;
    std::io::copy(&mut File::open(from)?, &mut target)?;
    target.sync_data()
}

/// Adds the remote, unless it is there; says whether it did. One of that name that is of somebody else is
/// refused.
fn add_remote(repository: &Repository, name: &str, url: &str) -> Result<bool> {
    if let Some(known) = repository.setting(&format!("remote.{name}.url")) {
        // The address of the only workspace serves while it is that.
        if known == url || url.strip_prefix(known).is_some_and(|rest| rest.starts_with(':')) {
            return Ok(false);
        }
        return Err(Error::conflict(format!(
            "'{}' has a remote '{name}' already, '{}'",
            repository.root.display(),
            known.escape_debug()
        ))
        .hint(format!(
            "'git remote rename {} NAME' gives that one another name",
            shell_word(name)
        )));
    }
    let common = &repository.host.common;
    let at = common.join(b"config");
    let said = || format!("cannot add a remote in '{}'", at.display());
    let bytes = match common.file(b"config") {
        Ok(file) => crate::host::read(&file, 4 << 20, &at)?,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(said),
    };
    let section = format!(
        "[remote {}]\n\turl = {}\n\tfetch = {}\n\tfetch = {}\n\ttagOpt = --no-tags\n",
        quoted(name),
        quoted(url),
        quoted(&format!("+refs/heads/*:refs/remotes/{name}/*")),
        quoted(&format!("+refs/banger/*:refs/remotes/{name}/*")),
    );
    let newline: &[u8] = if bytes.is_empty() || bytes.ends_with(b"\n") { b"" } else { b"\n" };
    replace_locked(&at, &[&bytes, newline, section.as_bytes()].concat()).with_context(said)?;
    Ok(true)
}

/// Replaces a small file of a git directory as git does: who has the lock beside it may write. The lock
/// appears whole, and one that a killed program of banger's left is told by its other name.
fn replace_locked(at: &Path, bytes: &[u8]) -> Result<()> {
    let mut lock = at.to_owned();
    lock.as_mut_os_string().push(".lock");
    let dir = at.parent().unwrap_or(at);
    let own = dir.join(format!("{LOCK}{}", std::process::id()));
    let said = || format!("cannot write '{}'", lock.display());
    let mode = fs::metadata(at).map(|meta| meta.permissions());
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&own)?;
        file.write_all(bytes)?;
        mode.map_or(Ok(()), |mode| file.set_permissions(mode))?;
        file.sync_data()
    };
    let locked = write().and_then(|()| match fs::hard_link(&own, &lock) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            remove_abandoned(dir, &lock);
            fs::hard_link(&own, &lock)
        }
        done => done,
    });
    let done = locked.and_then(|()| {
        fs::rename(&lock, at).inspect_err(|_| {
            let _ = fs::remove_file(&lock);
        })
    });
    let _ = fs::remove_file(&own);
    done.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Error::conflict(said()).because(error).hint(format!(
            "another git is at work; if none is, 'rm {}' removes what it left",
            shell_word(&lock)
        )),
        _ => Error::failed(said()).because(error),
    })
}

/// Removes a lock of a program of banger's that was killed, and the other name that it has.
fn remove_abandoned(dir: &Path, lock: &Path) {
    use std::os::unix::fs::MetadataExt;
    let which = |path: &Path| fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let held = which(lock);
    let Ok(entries) = Dir::open(dir)
        .and_then(|dir| dir.list(b"", MAX_PACKS).context("cannot list a git directory"))
    else {
        return;
    };
    for (name, _) in entries {
        let Ok(name) = String::from_utf8(name) else { continue };
        let pid = name.strip_prefix(LOCK).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| !is_alive(pid)) {
            let path = dir.join(&name);
            if which(&path) == held {
                let _ = fs::remove_file(lock);
            }
            let _ = fs::remove_file(path);
        }
    }
}
