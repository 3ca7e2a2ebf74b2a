//! What a layer may ask for.

use banger_doc::Error;
use banger_tree::MAX_DEPTH;

/// The bounds that keep a hostile image from filling the disk, the memory or the day.
///
/// Names are at most 255 bytes whatever the limits say: the disk cannot keep longer ones.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Layers in one image.
    pub layers: usize,
    /// Entries in all layers together, markers included.
    pub entries: u64,
    /// Bytes of a path.
    pub path_bytes: usize,
    /// Names in a path.
    pub depth: usize,
    /// Bytes of names, link targets and small attributes of all layers together: they are kept in memory.
    pub name_bytes: u64,
    /// Bytes of one extended header.
    pub header_bytes: u64,
    /// Extended attributes of one entry.
    pub xattrs: usize,
    /// Bytes of all layers together once they are inflated.
    pub bytes: u64,
    /// Bytes of one file, holes included.
    pub file_bytes: u64,
    /// Separate stretches of data of all files together.
    pub extents: u64,
    /// How many bytes a layer may put on the disk for each byte it came as, once it has put 256 MiB there.
    pub ratio: u64,
    /// The binary logarithm of the window a zstd layer may ask for.
    pub window_log: u32,
}

/// What lets through what asks for more.
const RAISE: &str = "if you trust the image, raise 'image_limits' in config.toml";

/// Says that a layer asked for more.
pub(crate) fn over(sentence: String) -> Error {
    Error::failed(sentence).hint(RAISE)
}

impl Limits {
    /// Returns those that hold for an archive while it is read.
    pub(crate) fn of_an_archive(&self) -> banger_tar::Limits {
        banger_tar::Limits {
            header_bytes: self.header_bytes,
            xattrs: self.xattrs,
            idle_sizes: true,
            raise: Some(RAISE),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layers: 512,
            entries: 1_000_000,
            path_bytes: 4096,
            depth: MAX_DEPTH,
            name_bytes: 64 << 20,
            header_bytes: 1 << 20,
            xattrs: 256,
            bytes: 64 << 30,
            file_bytes: 1 << 40,
            extents: 2_000_000,
            ratio: 200,
            window_log: 27,
        }
    }
}
