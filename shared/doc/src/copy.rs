//! `banger.copy/1`: what went between the host and a guest.

use crate::{Document, Name};
use serde::{Deserialize, Serialize};

/// `banger.copy/1`: a file or a tree was copied between the host and a guest.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Copy {
    /// The VM.
    pub vm: Name,
    /// What was copied: a path of the host, `VM:PATH`, or `-` for a tar stream.
    pub from: String,
    /// Where it is now: a path of the host or `VM:PATH`.
    pub to: String,
    /// How many files, directories and links it is.
    pub entries: u64,
    /// The size of all files, in bytes, holes included; of a tar stream its length.
    pub size_bytes: u64,
    /// How many entries were left out: devices, sockets, pipes, and links of a guest that lead out.
    #[serde(default)]
    pub skipped: u64,
}

impl Document for Copy {
    const SCHEMA: &'static str = "banger.copy/1";
}
