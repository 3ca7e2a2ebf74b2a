//! `banger.check/1` and `banger.removed/1`: what `doctor` finds and what `gc` and `prune` free.

use crate::Document;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a check came out.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// Works, but less well than it could.
    Warn,
    /// Something banger needs is missing.
    Fail,
    /// Nothing that could be wrong: a setting in force, or what is of no use here.
    Info,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
            Self::Info => "INFO",
        })
    }
}

/// `banger.check/1`: one thing `banger doctor` looked at.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Check {
    /// What was looked at; the same word on every host.
    pub name: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found.
    pub message: String,
    /// The command, or the sentence, that mends it on this distribution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Document for Check {
    const SCHEMA: &'static str = "banger.check/1";
}

/// `banger.removed/1`: something that was removed, or would be with `--dry-run`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Removed {
    /// What sort of thing: `vm`, `image`, `kernel`, `blob`, `litter`, `socket`, `process`, `lease`,
    /// `control group`, `export`, `allowed`, `kept`.
    pub what: String,
    /// Its name, or its path below the state directory.
    pub name: String,
    /// Bytes this freed on disk.
    pub freed_bytes: u64,
    /// Whether it was only looked at.
    #[serde(default)]
    pub dry_run: bool,
}

impl Document for Removed {
    const SCHEMA: &'static str = "banger.removed/1";
}
