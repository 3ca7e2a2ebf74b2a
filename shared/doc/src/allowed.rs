//! What the user said yes to.

use crate::Document;
use serde::{Deserialize, Serialize};

/// `banger.allowed/1`: what a repository may start by itself in a guest.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Allowed {
    /// The directory that its files lie in.
    pub path: String,
    /// The files, as they were; none where it names no tools.
    pub files: Vec<AllowedFile>,
    /// When the user said so, in milliseconds since 1970.
    pub allowed_unix_ms: u64,
}

/// A file that may have something installed and run.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AllowedFile {
    /// Path below the directory.
    pub path: String,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

/// Why the tools of a repository are not installed by themselves.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ToolRefusal {
    /// The first file that names tools and may not, below the directory.
    pub path: String,
    /// `new`: nobody said yes to it; `changed`: it is not what the user said yes to; `link`: it is no regular
    /// file, and what it leads to may change.
    pub why: String,
}

impl Document for Allowed {
    const SCHEMA: &'static str = "banger.allowed/1";
}
