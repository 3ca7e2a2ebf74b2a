//! `banger.exit/1`: how a VM's last run ended.

use crate::{Document, Kind};
use serde::{Deserialize, Serialize};

/// Why a run ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It was asked to stop and shut down in order.
    Stopped,
    /// It was asked to stop and had to be forced, or was killed.
    Killed,
    /// The guest shut itself down.
    GuestShutdown,
    /// The VMM could not be started.
    StartFailed,
    /// The VMM ended unasked.
    VmmEnded,
}

/// `banger.exit/1`, kept as `vms/NAME/last-exit.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Exit {
    /// Why it ended.
    pub reason: Reason,
    /// What happened, in words.
    pub message: String,
    /// What sort of failure it was, for a run that could not begin: `unavailable`, the host lacks
    /// something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// What to type next, where there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Exit status of the VMM, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm_status: Option<i32>,
    /// Signal that ended the VMM, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm_signal: Option<i32>,
    /// Whether both disks were left clean.
    pub disks_clean: bool,
    /// When it ended, in seconds since 1970.
    pub ended_unix_s: u64,
    /// The last lines of the console.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub console_tail: Vec<String>,
}

impl Exit {
    /// Says whether this is an end somebody wanted.
    pub fn is_orderly(&self) -> bool {
        matches!(self.reason, Reason::Stopped | Reason::Killed | Reason::GuestShutdown)
    }
}

impl Document for Exit {
    const SCHEMA: &'static str = "banger.exit/1";
}
