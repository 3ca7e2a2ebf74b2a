//! Which remotes go with a repository, and which branches of theirs its work is compared with.

use crate::{
    git::is_oid,
    host::source::{Ref, Repository},
    names::{is_ref_name, remote_of, without_secrets},
};
use banger_doc::Result;
use std::collections::{BTreeMap, BTreeSet};

/// How many commits may lie between HEAD, a branch it is compared with, and where the two part.
const MAX_WAY: usize = 1000;
/// What a branch is called that others begin at, where a remote does not say.
const USUAL: [&str; 2] = ["main", "master"];

/// What a branch is told of remotes, whole.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    /// Addresses without secrets, by name.
    pub(crate) addresses: BTreeMap<String, String>,
    /// Settings of branches that go: `remote`, `merge` and `pushremote`.
    pub(crate) branches: BTreeMap<String, Vec<(&'static str, String)>>,
}

/// Returns what goes with these references: the remotes that they, their branches' settings and `origin`
/// name. A setting that names what has no address does not go.
pub(crate) fn named<'a>(
    repository: &'a Repository,
    refs: impl Iterator<Item = &'a String> + Clone,
) -> Remotes {
    let mut remotes = Remotes::default();
    let mut names: BTreeSet<&str> = BTreeSet::from(["origin"]);
    let own = repository.head.branch.iter();
    for branch in refs.clone().chain(own).filter_map(|name| name.strip_prefix("refs/heads/")) {
        let setting = |name: &str| repository.setting(&format!("branch.{branch}.{name}"));
        let mut settings = Vec::new();
        if let (Some(remote), Some(merge)) = (setting("remote"), setting("merge"))
            && let Some(shown) = remote_or_address(repository, remote)
        {
            names.insert(remote);
            settings.push(("remote", shown));
            settings.push(("merge", merge.to_owned()));
        }
        if let Some(remote) = setting("pushremote")
            && let Some(shown) = remote_or_address(repository, remote)
        {
            names.insert(remote);
            settings.push(("pushremote", shown));
        }
        if !settings.is_empty() {
            remotes.branches.insert(branch.to_owned(), settings);
        }
    }
    let of_refs = |name: &str| {
        let start = format!("refs/remotes/{name}/");
        refs.clone().any(|known| known.starts_with(&start))
    };
    for name in repository.config.keys().filter_map(|key| remote_of(key)) {
        if let Some(url) = address(repository, name)
            && (names.contains(name) || of_refs(name))
        {
            remotes.addresses.insert(name.to_owned(), without_secrets(url));
        }
    }
    remotes
}

/// Returns the address of a remote whose branches can be named.
fn address<'a>(repository: &'a Repository, name: &str) -> Option<&'a str> {
    let is_name = is_ref_name(&format!("refs/remotes/{name}/x"));
    repository.setting(&format!("remote.{name}.url")).filter(|url| is_name && !url.is_empty())
}

/// Returns what a branch's setting says, which may be a remote, `.` for the repository itself, or an
/// address.
fn remote_or_address(repository: &Repository, value: &str) -> Option<String> {
    if value == "." || address(repository, value).is_some() {
        Some(value.to_owned())
    } else {
        value.contains([':', '/']).then(|| without_secrets(value))
    }
}

/// Returns the branches that work on HEAD is compared with: the one that a remote says others begin at,
/// the local one of that name, and what that one follows.
pub(crate) fn bases(repository: &Repository) -> Vec<&Ref> {
    let find = |name: &str| repository.refs.iter().find(|known| known.name == name);
    let branch =
        repository.head.branch.as_deref().and_then(|name| name.strip_prefix("refs/heads/"));
    let setting = |branch: &str, name: &str| repository.setting(&format!("branch.{branch}.{name}"));
    let of_head = branch.map(|branch| [setting(branch, "remote"), setting(branch, "pushremote")]);
    let mut found: Vec<&Ref> = Vec::new();
    let mut locals: Vec<&str> = Vec::new();
    for remote in of_head.into_iter().flatten().flatten().chain(["origin"]) {
        let start = format!("refs/remotes/{remote}/");
        let said = find(&format!("{start}HEAD")).and_then(|head| head.target.as_deref());
        let usual = || USUAL.iter().find_map(|name| find(&format!("{start}{name}")));
        if let Some(base) = said.and_then(find).or_else(usual) {
            locals.extend(base.name.strip_prefix(&start));
            found.push(base);
        }
    }
    if locals.is_empty() {
        locals.extend(USUAL.iter().find(|name| find(&format!("refs/heads/{name}")).is_some()));
    }
    for local in locals {
        found.extend(find(&format!("refs/heads/{local}")));
        if let (Some(remote), Some(merge)) = (setting(local, "remote"), setting(local, "merge")) {
            found.extend(find(&tracking(remote, merge)));
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|base| seen.insert(&base.name));
    found
}

/// Returns the reference that remembers where a branch of a remote is.
pub(crate) fn tracking(remote: &str, merge: &str) -> String {
    let short = merge.strip_prefix("refs/heads/").unwrap_or(merge);
    match remote {
        "." => merge.to_owned(),
        _ => format!("refs/remotes/{remote}/{short}"),
    }
}

/// The commits between some others and where their histories part.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// All parents of these are here too.
    pub(crate) inside: BTreeSet<String>,
    /// Where they end.
    pub(crate) ends: BTreeSet<String>,
    /// What is too far away, in words.
    pub(crate) notes: Vec<String>,
}

/// Finds the ways from a commit to branches it is compared with.
pub(crate) fn ways(repository: &Repository, head: &str, bases: &[&Ref]) -> Result<Ways> {
    let git = repository.git();
    let mut ways = Ways::default();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for base in bases {
        if !known.insert(&base.peeled) {
            continue;
        }
        let parted = git.attempt(["merge-base", "--all", head, &base.peeled], b"")?;
        let parted = String::from_utf8_lossy(&parted.answer).into_owned();
        let parted: Vec<&str> = parted.lines().filter(|oid| is_oid(oid)).collect();
        if parted.is_empty() {
            // Nobody can compare these on the host either.
            continue;
        }
        let most = format!("--max-count={}", MAX_WAY + 1);
        let mut words = vec!["rev-list", "--boundary", &most, head, &base.peeled, "--not"];
        words.extend(&parted);
        let listed = git.run(words, b"")?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let is_end = |line: &&str| line.starts_with('-');
        if listed.lines().filter(|line| !is_end(line)).count() > MAX_WAY {
            let name = base.name.strip_prefix("refs/remotes/");
            let name = name.or_else(|| base.name.strip_prefix("refs/heads/"));
            ways.notes.push(format!(
                "'{}' is more than {MAX_WAY} commits from where HEAD parted from it, and stays \
                 behind; '--mode full_copy' takes it",
                name.unwrap_or(&base.name)
            ));
            continue;
        }
        for line in listed.lines() {
            match line.strip_prefix('-') {
                Some(end) => ways.ends.insert(end.to_owned()),
                None => ways.inside.insert(line.to_owned()),
            };
        }
        ways.ends.extend(parted.into_iter().map(ToOwned::to_owned));
    }
    Ok(ways)
}
