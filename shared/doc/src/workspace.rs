//! `banger.workspace/1` and what is said of a workspace: what went into a VM, what it lacks, what
//! came out.

use crate::{Document, ExportForm, Name, ToolRefusal};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// How much of a repository goes into a VM.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceMode {
    /// The last commits of the branch, and the files.
    #[default]
    Shallow,
    /// The whole history, all branches and tags, submodules, and the files.
    FullCopy,
}

impl FromStr for WorkspaceMode {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<Self> {
        match text {
            "shallow" => Ok(Self::Shallow),
            "full_copy" => Ok(Self::FullCopy),
            _ => Err(crate::Error::usage(format!("'{text}' is neither shallow nor full_copy"))),
        }
    }
}

impl fmt::Display for WorkspaceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shallow => "shallow",
            Self::FullCopy => "full_copy",
        })
    }
}

/// `banger.workspace/1`, kept as `vms/NAME/workspaces/ID/workspace.json`: what the guest was given.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Workspace {
    /// Absolute path in the guest.
    pub guest_path: String,
    /// Absolute path in the guest of the directory in it that was named on the host, where commands start; none
    /// if the whole was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_path: Option<String>,
    /// Absolute path on the host.
    pub host_path: String,
    /// Whose it is in the guest, as `--user` said; the guest's own user's otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether it is a repository of git; a plain directory otherwise.
    pub is_repository: bool,
    /// How much of the repository went.
    #[serde(default)]
    pub mode: WorkspaceMode,
    /// Format of object names, `sha1` or `sha256`.
    pub object_format: String,
    /// The commit that the guest's files are based on; none without commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// The commit that was HEAD on the host; none without commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_commit: Option<String>,
    /// The tree of the files as they were given, local edits included.
    pub prepared_tree: String,
    /// Where the guest's HEAD, references and index were left.
    pub given: Position,
    /// What was last exported; none if nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exported: Option<Exported>,
    /// What git brought out of the guest (`banger workspace pull`, `git fetch`), by repository of the host's; it
    /// counts for as long as the references are there that keep it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pulled: Vec<Pulled>,
    /// The file beside this one that lists what the guest was given.
    pub tree_file: String,
    /// What an update that has not been seen to end was to give: a file as `tree_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_tree_file: Option<String>,
    /// Where that update was to leave the guest's HEAD, references and index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Position>,
    /// How many files, links and empty directories were given.
    pub files: u64,
    /// How many untracked files stayed on the host.
    #[serde(default)]
    pub untracked_left: u64,
    /// The first 20 of these; bytes that are not UTF-8 are `\xNN`, a backslash is two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untracked_left_paths: Vec<String>,
    /// Whether untracked files were asked for.
    #[serde(default)]
    pub include_untracked: bool,
    /// Patterns of untracked and ignored files that go, as `--include` gave them; those of the configuration are
    /// read each time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// When its place was first prepared, in milliseconds since 1970.
    #[serde(default)]
    pub first_unix_ms: u64,
    /// When it was prepared, in milliseconds since 1970.
    pub prepared_unix_ms: u64,
    /// Directories of git's outside the repository that it may lead to, as `--trust-git-dir` named them; those of
    /// the configuration are read each time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_git_dirs: Vec<String>,
    /// Whether files that name tools are among those that were given, and the user said yes to all of them as
    /// they went (`banger allow`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tools_allowed: bool,
    /// Which of them keeps that from being so; none if there are no such files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools_refused: Option<ToolRefusal>,
    /// What the user is to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Document for Workspace {
    const SCHEMA: &'static str = "banger.workspace/1";
}

/// Where a repository's HEAD, references and index are.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    /// What HEAD holds: `ref: refs/heads/NAME`, or a commit.
    #[serde(default)]
    pub head: String,
    /// References by name.
    #[serde(default)]
    pub refs: BTreeMap<String, String>,
    /// A digest of what the index lists.
    #[serde(default)]
    pub index_sha256: String,
}

/// What was last exported.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Exported {
    /// The tree of the guest's files.
    pub tree: String,
    /// Where its HEAD, references and index were.
    pub position: Position,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
}

