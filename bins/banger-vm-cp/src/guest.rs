//! What is where in a guest.

use crate::place::Kind;
use banger_channel::{
    control::account,
    files::{Budget, Files, What, is_inside},
};
use banger_doc::{Context, Error, Name, Result, shell_word};
use banger_offline::Source;
use banger_state::{State, VmFolder, place};
use std::{
    cell::{Cell, OnceCell},
    os::unix::{ffi::OsStrExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

/// How long the guest may take to answer at all.
const CONNECT: Duration = Duration::from_secs(30);
/// How long it may take to tell what is at a place.
const LOOK: Duration = Duration::from_secs(30);
/// As many links as Linux follows.
const LINKS: usize = 40;

/// What a copy may take. It is silence that ends a wait: how long a copy takes depends on its size.
const TIME: Duration = Duration::from_hours(48);
/// The most entries.
const ENTRIES: u64 = 10_000_000;
/// The most memory for names.
const NAMES: u64 = 160 << 20;

/// Where the user's paths begin on the disks of a VM that does not run: whoever reads them knows.
const ON_DISK: &str = "~";

/// A VM: one that runs, or the disks of one that does not.
#[derive(Debug)]
pub(crate) struct Guest {
    folder: VmFolder,
    source: Source,
    /// Who writes in the guest; its own user if nobody is named.
    user: Option<String>,
    /// Where a path begins that does not begin with `/`, once that was asked.
    home: OnceCell<PathBuf>,
    /// Whether a link was followed to what was looked at.
    followed: Cell<bool>,
    /// What the copy may take of the host.
    budget: Budget,
}

impl Guest {
    /// Opens a VM to copy into it, which has to run for that.
    pub(crate) fn running(state: &State, name: &Name, user: Option<&str>) -> Result<Self> {
        state.vm(name)?.must_run()?;
        Self::open(state, name, user)
    }

    /// Opens a VM to copy out of it.
    pub(crate) fn open(state: &State, name: &Name, user: Option<&str>) -> Result<Self> {
        let folder = state.vm(name)?;
        let source = Source::of(&folder);
        let user = user.map(ToOwned::to_owned);
        let budget = Budget::of(TIME, u64::MAX, NAMES, ENTRIES);
        Ok(Self { folder, source, user, home: OnceCell::new(), followed: Cell::new(false), budget })
    }

    pub(crate) fn name(&self) -> &Name {
        self.folder.name()
    }

    /// Opens a stream to the files of the guest.
    pub(crate) fn stream(&self) -> Result<UnixStream> {
        self.source.stream(CONNECT, TIME)
    }

    pub(crate) fn files(&self) -> Files<'_> {
        self.files_by(self.budget.clone(), || self.stream())
    }

    /// Returns the files of the guest, over streams that `open` gets from [`Guest::stream`].
    pub(crate) fn files_by<'a>(
        &self,
        budget: Budget,
        open: impl Fn() -> Result<UnixStream> + 'a,
    ) -> Files<'a> {
        let files = Files::new(budget, open);
        if self.source.reads_disks() { files.of_disks() } else { files }
    }

    /// Returns what the copy may take of the host.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Returns the files of the guest for whoever writes there: the user that was named, or the guest's
    /// own, and root where that one may not. A link may be that user's own, so root does not write
    /// where one led. With `archive` root writes, who can give files away.
    pub(crate) fn writer(&self, archive: bool) -> Files<'_> {
        match &self.user {
            Some(user) => self.files().by(user, false),
            None if archive => self.files(),
            None => self.files().by("", !self.followed.get()),
        }
    }

    /// Returns where the user's paths begin.
    fn home(&self) -> Result<&Path> {
        if let Some(home) = self.home.get() {
            return Ok(home);
        }
        if self.source.reads_disks() {
            if let Some(user) = &self.user {
                return Err(Error::conflict(format!(
                    "where the home of '{user}' is, a VM that does not run cannot tell"
                ))
                .hint("give a path that begins with '/'"));
            }
            return Ok(self.home.get_or_init(|| ON_DISK.into()));
        }
        let name = self.name();
        let (_dir, path) = self.folder.short_path(place::VM_CHANNEL)?;
        let account = account(&path, self.user.as_deref(), CONNECT)
            .with_context(|| format!("cannot tell where the user's home is in VM '{name}'"))
            .map_err(|error| error.or_hint("a path that begins with '/' needs no home"))?;
        Ok(self.home.get_or_init(|| account.place.into()))
    }

    /// Returns how a path in this VM is said.
    pub(crate) fn said(&self, path: &Path) -> String {
        format!("{}:{}", self.name(), path.display())
    }

    /// Returns what is at a path, and the path after all links.
    pub(crate) fn look(&self, path: &Path) -> Result<(PathBuf, Kind)> {
        let mut path = self.absolute(path)?;
        // Disks that were not left clean are repaired first, for as long as that takes.
        let files = if self.source.reads_disks() {
            self.files()
        } else {
            self.files().within(|budget| budget.time(LOOK))
        };
        for _ in 0..LINKS {
            let bytes = path.as_os_str().as_bytes().to_vec();
            let at = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            let (dir, name) = (&bytes[..at.max(1)], &bytes[at + 1..]);
            if !is_inside(name) {
                // `/`, or a name such as `..`: a directory if it is anything.
                let there = files.stat(text(&path)?, &[]);
                there.map_err(|error| error.or_hint(self.ls(Path::new("/"))))?;
                return Ok((path, Kind::Dir));
            }
            let dir = PathBuf::from(std::ffi::OsStr::from_bytes(dir));
            let found =
                files.stat(text(&dir)?, &[name]).map_err(|error| self.no_directory(&dir, error))?;
            let Some(entry) = found.into_iter().flatten().next() else {
                return Ok((path, Kind::Missing));
            };
            match entry.what {
                What::Dir => return Ok((path, Kind::Dir)),
                What::File => return Ok((path, Kind::File)),
                What::Other | What::Closed => return Ok((path, Kind::Other)),
                What::Link => {
                    self.followed.set(true);
                    let target = std::ffi::OsStr::from_bytes(&entry.target);
                    path = trimmed(&dir.join(target));
                }
            }
        }
        Err(Error::failed(format!("too many links at '{}'", self.said(&path)))
            .hint("they may lead in a circle: name the place itself"))
    }

    /// Returns where a path is that may not begin with `/`.
    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        Ok(if path.is_absolute() { trimmed(path) } else { below(self.home()?, path) })
    }

    fn no_directory(&self, dir: &Path, error: Error) -> Error {
        if error.kind() != banger_doc::Kind::NotFound {
            return error.or_hint(self.ls(dir));
        }
        Error::not_found(format!("no directory '{}' in VM '{}'", dir.display(), self.name())).hint(
            if self.source.reads_disks() {
                self.ls(dir.parent().unwrap_or(Path::new("/")))
            } else {
                self.mkdir(dir)
            },
        )
    }

    /// Returns how a directory is made.
    pub(crate) fn mkdir(&self, dir: &Path) -> String {
        format!("'banger vm exec {} -- mkdir -p {}' makes it", self.name(), shell_word(dir))
    }

    /// Returns how one sees what is at a place.
    pub(crate) fn ls(&self, path: &Path) -> String {
        let shows = format!(
            "'banger vm exec {} -- ls -la {}' shows what is there",
            self.name(),
            shell_word(path)
        );
        if self.source.reads_disks() {
            format!("once 'banger vm start {}' has started it, {shows}", self.name())
        } else {
            shows
        }
    }
}

/// Returns a path of the guest as text, which a request holds.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::failed(format!(
            "the directory '{}' has a name that is not UTF-8",
            path.as_os_str().as_bytes().escape_ascii()
        ))
        .hint("a copy of the directory it is in brings it along")
    })
}

fn below(home: &Path, path: &Path) -> PathBuf {
    trimmed(&home.join(path.strip_prefix("~").unwrap_or(path)))
}

/// Takes slashes at the end away, and a last `.`.
fn trimmed(path: &Path) -> PathBuf {
    let whole: PathBuf = path.components().collect();
    if whole.as_os_str().is_empty() { "/".into() } else { whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_at_the_root_or_at_home() {
        for (typed, is) in [
            ("", "/home/dev"),
            ("/", "/"),
            ("~", "/home/dev"),
            ("~/x/", "/home/dev/x"),
            ("x/../y", "/home/dev/x/../y"),
            ("/srv//a/./", "/srv/a"),
            ("~user", "/home/dev/~user"),
        ] {
            assert_eq!(below(Path::new("/home/dev"), Path::new(typed)), Path::new(is), "{typed}");
        }
    }
}
