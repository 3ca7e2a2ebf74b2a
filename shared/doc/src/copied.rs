//! `banger.copied/1`: what `vm cp` copied.

use crate::{Document, Name};
use serde::{Deserialize, Serialize};

/// `banger.copied/1`: what `vm cp` copied.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Copied {
    /// The VM.
    pub vm: Name,
    /// Where it is now: a path of the guest or of the host.
    pub path: String,
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Devices, sockets and pipes, which are not copied.
    pub skipped: u64,
    /// Size of the files together, in bytes.
    pub bytes: u64,
}

impl Document for Copied {
    const SCHEMA: &'static str = "banger.copied/1";
}
