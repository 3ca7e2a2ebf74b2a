//! What a guest's repository has for a repository of the host's, as references and what they lead to.

use crate::{
    git::lines,
    guest::{Look, STASH, staged_only, stashes},
    names::is_ref_name,
    record::Folder,
    record::given::Tree,
    record::prepared::Prepared,
    record::store::Store,
    remote::bring::{Brought, bring},
    remote::wip::wip,
    status::head_commit,
};
use banger_channel::files::Files;
use banger_doc::{Context, Error, Position, Result, Workspace, shows};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The most references of a guest that are offered.
const MAX_REFS: usize = 20_000;
/// The longest part of a name, which a file of the host's may have to have.
const MAX_PART: usize = 200;
/// Below this banger offers what git has no reference to.
const OWN: &str = "refs/banger/";

/// What a guest's repository has: all of it checked, in a scratch that goes with this value.
pub struct Offer {
    pub(crate) folder: Folder,
    pub(crate) record: Workspace,
    pub(crate) store: Store,
    pub(crate) brought: Brought,
    /// References, by the name under which they are offered.
    pub(crate) refs: BTreeMap<String, String>,
    /// Where the guest's HEAD, references and index are.
    pub(crate) position: Position,
    /// The guest's commit.
    pub(crate) head: Option<String>,
    /// The commits of the guest's stash.
    pub(crate) stash: Vec<String>,
    /// Uncommitted work.
    pub(crate) wip: Option<String>,
    /// Files of it that nobody tracks.
    pub(crate) untracked: Vec<Vec<u8>>,
    /// The tree of the guest's files, if they are known.
    pub(crate) tree: Option<String>,
    /// What it was given, what an update that did not end was to give it, and what it looks like next to both.
    pub(crate) given: Tree,
    pub(crate) next: Option<Tree>,
    pub(crate) look: Look,
    /// Whether what the guest's index lists is part of all that.
    pub(crate) has_index: bool,
    /// What the user is to know.
    pub notes: Vec<String>,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer").field("refs", &self.refs.len()).finish_non_exhaustive()
    }
}

impl Offer {
    /// Brings what the guest's repository has. `dir` is the place of the workspace's record.
    pub fn make(dir: &Path, files: &Files<'_>) -> Result<Self> {
        let prepared = Prepared::open(dir, files)?;
        let record = &prepared.record;
        if !record.is_repository {
            return Err(Error::usage(format!(
                "'{}' in the guest was a directory without git when it was put there",
                record.guest_path
            ))
            .hint("'banger workspace export' makes a patch of its changes"));
        }
        let look = prepared.look_at_what_is_there(files)?;
        let Prepared { folder, record, store, given, next } = prepared;
        if look.position.head.is_empty() {
            return Err(Error::failed(format!(
                "'{}' in the guest has no '.git' that can be read",
                record.guest_path
            ))
            .hint("'banger workspace export' makes a patch of its files"));
        }
        let mut notes = look.notes.clone();
        let stash = stashes(files, &record.guest_path, &look, store.oid_len)?;
        let named = plain_refs(&look, &mut notes)?;
        let head = head_commit(&look.position);
        let staged = staged_only(&store, &look)?;
        let tips: BTreeSet<String> = named
            .values()
            .chain(&head)
            .chain(&stash)
            .chain(staged.values())
            .filter(|oid| crate::git::is_oid(oid))
            .cloned()
            .collect();
        let mut brought = bring(files, &record, &store, &tips)?;
        let mut offer_refs = whole_refs(&store, &brought, &named, &mut notes)?;
        let stash: Vec<String> = Some(stash)
            .filter(|stash| stash.iter().all(|oid| brought.whole.contains(oid)))
            .unwrap_or_default();
        let (mut tree, mut wip_commit, mut has_index) = (None, None, false);
        let mut untracked = Vec::new();
        let has_head = head.as_ref().is_none_or(|head| brought.whole.contains(head));
        if has_head {
            let made = wip(files, &record, &store, &brought, (&given, &look), head.as_deref())?;
            if let Some(commit) = &made.commit {
                brought.add(&store, &record, commit).context(
                    "cannot take over the guest's uncommitted work: git refuses what it holds",
                )?;
            }
            untracked = made.untracked;
            (tree, wip_commit, has_index) = (Some(made.tree), made.commit, made.has_index);
        } else if let Some(why) = head.as_ref().and_then(|head| brought.broken.get(head)) {
            notes.push(format!("the guest's HEAD and its files are left out: {why}"));
        }
        let extra = Extra {
            record: &record,
            position: &look.position,
            head: head.as_ref().filter(|_| has_head),
            stash: &stash,
            wip: wip_commit.as_ref(),
        };
        extra.add(&mut offer_refs);
        Ok(Self {
            folder,
            record,
            store,
            brought,
            refs: offer_refs,
            position: look.position.clone(),
            given,
            next,
            look,
            head,
            stash,
            wip: wip_commit,
            untracked,
            tree,
            has_index,
            notes,
        })
    }

    /// Returns what is offered: references by name.
    pub fn refs(&self) -> &BTreeMap<String, String> {
        &self.refs
    }

