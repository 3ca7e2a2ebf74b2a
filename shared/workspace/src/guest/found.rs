//! What a look at a guest finds, and how its small files are read.

use crate::{
    git::{DIR, LINK},
    host::source::is_absent,
    path::parents,
    record::given::Seen,
};
use banger_channel::files::{Budget, Entry, Files, Got, What};
use banger_doc::{Context, Error, Kind, Position, Result, Work};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What an entry of a look takes beside its names.
pub(super) const ENTRY: usize = 48;

/// How many places that are in no patch are named.
pub(super) const MAX_LEFT: usize = 50;

/// How one path differs from what was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum How {
    Added,
    Modified,
    Deleted,
}

/// What differs, by path.
pub(crate) type Changes = BTreeMap<Vec<u8>, How>;

impl How {
    /// Returns the word for it in a document.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
        }
    }
}

/// What a guest's tree is like, next to what was given.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// Whether the root is there at all.
    pub(crate) is_there: bool,
    /// Whether the root holds anything.
    pub(crate) is_empty: bool,
    /// Every file and link but those of nested repositories.
    pub(crate) entries: BTreeMap<Vec<u8>, Entry>,
    /// What differs; what is ignored is not in it.
    pub(crate) changes: Changes,
    /// What is as it was given, and how it looks now.
    pub(crate) same: BTreeMap<Vec<u8>, Seen>,
    /// What an agent that was killed left behind.
    pub(crate) litter: Vec<Vec<u8>>,
    /// HEAD, references, index.
    pub(crate) position: Position,
    /// What the guest's index lists.
    pub(crate) index: Listing,
    /// Places of the guest that no look reached the content of.
    pub(super) closed: BTreeSet<Vec<u8>>,
    /// What no patch holds.
    pub(crate) left: Vec<Work>,
    /// Whether any of that lies where a prepare writes, so that it could be overwritten.
    pub(crate) is_in_the_way: bool,
    /// What the user is to know.
    pub(crate) notes: Vec<String>,
}

/// What an index of the guest's lists.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Whether all that it lists is known.
    pub(crate) is_whole: bool,
    /// Every path.
    pub(crate) tracked: BTreeSet<Vec<u8>>,
    /// Paths that are absent on purpose.
    pub(crate) skipped: BTreeSet<Vec<u8>>,
    /// Submodules: the commit of each.
    pub(crate) modules: BTreeMap<Vec<u8>, String>,
    /// The object of each file and link.
    pub(crate) staged: BTreeMap<Vec<u8>, (u32, String)>,
}

impl Look {
    /// Says whether a path lies in a place whose content is not known.
    pub(super) fn is_hidden(&self, path: &[u8]) -> bool {
        !self.closed.is_empty() && parents(path).any(|parent| self.closed.contains(parent))
    }
}

/// Says whether anything of a sorted list, from `dir` on, lies below it; `dir` ends with a slash.
pub(super) fn holds<'a, T: 'a>(
    mut from: impl Iterator<Item = (&'a Vec<u8>, T)>,
    dir: &[u8],
) -> bool {
    from.next().is_some_and(|(path, _)| path.starts_with(dir))
}

/// Returns what a scan says of a file.
pub(crate) fn seen(entry: &Entry) -> Seen {
    Seen { size: entry.size, mtime_ns: entry.mtime_ns, ctime_ns: entry.ctime_ns, ino: entry.ino }
}

/// Returns the mode that an entry would have in a tree of git.
pub(super) fn mode_of(entry: &Entry) -> u32 {
    match entry.what {
        What::Link => LINK,
        What::Dir => DIR,
        _ if entry.mode & 0o100 != 0 => 0o100_755,
        _ => 0o100_644,
    }
}

/// How much of the budget the small files of a `.git` may take each time.
pub(super) fn small(budget: &Budget) -> Budget {
    budget.entries(200_000).bytes(512 << 20).time(Duration::from_mins(10))
}

/// Reads those of `paths` below `root` that are files of at most `most` bytes, by their place.
pub(crate) fn small_files(
    files: &Files<'_>,
    root: &str,
    paths: &[&[u8]],
    most: u64,
) -> Result<BTreeMap<usize, Vec<u8>>> {
    let mut read = BTreeMap::new();
    let budget = files.budget();
    files.within(small).get(root, paths, |index, got| {
        if let Got::File { content, size, .. } = got
            && size <= most
        {
            budget.take_names(1, size)?;
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).context("cannot read from the guest's agent")?;
            read.insert(index, bytes);
        }
        Ok(())
    })?;
    Ok(read)
}

/// Says whether nothing or no directory is where one was looked for.
pub(crate) fn is_no_directory(error: &Error) -> bool {
    is_absent(error) || error.kind() == Kind::Conflict
}