/// What git brought out of a guest into a repository of the host's.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Pulled {
    /// The repository's git directory, the one that all its work trees share.
    pub repository: String,
    /// References of it that keep what was brought; the object of each is the last part of its name.
    pub references: Vec<String>,
    /// Where the guest's HEAD, references and index were, as far as that was brought.
    pub position: Position,
    /// The tree of the guest's files; none if they were not brought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
}

/// Work in a guest that is nowhere else.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Work {
    /// What sort of work it is.
    pub kind: WorkKind,
    /// Where it lies, below the workspace, or absolute if it lies elsewhere; the first place if there are several.
    /// Bytes that are not UTF-8 are `\xNN`, a backslash is two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The reference that leads to it, as `refs/heads/main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// How many there are of it, where they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The same in words.
    pub words: String,
}

/// What sort of work it is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkKind {
    /// Files that were added, modified or deleted; `guest_changes` lists them.
    Changes,
    /// HEAD is at another branch or commit.
    Head,
    /// Commits that a branch, a tag or a stash leads to.
    Commits,
    /// Versions of files that are in the index alone, or an index that could not be read.
    Index,
    /// Files that left the index and lie there still, though no rule ignores them.
    Untracked,
    /// A repository inside the workspace, or one that the guest made of it.
    Repository,
    /// A linked work tree, or commits of one that is gone.
    WorkTree,
    /// Changes to files of submodules, or commits and branches of one.
    Submodule,
    /// A place that could not be looked into, or a path that git refuses.
    Unreadable,
    /// More than is listed.
    More,
}

/// How much work a sentence names.
const MOST_SAID: usize = 8;

impl Work {
    /// Returns work of a sort, with its words.
    pub fn new(kind: WorkKind, words: impl Into<String>) -> Self {
        Self { kind, path: None, reference: None, count: None, words: words.into() }
    }

    /// Says where it lies.
    #[must_use]
    pub fn at(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    /// Says which reference leads to it.
    #[must_use]
    pub fn of(self, reference: impl Into<String>) -> Self {
        Self { reference: Some(reference.into()), ..self }
    }

    /// Says how many there are of it.
    #[must_use]
    pub fn times(self, count: usize) -> Self {
        Self { count: Some(count as u64), ..self }
    }

    /// Returns the words of several, as one says them: not all if there are many, and not that a branch is
    /// checked out whose commits are named.
    pub fn list(all: &[Self]) -> String {
        let is_said = |work: &Self| {
            work.kind == WorkKind::Head
                && all.iter().any(|other| {
                    other.kind == WorkKind::Commits && other.reference == work.reference
                })
        };
        let mut said: Vec<&str> =
            all.iter().filter(|work| !is_said(work)).map(|work| work.words.as_str()).collect();
        let more = said.len().saturating_sub(MOST_SAID);
        if more <= 1 {
            return said.join(", ");
        }
        said.truncate(MOST_SAID);
        format!("{}, ... and {more} more", said.join(", "))
    }
}

/// `banger.workspace-plan/1`: what a prepare would give a guest.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WorkspacePlan {
    /// Absolute path on the host.
    pub host_path: String,
    /// Absolute path in the guest; none if only the guest can tell, which knows the home of its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_path: Option<String>,
    /// How much of the repository would go.
    pub mode: WorkspaceMode,
    /// Every file, link and empty directory; bytes that are not UTF-8 are `\xNN`, a backslash is two.
    pub files: Vec<String>,
    /// Their size, in bytes.
    pub size_bytes: u64,
    /// How many untracked files would stay on the host.
    pub untracked_left: u64,
    /// The first 20 of these; bytes that are not UTF-8 are `\xNN`, a backslash is two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untracked_left_paths: Vec<String>,
    /// The commit that the files are based on; none without commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// Those of the files that name tools, which a guest would install.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Whether the user said yes to all of these as they are (`banger allow`).
    #[serde(default)]
    pub tools_allowed: bool,
    /// Which of them keeps that from being so, where that can be told before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools_refused: Option<ToolRefusal>,
    /// What the user is to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Document for WorkspacePlan {
    const SCHEMA: &'static str = "banger.workspace-plan/1";
}

