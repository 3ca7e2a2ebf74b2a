//! `banger.port/1`: something that listens in a guest.

use crate::{Document, Name};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// `banger.port/1`: something that listens in a guest, as its agent says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Port {
    /// The VM.
    pub vm: Name,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The address it listens on, in the guest; `0.0.0.0` and `::` are all of them.
    pub address: IpAddr,
    /// Its number, in the guest.
    pub port: u16,
    /// A process in the guest that has it open, if one was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// That process's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
}

impl Document for Port {
    const SCHEMA: &'static str = "banger.port/1";
}
