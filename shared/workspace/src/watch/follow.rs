//! Following a host: what is known of both sides, and the ways to bring one to the other.

use super::{
    bring::{self, Brought, Way, bring, differing},
    listen::{Heard, Listener},
    mark::mark,
    session::Session,
    survey::{Survey, dirs_above},
};
use crate::{
    guest::How,
    host::source::{Source, is_absent},
    prepare::plan::{has_git, seen},
    prepare::wish::Wish,
    prepare::{Attempt, attempt, kept_branch, taking},
    record::given::{Seen, Tree},
    record::prepared::no_workspace,
    record::store::Store,
    record::{self, BUSY, Folder},
};
use banger_channel::files::Files;
use banger_doc::{AllowedFile, Error, Kind, Result, Workspace};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What a git has in a `.git` that it changes, and how long that is waited for.
const GIT_LOCK: &str = "index.lock";
pub(super) const LOCKED: Duration = Duration::from_secs(30);
/// How often a prepare is tried that meets a host which changes, and the pause between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// What the user allows a workspace that is followed.
pub struct Leave<'a> {
    /// What the VM is called.
    pub vm: String,
    /// Patterns of untracked and ignored files that go, by the configuration.
    pub configured_include: Vec<String>,
    /// Directories of git's that every repository of the host's may lead to.
    pub configured: Vec<PathBuf>,
    /// Returns the files below a root that the user said yes to.
    pub allowed: &'a dyn Fn(&Path) -> Vec<AllowedFile>,
}

impl std::fmt::Debug for Leave<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leave").field("configured", &self.configured).finish_non_exhaustive()
    }
}

/// What came of a step.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) brought: Brought,
    /// Whether HEAD, references and index went along.
    pub(super) git: bool,
    /// What the user is to know.
    pub(super) notes: Vec<String>,
}

/// A host and a guest, one of which follows the other.
pub(super) struct Follower<'a> {
    dir: &'a Path,
    leave: &'a Leave<'a>,
    wish: Wish,
    pub(super) listener: Listener,
    survey: Survey,
    session: Session,
    mark: String,
    /// The root when it was first looked at: device and inode.
    root_is: (u64, u64),
    /// Whether the guest's own work keeps git's state from following.
    is_behind: bool,
    /// Locks of gits that were waited for in vain.
    stale_locks: Vec<Seen>,
    has_told_of_untracked: bool,
    unread: BTreeSet<Vec<u8>>,
    /// What the guest changed itself and keeps.
    left: BTreeSet<Vec<u8>>,
}

impl<'a> Follower<'a> {
    /// Begins to listen, and only then brings what is new.
    pub(super) fn begin(
        dir: &'a Path,
        leave: &'a Leave<'a>,
        files: &Files<'_>,
    ) -> Result<(Self, Done)> {
        let folder = Folder::open(dir, files.budget().left()?)?;
        let session = Session::read(&folder)?;
        drop(folder);
        let wish = wish(&session.record, leave);
        let host = PathBuf::from(&session.record.host_path);
        let root_is = identity(&host).ok_or_else(|| gone(&host))?;
        let source = open(&host, &wish)?;
        is_followed(&source, &session.record, &wish)?;
        let store = Store::open(dir, &session.record.object_format)?;
        let survey = survey(source, &wish, &session, &store)?;
        let mut follower = Self {
            dir,
            leave,
            wish,
            listener: Listener::new()?,
            survey,
            session,
            mark: String::new(),
            root_is,
            is_behind: false,
            stale_locks: Vec::new(),
            has_told_of_untracked: false,
            unread: BTreeSet::new(),
            left: BTreeSet::new(),
        };
        follower.listen()?;
        let done = follower.prepare_again(files)?;
        Ok((follower, done))
    }

    /// Returns the record as it is now.
    pub(super) fn record(&self) -> &Workspace {
        &self.session.record
    }

    /// Says whether git is at work in the repository: what it does is not whole yet.
    pub(super) fn git_is_busy(&self) -> bool {
        self.git_lock().is_some()
    }

    /// Takes git's lock for one that a killed git left; says so.
    pub(super) fn wait_for_git_no_more(&mut self) -> Option<String> {
        let (path, lock) = self.git_lock()?;
        self.stale_locks.push(lock);
        Some(format!(
            "'{}' has been there for {} s and is waited for no more; remove it if no git is at work",
            path.display(),
            LOCKED.as_secs()
        ))
    }

    fn git_lock(&self) -> Option<(PathBuf, Seen)> {
        self.survey.repositories().find_map(|repository| {
            let path = repository.host.git.join(GIT_LOCK.as_bytes());
            let lock = seen(&fs::symlink_metadata(&path).ok()?);
            (!self.stale_locks.contains(&lock)).then_some((path, lock))
        })
    }

