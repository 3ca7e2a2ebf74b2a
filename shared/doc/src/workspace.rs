//! `banger.workspace/1` and what is said of a workspace: what went into a VM, what it lacks, what
//! came out.

use crate::{Document, Name, ToolRefusal};
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

/// `banger.workspace/1`, kept as `vms/NAME/workspace/workspace.json`: what the guest was given.
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
    /// Whether it is a repository of git; a plain directory otherwise.
    pub is_repository: bool,
    /// How much of the repository went.
    #[serde(default)]
    pub mode: WorkspaceMode,
    /// Whether untracked files that no rule ignores went along.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub include_untracked: bool,
    /// Whose it is in the guest, as `--user` named it; none if it is the guest's own user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
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
    /// When it was prepared, in milliseconds since 1970.
    pub prepared_unix_ms: u64,
    /// What was found right before the VM was last stopped; gone once it is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_stop: Option<AtStop>,
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

    /// Returns the words of several.
    pub fn list(all: &[Self]) -> String {
        all.iter().map(|work| work.words.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// What was found right before a VM was stopped.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AtStop {
    /// What would be lost; empty if nothing.
    pub unexported: Vec<Work>,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
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

/// `banger.workspace-export/1`: a patch was written to a file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WorkspaceExport {
    /// The file.
    pub output: String,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// The commit that the patch applies to; none if it applies to nothing, or to the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// What it changes.
    pub changes: Vec<Change>,
    /// What the user is to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Document for WorkspaceExport {
    const SCHEMA: &'static str = "banger.workspace-export/1";
}

/// `banger.workspace-status/1`: what host and guest have that the other lacks.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WorkspaceStatus {
    /// Absolute path in the guest.
    pub guest_path: String,
    /// Absolute path on the host.
    pub host_path: String,
    /// Whether the guest could be asked; without it only the record made at stop is known.
    pub is_live: bool,
    /// Whether it is known what the guest holds.
    pub is_known: bool,
    /// What would be lost with the VM; empty if nothing.
    pub unexported: Vec<Work>,
    /// What the guest changed since it was prepared; listed only with `is_live`.
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
