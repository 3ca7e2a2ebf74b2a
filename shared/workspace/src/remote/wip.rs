//! A guest's uncommitted work as a commit that `git stash apply` takes: its parents are the guest's HEAD,
//! a commit of what is staged and, if there are any, one of untracked files.

use crate::{
    git::{Git, MODULE, is_oid, split_zero},
    guest::{Look, tree_of},
    host::index::index_line,
    record::given::Tree,
    record::store::Store,
    remote::bring::Brought,
};
use banger_channel::files::Files;
use banger_doc::{Context, Result, Workspace};
use std::collections::BTreeMap;

/// A guest's files, next to its HEAD.
pub(crate) struct Wip {
    /// The commit; none if nothing is uncommitted.
    pub(crate) commit: Option<String>,
    /// The tree of all files.
    pub(crate) tree: String,
    /// The files that nobody tracks, in the last of its parents.
    pub(crate) untracked: Vec<Vec<u8>>,
    /// Whether what is staged is part of it.
    pub(crate) has_index: bool,
}

/// Mode and object of each path.
pub(crate) type Listed = BTreeMap<Vec<u8>, (u32, String)>;

/// Makes it, in the scratch of what was brought; `head` is the guest's commit, all of which was.
pub(crate) fn wip(
    files: &Files<'_>,
    record: &Workspace,
    store: &Store,
    brought: &Brought,
    (given, look): (&Tree, &Look),
    head: Option<&str>,
) -> Result<Wip> {
    let keeps = store.keeps_mode();
    let root = &record.guest_path;
    let tree = tree_of(files, root, store, &brought.scratch, given, look, keeps)?;
    let git = brought.git(store);
    let all = listed(&git, &tree)?;
    let of_head = head.map(|head| listed(&git, head)).transpose()?.unwrap_or_default();
    let maker = Maker { git: &git, brought };
    let head_tree = maker.tree(&of_head)?;
    let mut has_index = look.index.is_whole;
    let mut staged = of_head.clone();
    if has_index {
        staged = look.index.staged.clone();
        staged
            .extend(look.index.modules.iter().map(|(at, oid)| (at.clone(), (MODULE, oid.clone()))));
        // A conflict has no one version.
        let open = look.index.tracked.iter().filter(|path| !staged.contains_key(*path));
        let open: Listed =
            open.filter_map(|path| Some((path.clone(), of_head.get(path)?.clone()))).collect();
        staged.extend(open);
    }
    let index_tree = if let Ok(tree) = maker.tree(&staged) {
        tree
    } else {
        // The guest lacks what it lists.
        files.budget().left()?;
        has_index = false;
        staged.clone_from(&of_head);
        head_tree.clone()
    };
    let is_tracked = |path: &Vec<u8>| {
        staged.contains_key(path) || look.index.tracked.contains(path) || of_head.contains_key(path)
    };
    let (tracked, mut untracked): (Listed, Listed) =
        all.into_iter().partition(|(path, _)| is_tracked(path));
    // What went in untracked, or although a rule ignores it, lies on the host: it is no work, nor anything
    // that a branch should give away.
    let is_given = |path: &Vec<u8>| given.get(path).is_some_and(|given| given.beside.is_some());
    untracked.retain(|path, _| look.changes.contains_key(path) || !is_given(path));
    let tracked_tree = maker.tree(&tracked)?;
    let is_clean = index_tree == head_tree && tracked_tree == head_tree && untracked.is_empty();
    if is_clean {
        return Ok(Wip { commit: None, tree, untracked: Vec::new(), has_index });
    }
    let place = look.position.head.trim_start_matches("ref: refs/heads/");
    let date = date(&git, head)?;
    let commit = |tree: &str, parents: &[&str], what: &str| {
        let mut words = vec!["commit-tree", tree];
        for parent in parents {
            words.extend(["-p", parent]);
        }
        let mut git = git.clone();
        for who in ["AUTHOR", "COMMITTER"] {
            git = git
                .env(&format!("GIT_{who}_NAME"), "banger")
                .env(&format!("GIT_{who}_EMAIL"), "banger@localhost")
                .env(&format!("GIT_{who}_DATE"), format!("@{date} +0000"));
        }
        let oid = git.run(&words, format!("{what} on {place}\n").as_bytes())?;
        Ok::<_, banger_doc::Error>(String::from_utf8_lossy(&oid).trim().to_owned())
    };
    let base = match head {
        Some(head) => head.to_owned(),
        None => commit(&head_tree, &[], "no commit yet")?,
    };
    let index = commit(&index_tree, &[&base], "index")?;
    let mut parents = vec![base.as_str(), index.as_str()];
    let others;
    if !untracked.is_empty() {
        others = commit(&maker.tree(&untracked)?, &[], "untracked files")?;
        parents.push(&others);
    }
    let commit = commit(&tracked_tree, &parents, "uncommitted work")?;
    let untracked = untracked.into_keys().collect();
    Ok(Wip { commit: Some(commit), tree, untracked, has_index })
}

/// Returns when a commit was made, so that the same work is the same commit each time.
fn date(git: &Git, head: Option<&str>) -> Result<u64> {
    let Some(head) = head else { return Ok(0) };
    let said = git.text(["show", "-s", "--format=%ct", head])?;
    Ok(said.parse().unwrap_or(0).min(u64::from(u32::MAX)))
}

/// Lists a tree, or the tree of a commit.
pub(crate) fn listed(git: &Git, tree: &str) -> Result<Listed> {
    let answer = git.run(["ls-tree", "-r", "-z", "--full-tree", tree], b"")?;
    let entry = |line: &[u8]| {
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let head = std::str::from_utf8(&line[..tab]).ok()?;
        let mut fields = head.split(' ');
        let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
        let oid = fields.nth(1).filter(|oid| is_oid(oid))?;
        Some((line[tab + 1..].to_vec(), (mode, oid.to_owned())))
    };
    Ok(split_zero(&answer).filter_map(entry).collect())
}

struct Maker<'a> {
    git: &'a Git,
    brought: &'a Brought,
}

impl Maker<'_> {
    /// Makes a tree; fails where an object of it is missing.
    fn tree(&self, listed: &Listed) -> Result<String> {
        let index = self.brought.scratch.path().join("index-of-part");
        crate::temporary::remove(&index)?;
        let git = self
            .git
            .clone()
            .env("GIT_INDEX_FILE", &index)
            .set("core.protectHFS=true")
            .set("core.protectNTFS=true");
        let mut lines = Vec::new();
        for (path, (mode, oid)) in listed {
            index_line(&mut lines, *mode, oid, path);
        }
        if !lines.is_empty() {
            git.run(["update-index", "-z", "--index-info"], &lines)?;
        }
        git.text(["write-tree"]).context("cannot make a tree of the guest's files")
    }
}
