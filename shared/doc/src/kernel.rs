//! `banger.kernel/1`: a kernel VMs can boot.

use crate::{Document, Name};
use serde::{Deserialize, Serialize};

/// How the kernel file is made.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// An uncompressed ELF image, as Firecracker wants it on x86-64.
    Elf,
    /// An uncompressed arm64 `Image`.
    Image,
}

/// `banger.kernel/1`, kept as `kernels/NAME/kernel.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Kernel {
    /// Its name.
    pub name: Name,
    /// What `uname -r` says in a guest that runs it; the folder below `/lib/modules`.
    pub release: String,
    /// Processor, in the OCI image specification's words: `amd64`, `arm64`.
    pub architecture: String,
    /// Where it came from: `deb:FILE`, `dir:PATH`, `package:NAME`, `file:PATH`.
    pub source: String,
    /// How `vmlinux` is made.
    pub format: Format,
    /// SHA-256 of `vmlinux`, in hexadecimal.
    pub sha256: String,
    /// Size of `vmlinux`, in bytes.
    pub size_bytes: u64,
    /// Whether `modules.ext4` is there; a kernel with everything built in needs none.
    pub has_modules: bool,
    /// Modules that the first part of its initramfs loads, in order.
    #[serde(default)]
    pub boot_modules: Vec<String>,
    /// When it was brought here, in seconds since 1970.
    pub created_unix_s: u64,
}

impl Document for Kernel {
    const SCHEMA: &'static str = "banger.kernel/1";
}
