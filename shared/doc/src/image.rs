//! `banger.image/1`: a base disk made from an image.

use crate::{Document, Name};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// `banger.image/1`, kept as `images/NAME/image.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Image {
    /// Its name.
    pub name: Name,
    /// Where it came from: a full OCI reference, `oci:PATH`, `recipe:NAME`, `file:PATH`, `stdin`.
    pub source: String,
    /// Digest of the manifest it was made from, `sha256:HEX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether the disk lies in the state directory; a registered image names files of the user's.
    pub managed: bool,
    /// The base disk: a file name in the image's folder if managed, else an absolute path.
    pub rootfs: PathBuf,
    /// Apparent size of the base disk, in bytes.
    pub size_bytes: u64,
    /// Bytes of the base disk that hold something.
    pub used_bytes: u64,
    /// Inodes in use on the base disk.
    pub inodes: u64,
    /// Processor, in the OCI image specification's words: `amd64`, `arm64`.
    pub architecture: String,
    /// The kernel it boots with unless the VM names another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Name>,
    /// What the image says of how to run it.
    #[serde(default)]
    pub config: ImageConfig,
    /// When it was made here, in seconds since 1970.
    pub created_unix_s: u64,
}

impl Document for Image {
    const SCHEMA: &'static str = "banger.image/1";
}

/// The part of an OCI image configuration that a VM honours (OCI image-spec, `config.md`).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ImageConfig {
    /// Environment, `NAME=value` each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Directory a command starts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// User a command runs as: `user`, `uid`, `user:group`, `uid:gid` and mixtures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Command line, first part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Command line, second part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Signal that asks the command to end, such as `SIGTERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}