    /// Says whether one of these paths is absent, as between the two steps by which editors save.
    pub(super) fn lacks_any(&self, paths: &BTreeSet<Vec<u8>>) -> bool {
        let is_given = |path: &&Vec<u8>| self.session.tree.contains_key(*path);
        let mut given = paths.iter().filter(is_given).take(100);
        given.any(|path| !self.survey.root.sort(path).is_ok_and(|sort| sort.is_some()))
    }

    /// Fails unless the root is the directory that it was.
    pub(super) fn root_is_there(&self) -> Result<()> {
        let root = Path::new(&self.session.record.host_path);
        if identity(root) == Some(self.root_is) { Ok(()) } else { Err(gone(root)) }
    }

    /// Brings what was heard.
    pub(super) fn follow(&mut self, files: &Files<'_>, heard: &mut Heard) -> Result<Done> {
        self.root_is_there()?;
        if std::mem::take(&mut heard.git) {
            let now = mark(self.survey.repositories())?;
            if now != self.mark {
                let done = self.prepare_again(files);
                if done.is_err() {
                    // What failed is to be done again: what is known of the host may be older than what the guest has.
                    heard.git = true;
                    self.mark.clear();
                }
                return done;
            }
        }
        let changes_rules = |path: &Vec<u8>| self.survey.is_rules(path);
        if heard.overflow || heard.changed.iter().any(changes_rules) {
            // A look finds all of it.
            heard.changed.clear();
            heard.dirs.clear();
            let done = self.look_again(files);
            heard.overflow = done.is_err();
            return done;
        }
        let mut paths = std::mem::take(&mut heard.changed);
        let dirs = std::mem::take(&mut heard.dirs);
        let done = self.add_below(&dirs, &mut paths).and_then(|()| self.bring(files, &paths));
        if done.is_err() {
            heard.changed.extend(paths);
            heard.dirs.extend(dirs);
        }
        done
    }