    /// Returns what HEAD is: a reference of those, or an object.
    pub fn head(&self) -> Option<&str> {
        let branch = self.position.head.strip_prefix("ref: ");
        match branch {
            Some(branch) => self.refs.contains_key(branch).then_some(branch),
            None => self.head.as_deref().filter(|head| self.brought.whole.contains(*head)),
        }
    }

    /// Returns the format of object names, `sha1` or `sha256`.
    pub fn object_format(&self) -> &str {
        &self.record.object_format
    }

    /// Returns the same files with what is written belonging to whom the workspace does.
    pub fn writing<'a>(&self, files: Files<'a>) -> Files<'a> {
        files.by(self.record.user.as_deref().unwrap_or_default(), false)
    }
}

/// Says whether a name is one that is safe anywhere and means nothing else to git or to banger.
pub(crate) fn is_plain(name: &str) -> bool {
    is_ref_name(name)
        && name.split('/').all(|part| part.len() <= MAX_PART && !part.starts_with('-'))
        && name.chars().all(|c| shows(c) && c != '\u{fffd}')
        && !matches!(name, "refs/heads/HEAD" | "refs/tags/HEAD")
        && !name.starts_with(OWN)
        && !name.starts_with("refs/replace/")
}

/// Returns the references that git takes under these names anywhere.
fn plain_refs(look: &Look, notes: &mut Vec<String>) -> Result<BTreeMap<String, String>> {
    let all = &look.position.refs;
    if all.len() > MAX_REFS {
        return Err(Error::failed(format!(
            "the guest's repository has {} references; {MAX_REFS} may be brought",
            all.len()
        ))
        .hint("the guest may be broken or hostile"));
    }
    let is_below_another = |name: &str| {
        let ends = name.match_indices('/').map(|(at, _)| at);
        ends.into_iter().any(|end| all.contains_key(&name[..end]))
    };
    let is_taken = |name: &str| is_plain(name) && !is_below_another(name);
    let mut named = BTreeMap::new();
    let mut refused = Vec::new();
    for (name, oid) in all.iter().filter(|(name, _)| *name != STASH) {
        if oid.starts_with("ref: ") || !is_taken(name) {
            refused.push(name.as_str());
        } else {
            named.insert(name.clone(), oid.clone());
        }
    }
    if let Some(first) = refused.first() {
        let first = first.escape_debug();
        notes.push(match refused.len() {
            1 => format!("the reference '{first}' is left out"),
            count => format!("{count} references are left out, as '{first}'"),
        });
    }
    Ok(named)
}

/// Returns those references whose objects were brought, branches only if they are of commits.
fn whole_refs(
    store: &Store,
    brought: &Brought,
    named: &BTreeMap<String, String>,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, String>> {
    let asked: BTreeSet<&String> = named.values().filter(|o| brought.whole.contains(*o)).collect();
    let mut commits = BTreeSet::new();
    if !asked.is_empty() {
        let git = brought.git(store);
        let answer = git.run(["cat-file", "--batch-check"], lines(asked).as_bytes())?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let found = answer.lines().filter_map(|line| line.split_once(" commit "));
        commits.extend(found.map(|(oid, _)| oid.to_owned()));
    }
    let mut whole = BTreeMap::new();
    let mut left = 0;
    for (name, oid) in named {
        let is_branch = name.starts_with("refs/heads/");
        if brought.whole.contains(oid) && (!is_branch || commits.contains(oid)) {
            whole.insert(name.clone(), oid.clone());
            continue;
        }
        left += 1;
        if left <= 10 {
            let why = brought.broken.get(oid).map_or("it leads to no commit", String::as_str);
            notes.push(format!("'{name}' is left out: {why}"));
        }
    }
    if left > 10 {
        notes.push(format!("{} more references are left out", left - 10));
    }
    Ok(whole)
}

/// What no branch leads to.
struct Extra<'a> {
    record: &'a Workspace,
    position: &'a Position,
    head: Option<&'a String>,
    stash: &'a [String],
    wip: Option<&'a String>,
}

impl Extra<'_> {
    /// Adds it under names of banger's, none of which meets a branch's where all of them become branches of
    /// one remote.
    fn add(&self, refs: &mut BTreeMap<String, String>) {
        let taken: BTreeSet<String> = refs
            .keys()
            .filter_map(|name| name.strip_prefix("refs/heads/")?.split('/').next())
            .map(ToOwned::to_owned)
            .collect();
        let free = |name: &str| {
            let mut free = name.to_owned();
            let mut n = 1;
            while taken.contains(&free) {
                n += 1;
                free = format!("{name}-{n}");
            }
            format!("{OWN}{free}")
        };
        let tags: Vec<(String, String)> = refs
            .iter()
            .filter(|(name, oid)| self.record.given.refs.get(*name) != Some(oid))
            .filter_map(|(name, oid)| Some((name.strip_prefix("refs/tags/")?.into(), oid.clone())))
            .collect();
        for (name, oid) in tags {
            refs.insert(format!("{}/{name}", free("tags")), oid);
        }
        if let Some(head) = self.head.filter(|_| !self.position.head.starts_with("ref: ")) {
            refs.insert(free("detached"), head.clone());
        }
        for (n, oid) in self.stash.iter().enumerate() {
            refs.insert(format!("{}/{n}", free("stash")), oid.clone());
        }
        if let Some(wip) = self.wip {
            refs.insert(free("wip"), wip.clone());
        }
    }
}
