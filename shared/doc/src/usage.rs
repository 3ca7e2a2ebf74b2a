//! `banger.usage/1`: the room an object takes.

use crate::Document;
use serde::{Deserialize, Serialize};

/// `banger.usage/1`: the room one object takes on disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Usage {
    /// What sort of thing: `vm`, `image`, `kernel`, `exports`, `cache`, `litter`, `total`.
    pub what: String,
    /// Its name; empty for exports, the cache and the total.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Bytes on disk that go when this object goes.
    pub exclusive_bytes: u64,
    /// Bytes on disk that this object uses and another one owns: a VM's base and modules disks.
    pub shared_bytes: u64,
    /// Bytes its files claim to have; disks are sparse.
    pub apparent_bytes: u64,
    /// Bytes of `exclusive_bytes` that a `prune` or `gc` would free now.
    pub reclaimable_bytes: u64,
}

impl Document for Usage {
    const SCHEMA: &'static str = "banger.usage/1";
}