    /// Adds what lies in directories that came, and what lay in those that went.
    fn add_below(&mut self, dirs: &BTreeSet<Vec<u8>>, paths: &mut BTreeSet<Vec<u8>>) -> Result<()> {
        for dir in dirs {
            let inside = [dir.as_slice(), b"/"].concat();
            let known = self.session.tree.range(inside.clone()..);
            let known = known.take_while(|(path, _)| path.starts_with(&inside));
            paths.extend(known.map(|(path, _)| path.clone()));
            // What comes while nobody listens yet is found by the look after that.
            loop {
                let (found, inner) = self.survey.below(dir)?;
                paths.extend(found);
                if self.listener.add(&self.survey.root, &inner)?.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Does what a second prepare does. Where the guest's own work forbids that, files alone go.
    fn prepare_again(&mut self, files: &Files<'_>) -> Result<Done> {
        self.guest_has_it(files)?;
        let now = record::read(self.dir)?.ok_or_else(no_workspace)?;
        self.is_its(&now)?;
        // Somebody may have prepared it in another way meanwhile.
        self.wish = wish(&now, self.leave);
        let (before, stood) = (self.session.tree.clone(), self.session.record.given.clone());
        // What the guest has by now as the host does is no work of its own.
        let left = self.left.clone();
        let mut done = if left.is_empty() { Done::default() } else { self.bring(files, &left)? };
        let mut tries = 0;
        let tried = loop {
            // Before it is read, so that what changes meanwhile is seen.
            self.mark = mark(self.survey.repositories())?;
            match attempt(self.dir, files, &self.wish) {
                Err(error) if error.kind() == Kind::Conflict && tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                }
                tried => break tried?,
            }
        };
        if let Attempt::Refused(why) = &tried {
            if !std::mem::replace(&mut self.is_behind, true) {
                let hint = why.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
                done.notes.push(format!(
                    "{why}: files follow, the host's commits, branch and index do not{hint}"
                ));
            }
        } else {
            self.is_behind = false;
            self.left.clear();
        }
        self.open_anew(files)?;
        done.git = stood != self.session.record.given;
        done.brought.changes = between(&before, &self.session.tree);
        self.add_differing(files, &mut done)?;
        Ok(done)
    }

    /// Looks at all of the host anew.
    fn look_again(&mut self, files: &Files<'_>) -> Result<Done> {
        let mut done = Done::default();
        self.open_anew(files)?;
        self.add_differing(files, &mut done)?;
        Ok(done)
    }

    fn add_differing(&mut self, files: &Files<'_>, done: &mut Done) -> Result<()> {
        let paths = differing(&self.survey, &self.session);
        let more = self.bring(files, &paths)?;
        done.notes.extend(more.notes);
        done.brought.changes.extend(more.brought.changes);
        done.brought.left.extend(more.brought.left);
        done.brought.again.extend(more.brought.again);
        done.brought.guest = more.brought.guest;
        Ok(())
    }

    /// Reads record and host anew.
    fn open_anew(&mut self, files: &Files<'_>) -> Result<()> {
        let folder = Folder::open(self.dir, files.budget().left()?)?;
        let session = Session::read(&folder)?;
        drop(folder);
        self.is_its(&session.record)?;
        self.session = session;
        self.wish = wish(&self.session.record, self.leave);
        let host = PathBuf::from(&self.session.record.host_path);
        let source = open(&host, &self.wish)?;
        is_followed(&source, &self.session.record, &self.wish)?;
        let store = Store::open(self.dir, &self.session.record.object_format)?;
        self.survey = survey(source, &self.wish, &self.session, &store)?;
        self.listen()
    }

    fn listen(&mut self) -> Result<()> {
        for repository in self.survey.repositories() {
            self.listener.add_git(&repository.host)?;
        }
        self.listener.add(&self.survey.root, &self.survey.dirs)?;
        Ok(())
    }

    /// Brings single paths.
    fn bring(&mut self, files: &Files<'_>, paths: &BTreeSet<Vec<u8>>) -> Result<Done> {
        let mut done = Done::default();
        if !self.dir.is_dir() {
            // Forgotten, or deleted with its VM: it does not come back by this.
            return Err(no_workspace());
        }
        let mut paths = paths.clone();
        let folder = loop {
            let folder = Folder::lock(self.dir, BUSY)?;
            if self.session.is_current(&folder) {
                break folder;
            }
            folder.take_in()?;
            let session = Session::read(&folder)?;
            self.is_its(&session.record)?;
            let prepared = session.record.prepared_unix_ms;
            if prepared == self.session.record.prepared_unix_ms {
                self.session = session;
                break folder;
            }
            // By that prepare other files go than before.
            drop(folder);
            self.open_anew(files)?;
            paths.extend(differing(&self.survey, &self.session));
        };
        paths.extend(self.session.open.keys().cloned());
        if self.survey.repository().is_none() {
            // A directory of which the last file went is one with nothing in it.
            let above: Vec<Vec<u8>> = paths.iter().flat_map(|path| dirs_above(path)).collect();
            paths.extend(above);
        }
        if paths.is_empty() {
            return Ok(done);
        }
        let allowed =
            if self.session.record.tools_allowed || self.session.record.tools_refused.is_some() {
                (self.leave.allowed)(Path::new(&self.session.record.host_path))
            } else {
                self.wish.allowed.clone()
            };
        let way = Way {
            folder: &folder,
            files,
            survey: &self.survey,
            allowed: &allowed,
            keeps_mode: bring::keeps_mode(&self.survey),
        };
        let brought = bring(&way, &mut self.session, &paths);
        drop(folder);
        done.brought = brought.map_err(|error| self.or_gone(files, error))?;
        for (path, why) in std::mem::take(&mut done.brought.unread) {
            if self.unread.insert(path.clone()) {
                let at = self.survey.root.join(&path);
                done.notes.push(format!("'{}' cannot be read and stays: {why}", at.display()));
            }
        }
        let Brought { changes, agreed, .. } = &done.brought;
        let is_open = |path: &Vec<u8>| !changes.contains_key(path) && !agreed.contains(path);
        self.unread.retain(is_open);
        self.left.retain(is_open);
        // Each is told once.
        done.brought.left.retain(|path| self.left.insert(path.clone()));
        done.notes.extend(self.tell_of_untracked(&paths)?);
        Ok(done)
    }

    /// Fails if another place of the host's was prepared in the place of this one.
    fn is_its(&self, now: &Workspace) -> Result<()> {
        let host_path = &self.session.record.host_path;
        if now.host_path == *host_path {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "'{}' was prepared in the place of '{host_path}'",
            now.host_path
        ))
        .hint("watch again to follow that"))
    }

    /// Says once that new files do not go which nobody tracks.
    fn tell_of_untracked(&mut self, paths: &BTreeSet<Vec<u8>>) -> Result<Option<String>> {
        if self.has_told_of_untracked || self.survey.is_wide() {
            return Ok(None);
        }
        let tree = &self.session.tree;
        let news = paths.iter().filter(|path| !tree.contains_key(*path) && !is_passing(path));
        let news: BTreeSet<Vec<u8>> = news.take(1000).cloned().collect();
        if news.is_empty() {
            return Ok(None);
        }
        let found = self.survey.untracked(&news)?;
        self.has_told_of_untracked = found.is_some();
        Ok(found.map(|path| {
            format!(
                "'{}' is untracked and stays on the host: 'git add' lets such a file go, and a prepare with \
                 '--include PATTERN' or '--include-untracked' does",
                crate::path::shown(&path)
            )
        }))
    }

