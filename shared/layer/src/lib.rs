//! Turns a stack of tar layers into one disk.

mod limits;

pub use banger_ext4::Summary;
pub use limits::Limits;

use banger_doc::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::sync::atomic::AtomicU64;

/// One layer of an image, from its source.
pub struct Layer {
    /// The digest or the file, for errors.
    pub name: String,
    /// The digest that the inflated bytes must have, `sha256:...`.
    pub diff_id: Option<String>,
    /// How many bytes will come, if that is known from the image itself. It only helps to leave
    /// no gaps on the disk; where it is known it must be the same each time, or the disk is not.
    pub size: Option<u64>,
    /// Opens the layer, in the thread that will read it.
    pub open: Box<dyn FnOnce() -> Result<Box<dyn Read + Send>> + Send>,
}

/// How far a build has come; others may look at any time.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes read from the layers as they came.
    pub bytes_in: AtomicU64,
    /// Bytes of inflated layers that were worked through.
    pub bytes_out: AtomicU64,
    /// Entries seen.
    pub entries: AtomicU64,
}

/// Writes the layers, the lowest first, to `output` as one read-only ext4 file system. The same
/// layers give the same bytes. Nothing else on the host is touched.
pub fn build(
    layers: Vec<Layer>,
    output: &File,
    limits: &Limits,
    progress: &Progress,
) -> Result<Summary> {
    let _ = (layers, output, limits, progress);
    Err(Error::unavailable("layers cannot be written yet"))
}
