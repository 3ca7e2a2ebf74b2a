//! What a layer may ask for.

use banger_doc::{Error, visible};
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

/// The most letters of a name in an error: its beginning and its end.
const SHOWN: usize = 120;

/// Makes a name of a layer fit to be shown in an error.
pub(crate) fn shown(name: &[u8]) -> String {
    // A letter is made of four bytes at most.
    let (start, end) = match name.len().checked_sub(8 * SHOWN) {
        None => (name, &[][..]),
        Some(_) => (&name[..4 * SHOWN], &name[name.len() - 4 * SHOWN..]),
    };
    let mut text = String::new();
    for chunk in start.utf8_chunks().chain(end.utf8_chunks()) {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    visible(&text, SHOWN)
}

/// Says that a layer asked for more.
pub(crate) fn over(sentence: String) -> Error {
    Error::failed(sentence).hint("if you trust the image, raise 'image_limits' in config.toml")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_an_error_is_short_and_acts_on_nothing() {
        assert_eq!(shown("etc/motd ü".as_bytes()), "etc/motd ü");
        assert_eq!(shown(b"a\xffb\x1b[2J\n"), "a\\xffb\\u{1b}[2J\\n");
        let long = shown(&b"\xff".repeat(1_000_000));
        assert_eq!(long.chars().count(), SHOWN);
        let long = shown(format!("begin/{}/end", "d/".repeat(50_000)).as_bytes());
        assert!(long.starts_with("begin/d/") && long.ends_with("d//end"), "{long}");
    }
}