/// A path that differs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Change {
    /// Path below the root; bytes that are not UTF-8 are `\xNN`, a backslash is two.
    pub path: String,
    /// `added`, `modified` or `deleted`.
    pub how: String,
}

/// `banger.workspace-export/1`: a patch, or mails, were written to a file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WorkspaceExport {
    /// The file.
    pub output: String,
    /// What it is.
    #[serde(default)]
    pub form: ExportForm,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// The commit that the patch applies to; none if that is what went in, local edits included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// The name of the copy that is kept; none of an empty patch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Name>,
    /// What it changes.
    pub changes: Vec<Change>,
    /// What the user is to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Document for WorkspaceExport {
    const SCHEMA: &'static str = "banger.workspace-export/1";
}

/// `banger.workspace-apply/1`: a guest's work was put onto a checkout of the host's, or would be.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WorkspaceApply {
    /// Absolute path in the guest.
    pub guest_path: String,
    /// Absolute path of the checkout.
    pub host_path: String,
    /// Whether the files were changed; with `--check`, and where anything is in conflict, none was.
    pub is_applied: bool,
    /// Whether the guest's work counts as exported by this.
    pub is_exported: bool,
    /// What changed on the host, or would.
    pub changes: Vec<Change>,
    /// Those of these paths that were merged with what the host changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<String>,
    /// Why nothing can be put there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Conflict>,
    /// What the user is to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Document for WorkspaceApply {
    const SCHEMA: &'static str = "banger.workspace-apply/1";
}

/// A path that host and guest do not agree on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Conflict {
    /// Path below the root; bytes that are not UTF-8 are `\xNN`, a backslash is two.
    pub path: String,
    /// What it is about.
    pub kind: ConflictKind,
    /// The same in words, as git says it.
    pub words: String,
    /// The places where both changed the same lines, as git marks them; cut off where that is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hunks: Option<String>,
}

/// What host and guest do not agree on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictKind {
    /// Both changed the same lines.
    Content,
    /// Both changed what cannot be merged as text.
    Binary,
    /// Each has a file there that did not go in.
    AddAdd,
    /// One changed what the other deleted.
    ModifyDelete,
    /// The guest renamed what the host deleted, or something else has the new name.
    RenameDelete,
    /// A link on one side, a file or another link on the other.
    Types,
    /// A file on the host that git does not track.
    Untracked,
    /// A directory, a file in the place of one, or a pipe or a device.
    InTheWay,
    /// Staged changes on the host.
    Staged,
    /// Names that differ in case alone, where case does not count.
    Case,
}

impl ConflictKind {
    /// Returns the word that git has for it, or would have.
    pub fn word(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Binary => "binary",
            Self::AddAdd => "add/add",
            Self::ModifyDelete => "modify/delete",
            Self::RenameDelete => "rename/delete",
            Self::Types => "distinct types",
            Self::Untracked => "untracked",
            Self::InTheWay => "file/directory",
            Self::Staged => "staged",
            Self::Case => "case",
        }
    }
}

/// `banger.workspace-status/1`: what host and guest have that the other lacks.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WorkspaceStatus {
    /// Absolute path in the guest.
    pub guest_path: String,
    /// Absolute path on the host.
    pub host_path: String,
    /// Whether the VM runs; else its disks were read.
    pub is_live: bool,
    /// Whether it is known what the guest holds; not where disks cannot be read.
    pub is_known: bool,
    /// What would be lost with the VM; empty if nothing.
    pub unexported: Vec<Work>,
    /// What the guest changed since it was prepared.
    pub guest_changes: Vec<Change>,
    /// The commit that is HEAD in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_commit: Option<String>,
    /// The commit that is HEAD on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_commit: Option<String>,
    /// What the host changed since it was prepared.
    pub host_changes: Vec<Change>,
    /// What the user is to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Document for WorkspaceStatus {
    const SCHEMA: &'static str = "banger.workspace-status/1";
}

