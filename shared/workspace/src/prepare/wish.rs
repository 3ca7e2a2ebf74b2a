//! What a user asks of a workspace that goes in.

use banger_doc::{AllowedFile, WorkspaceMode};
use std::path::{Path, PathBuf};

/// What is asked of a prepare.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What the VM is called.
    pub vm: String,
    /// The repository or directory on the host, or a path inside it.
    pub path: PathBuf,
    /// Where it goes in the guest.
    pub guest_path: String,
    /// Whether somebody named that place: another repository that is there is moved aside.
    pub is_named: bool,
    /// Whose it is in the guest; the guest's own user's otherwise.
    pub user: Option<String>,
    /// How much of the repository goes.
    pub mode: WorkspaceMode,
    /// A branch that is to be made in the guest alone.
    pub branch: Option<String>,
    /// What that branch begins at; HEAD otherwise.
    pub from: Option<String>,
    /// Whether untracked files go.
    pub include_untracked: bool,
    /// Which untracked and ignored files go whatever rules say: patterns as in `.gitignore`, which the record
    /// keeps.
    pub include: Vec<String>,
    /// The same by the configuration, which says so each time.
    pub configured_include: Vec<String>,
    /// Whether what was taken along before stays behind unless it is asked for again.
    pub no_include: bool,
    /// Whether work of the guest may be overwritten.
    pub force: bool,
    /// Directories of git's outside the repository that it may lead to, which the record keeps.
    pub trusted: Vec<PathBuf>,
    /// The same by the configuration, which says so each time.
    pub configured: Vec<PathBuf>,
    /// Files that name tools, as the user said yes to them.
    pub allowed: Vec<AllowedFile>,
}

impl Wish {
    /// Asks for nothing but that the repository or directory at `path` goes to `guest_path` of a VM.
    pub fn of(vm: &str, path: &Path, guest_path: &str) -> Self {
        Self {
            vm: vm.to_owned(),
            path: path.to_owned(),
            guest_path: guest_path.to_owned(),
            is_named: false,
            user: None,
            mode: WorkspaceMode::Shallow,
            branch: None,
            from: None,
            include_untracked: false,
            include: Vec::new(),
            configured_include: Vec::new(),
            no_include: false,
            force: false,
            trusted: Vec::new(),
            configured: Vec::new(),
            allowed: Vec::new(),
        }
    }

    /// Returns all directories outside the repository that it may lead to.
    pub(crate) fn all_trusted(&self) -> Vec<PathBuf> {
        self.trusted.iter().chain(&self.configured).cloned().collect()
    }
}
