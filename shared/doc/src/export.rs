//! `banger.export/1`: what is kept of an export.

use crate::{Document, Name};
use serde::{Deserialize, Serialize};

/// `banger.export/1`, kept as `exports/NAME/export.json`: the copy of what an export brought out of a VM,
/// which outlives the VM.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ExportCopy {
    /// The copy's name: the VM's, cut where it is long, and a number.
    pub name: Name,
    /// The VM.
    pub vm: Name,
    /// Absolute path in the guest.
    pub guest_path: String,
    /// Absolute path on the host of what was prepared.
    pub host_path: String,
    /// What it is, and the file beside the document that holds it.
    pub form: ExportForm,
    /// The commit that it applies to; none if that is what went in, local edits included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// How many files it changes.
    pub files: u64,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
}

impl Document for ExportCopy {
    const SCHEMA: &'static str = "banger.export/1";
}

/// What an export is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExportForm {
    /// One patch, for `git apply`.
    #[default]
    Patch,
    /// Mails with a patch each, for `git am`.
    Mbox,
}

impl ExportForm {
    /// Returns the word for it, which is the name of the file too.
    pub fn word(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Mbox => "mbox",
        }
    }
}