/// `banger.kept/1`: references that keep in a repository of the host's what git brought out of a VM.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Kept {
    /// The VM's name.
    pub vm: String,
    /// The VM's id.
    pub vm_id: String,
    /// The repository's git directory, the one that all its work trees share.
    pub repository: String,
    /// Format of object names there, `sha1` or `sha256`.
    pub object_format: String,
    /// The references; the object of each is the last part of its name.
    pub references: Vec<String>,
    /// When the last of them was made, in milliseconds since 1970.
    pub kept_unix_ms: u64,
    /// When `banger gc` first saw that the VM is gone, in milliseconds since 1970; none while it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_unix_ms: Option<u64>,
}

impl Document for Kept {
    const SCHEMA: &'static str = "banger.kept/1";
}

/// `banger.workspace-pull/1`: what of a guest's repository came into the host's.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WorkspacePull {
    /// The VM.
    pub vm: String,
    /// Absolute path of the repository on the host.
    pub host_path: String,
    /// The name of the remote, which is the VM's.
    pub remote: String,
    /// Whether it was added by this.
    pub remote_added: bool,
    /// References of the remote that are new or moved, or that went since the guest has no such thing any more.
    pub changed: Vec<PulledRef>,
    /// The reference to uncommitted work, as `git stash apply` takes it; none if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wip: Option<String>,
    /// What the user is to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Document for WorkspacePull {
    const SCHEMA: &'static str = "banger.workspace-pull/1";
}

/// A reference that a pull moved.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PulledRef {
    /// Its name below `refs/remotes/`, as `web/main`.
    pub name: String,
    /// What it named before; none if it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it names now; none if it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many commits it leads to that no other reference of the repository did; none where they were not
    /// counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commits: Option<u64>,
}

/// `banger.workspace-push/1`: what of the host's repository went into a guest's.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WorkspacePush {
    /// The VM.
    pub vm: String,
    /// Absolute path of the repository on the host.
    pub host_path: String,
    /// References of the guest's that were asked for, all of which are now as they were to be.
    pub references: Vec<PushedRef>,
    /// What the user is to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Document for WorkspacePush {
    const SCHEMA: &'static str = "banger.workspace-push/1";
}

/// A reference that a push set.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PushedRef {
    /// Its full name in the guest.
    pub name: String,
    /// What it named before; none if it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it names now; none if it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// `banger.workspace-watch/1`: something of the host's was brought into a guest, at once.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WorkspaceWatch {
    /// The VM.
    pub vm: Name,
    /// What changed in the guest by it.
    pub changes: Vec<Change>,
    /// What the host changed and the guest too, so that the guest keeps its own; a path is named once until both agree
    /// again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
    /// Whether the host's HEAD, references and index went along.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub git: bool,
    /// How long it took since the first of it was heard, in milliseconds.
    pub took_ms: u64,
    /// How much of that the guest took, where files alone went, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_ms: Option<u64>,
    /// When the guest had it, in milliseconds since 1970.
    pub unix_ms: u64,
}

impl Document for WorkspaceWatch {
    const SCHEMA: &'static str = "banger.workspace-watch/1";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_said_in_one_sentence() {
        let branch = |kind, words: &str| Work::new(kind, words).of("refs/heads/lines");
        let changed = Work::new(WorkKind::Changes, "3 changed files (lines.c, ...)");
        let head = branch(WorkKind::Head, "branch 'lines' checked out");
        let commits = branch(WorkKind::Commits, "2 commits on branch 'lines'");
        let said = Work::list(&[changed.clone(), head.clone(), commits]);
        assert_eq!(said, "3 changed files (lines.c, ...), 2 commits on branch 'lines'");
        assert_eq!(Work::list(std::slice::from_ref(&head)), "branch 'lines' checked out");
        let many = |count: usize| Work::list(&vec![changed.clone(); count]);
        assert_eq!(many(9).matches("lines.c").count(), 9, "one more is no shorter");
        assert!(many(128).ends_with(", ... and 120 more"), "{}", many(128));
        assert_eq!(many(128).matches("lines.c").count(), 8);
    }
}
