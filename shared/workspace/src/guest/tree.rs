//! The guest's files as a tree of git's.

use super::{
    found::{Changes, How, Look},
    ignored::write_rules,
};
use crate::{
    git::{Git, LINK, MODULE, split_zero},
    host::index::index_line,
    path::parents,
    prepare::plan::has_git,
    record::given::{Sort, Tree},
    record::store::Store,
    scratch::Scratch,
};
use banger_channel::files::{Files, Got, What};
use banger_doc::{Context, Error, Result};
use std::{fmt::Write as _, fs};

/// Makes the tree of the guest's files, in scratch objects, and returns its name.
pub(crate) fn tree_of(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    scratch: &Scratch,
    given: &Tree,
    look: &Look,
    keeps_mode: bool,
) -> Result<String> {
    let git = store
        .git_for_guest(Some(scratch))
        .work_tree(&scratch.tree())
        .set("core.protectHFS=true")
        .set("core.protectNTFS=true")
        .set("core.safecrlf=false")
        .set("core.bigFileThreshold=64m")
        .set(format!("core.fileMode={}", !keeps_mode));
    let mut lines = Vec::new();
    for (path, given) in given {
        if given.sort == Sort::Inner || given.sort == Sort::Dir || has_git(path) {
            continue;
        }
        // Also those that changed: whether a file is text may depend on what it was.
        if !given.oid.is_empty() {
            index_line(&mut lines, given.mode, &given.oid, path);
        }
    }
    git.run(["update-index", "-z", "--index-info"], &lines)
        .context("cannot read back what the guest was given")?;
    let (mut gone, mut modules) = (Vec::new(), Vec::new());
    let mut changed: Vec<&[u8]> = Vec::new();
    for (path, how) in &look.changes {
        let is_listed = look.index.tracked.contains(path);
        if !is_listed && given.get(path).is_some_and(|given| given.sort == Sort::Inner) {
            continue;
        }
        if parents(path).any(|dir| dir != path && look.index.modules.contains_key(dir)) {
            // Files of a submodule would take its place.
            continue;
        }
        let is_kept =
            look.entries.get(path).is_some_and(|e| matches!(e.what, What::File | What::Link));
        if let Some(oid) = look.index.modules.get(path) {
            index_line(&mut modules, MODULE, oid, path);
        } else if is_kept && *how != How::Deleted {
            changed.push(path);
        } else if *how != How::Added && !look.index.skipped.contains(path) {
            gone.extend_from_slice(path);
            gone.push(0);
        }
    }
    if !gone.is_empty() {
        git.run(["update-index", "-z", "--force-remove", "--stdin"], &gone)?;
    }
    if !modules.is_empty() {
        git.run(["update-index", "-z", "--replace", "--index-info"], &modules)?;
    }
    if !changed.is_empty() {
        write_rules(files, root, store, look, b".gitattributes", b".gitattributes", scratch)?;
        add_changed(files, root, &git, scratch, look, &changed)?;
    }
    let tree = git.text(["write-tree"]).context("cannot make a tree of the guest's files")?;
    Ok(tree)
}

fn add_changed(
    files: &Files<'_>,
    root: &str,
    git: &Git,
    scratch: &Scratch,
    look: &Look,
    changed: &[&[u8]],
) -> Result<()> {
    let mut entries = changed.iter().filter_map(|path| look.entries.get(*path));
    let size = entries.try_fold(64 << 20, |sum: u64, entry| sum.checked_add(entry.size));
    // What grows a little meanwhile is no reason to give up; what is endless is. What the guest says makes
    // it less, and never more.
    let files = files.within(|budget| budget.bytes(size.unwrap_or(u64::MAX)));
    let mut regular = Vec::new();
    let mut links: Vec<&[u8]> = Vec::new();
    let mut targets = String::new();
    files
        .get(root, changed, |index, got| {
            let path = changed[index];
            match got {
                Got::File { mode, content, .. } => {
                    scratch.write(path, mode & 0o100 != 0, content)?;
                    regular.extend_from_slice(path);
                    regular.push(0);
                }
                Got::Link(target) => {
                    let file = scratch.path().join("links").join(links.len().to_string());
                    fs::write(&file, target).context("cannot write a link")?;
                    let _ = writeln!(targets, "{}", file.display());
                    links.push(path);
                }
                Got::Missing => {
                    return Err(Error::conflict(format!(
                        "'{}' went away while it was read",
                        path.escape_ascii()
                    ))
                    .hint("try again"));
                }
            }
            Ok(())
        })
        .map_err(|error| {
            error.or_hint("a rule in '.gitignore' keeps a file out, 'banger vm cp' copies it")
        })?;
    if !regular.is_empty() {
        git.run(["update-index", "--add", "--replace", "-z", "--stdin"], &regular)
            .context("cannot take over the guest's files")?;
    }
    if !links.is_empty() {
        let words = ["hash-object", "-w", "--no-filters", "--stdin-paths"];
        let oids = git.run(words, targets.as_bytes())?;
        let mut lines = Vec::new();
        for (path, oid) in links.iter().zip(String::from_utf8_lossy(&oids).lines()) {
            index_line(&mut lines, LINK, oid, path);
        }
        git.run(["update-index", "-z", "--replace", "--index-info"], &lines)?;
    }
    Ok(())
}

/// Returns what a patch between two trees changes.
pub(crate) fn differences(git: &Git, base: &str, tree: &str) -> Result<Changes> {
    let words =
        ["diff-tree", "-r", "-z", "--no-renames", "--name-status", "--ignore-submodules=none"];
    let answer = git.run(words.iter().copied().chain([base, tree]), b"")?;
    let mut fields = split_zero(&answer);
    let mut changes = Changes::new();
    while let (Some(how), Some(path)) = (fields.next(), fields.next()) {
        let how = match how {
            b"A" => How::Added,
            b"D" => How::Deleted,
            _ => How::Modified,
        };
        changes.insert(path.to_vec(), how);
    }
    Ok(changes)
}