    fn guest_has_it(&self, files: &Files<'_>) -> Result<()> {
        match files.stat(&self.session.record.guest_path, &[]) {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Err(gone_from_guest(&self.session.record)),
            Err(error) => Err(error),
        }
    }

    fn or_gone(&self, files: &Files<'_>, error: Error) -> Error {
        if !is_absent(&error) {
            return error;
        }
        self.guest_has_it(files).err().unwrap_or(error)
    }
}

/// Says whether a name is one that editors give to what they remove again.
fn is_passing(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let ends = [&b"~"[..], b".swp", b".swo", b".swx", b".tmp", b"4913"];
    ends.iter().any(|end| name.ends_with(end))
        || name.starts_with(b".#")
        || (name.starts_with(b"#") && name.ends_with(b"#"))
}

fn identity(root: &Path) -> Option<(u64, u64)> {
    fs::metadata(root).ok().filter(fs::Metadata::is_dir).map(|meta| (meta.dev(), meta.ino()))
}

fn gone(root: &Path) -> Error {
    Error::not_found(format!("'{}' is gone, or another directory by now", root.display()))
        .hint("'banger workspace prepare' puts another place of the host into the VM")
}

fn gone_from_guest(record: &Workspace) -> Error {
    Error::not_found(format!("no '{}' in the guest", record.guest_path))
        .hint("somebody removed it there; 'banger workspace prepare' puts it back")
}

/// Opens the host's side, and fails unless what was prepared begins at that place.
fn open(host: &Path, wish: &Wish) -> Result<Source> {
    let source = Source::open(host, &wish.all_trusted())?;
    if source.root() == host { Ok(source) } else { Err(gone(host)) }
}

/// Fails if the guest's files are of another commit than those that lie on the host.
fn is_followed(source: &Source, record: &Workspace, wish: &Wish) -> Result<()> {
    let kept = kept_branch(source, record, wish);
    if kept.is_some_and(|kept| kept.from.is_some()) {
        return Err(Error::conflict(format!(
            "'{}' in the guest began at another commit ('--from'), so it does not follow the host's files",
            record.guest_path
        ))
        .hint("'banger workspace prepare' without '--from', into another VM, makes one that does"));
    }
    Ok(())
}

/// Looks at all that goes of the host, as a prepare would.
fn survey(source: Source, wish: &Wish, session: &Session, store: &Store) -> Result<Survey> {
    let (taking, _) = taking(wish, source.root(), Some((&session.record, &session.tree)))?;
    Survey::take(source, wish, taking, store)
}

/// Returns what a second prepare would ask for.
fn wish(record: &Workspace, leave: &Leave<'_>) -> Wish {
    let host = PathBuf::from(&record.host_path);
    let start = record.start_path.as_ref().and_then(|start| {
        let below = start.strip_prefix(&record.guest_path)?.strip_prefix('/')?;
        Some(host.join(below)).filter(|path| path.is_dir())
    });
    Wish {
        vm: leave.vm.clone(),
        path: start.unwrap_or_else(|| host.clone()),
        guest_path: record.guest_path.clone(),
        // Where another repository came there meanwhile, nothing is to happen to it.
        is_named: false,
        user: record.user.clone(),
        mode: record.mode,
        branch: None,
        from: None,
        include_untracked: record.include_untracked,
        // What the record has is kept.
        include: Vec::new(),
        configured_include: leave.configured_include.clone(),
        no_include: false,
        force: false,
        trusted: record::trusted(record),
        configured: leave.configured.clone(),
        allowed: (leave.allowed)(&host),
    }
}

/// Returns what differs between two lists, but for git's own files.
fn between(before: &Tree, after: &Tree) -> BTreeMap<Vec<u8>, How> {
    let paths: BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    let how = |path: &Vec<u8>| {
        let was = before.get(path).filter(|given| given.is_there());
        let is = after.get(path).filter(|given| given.is_there());
        match (was, is) {
            (None, Some(_)) => Some(How::Added),
            (Some(_), None) => Some(How::Deleted),
            (Some(was), Some(is)) if !was.is_same(is) => Some(How::Modified),
            _ => None,
        }
    };
    let paths = paths.into_iter().filter(|path| !has_git(path));
    paths.filter_map(|path| Some((path.clone(), how(path)?))).collect()
}

/// Says that there is nothing to follow.
pub(super) fn must_have_one(dir: &Path) -> Result<()> {
    record::read(dir)?.map(drop).ok_or_else(no_workspace)
}

/// How long something took since.
pub(super) fn since(begun: Instant) -> Duration {
    begun.elapsed()
}
