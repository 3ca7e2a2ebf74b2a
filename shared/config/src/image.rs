//! Where images come from, and what one may ask for.

use crate::Size;
use banger_doc::{Error, Result};
use serde::Deserialize;

/// One `[[mirrors]]`.
#[derive(Clone, Debug, Deserialize)]
pub struct Mirror {
    /// The registry that is not asked first: `host` or `host:port`.
    pub registry: String,
    /// Where to ask in its place: `host[:port]`, with a path if the mirror keeps it below one.
    pub mirror: String,
}

/// `[image_limits]`: an image that asks for more is refused. An absent one is the layers' own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ImageLimits {
    /// Layers.
    pub layers: Option<u32>,
    /// Entries of all layers together.
    pub entries: Option<u64>,
    /// Bytes of a path.
    pub path_bytes: Option<u32>,
    /// Names in a path.
    pub depth: Option<u32>,
    /// Bytes of all names, link targets and attributes together, which are kept in memory.
    pub name_bytes: Option<Size>,
    /// Bytes of one extended header.
    pub header_bytes: Option<Size>,
    /// Extended attributes of one entry.
    pub xattrs: Option<u32>,
    /// Bytes of all layers together, unpacked.
    pub bytes: Option<Size>,
    /// Bytes of one file, holes included.
    pub file_bytes: Option<Size>,
    /// Separate stretches of data of all files together.
    pub extents: Option<u64>,
    /// Bytes on the disk for each byte a layer came as.
    pub ratio: Option<u64>,
    /// How far back a layer packed by zstd may look: a power of two.
    pub window: Option<Size>,
}

/// Builders stop at 127; no manifest with more than this is read at all.
const MOST_LAYERS: u64 = 512;
/// What zstd takes on every host.
const MOST_WINDOW: u64 = 1 << 30;

impl Mirror {
    pub(crate) fn check(&self) -> Result<()> {
        let plain = |text: &str| {
            !text.is_empty()
                && !text.contains("//")
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-_/[]".contains(&b))
        };
        if !plain(&self.registry) || self.registry.contains('/') {
            return Err(Error::usage(format!(
                "registry '{}' has to be 'host' or 'host:port'",
                self.registry.escape_debug()
            ))
            .hint("write it as in the names of images: registry = \"docker.io\""));
        }
        if !plain(&self.mirror) || self.mirror.starts_with('/') || self.mirror.ends_with('/') {
            return Err(Error::usage(format!(
                "mirror '{}' has to be 'host', 'host:port' or 'host/path', without a scheme",
                self.mirror.escape_debug()
            ))
            .hint(
                "write it as mirror = \"mirror.lan:5000/hub\"; it is reached by HTTPS unless its \
                 host is in insecure_registries",
            ));
        }
        Ok(())
    }
}

impl ImageLimits {
    pub(crate) fn check(&self) -> Result<()> {
        let counts = [
            ("layers", self.layers.map(u64::from), MOST_LAYERS),
            ("entries", self.entries, u64::from(u32::MAX)),
            ("path_bytes", self.path_bytes.map(u64::from), 1 << 20),
            ("depth", self.depth.map(u64::from), 4096),
            ("xattrs", self.xattrs.map(u64::from), 4096),
            ("extents", self.extents, u64::from(u32::MAX)),
            ("ratio", self.ratio, u64::MAX),
        ];
        for (key, value, most) in counts {
            if let Some(value) = value.filter(|value| !(1..=most).contains(value)) {
                return Err(Error::usage(format!(
                    "image_limits.{key} is {value}; it has to be from 1 to {most}"
                )));
            }
        }
        if let Some(window) = self.window
            && !(window.bytes().is_power_of_two()
                && (1 << 10..=MOST_WINDOW).contains(&window.bytes()))
        {
            return Err(Error::usage(format!(
                "image_limits.window is {window}; it has to be a power of two from 1K to 1G"
            )));
        }
        // Names are found by 32-bit numbers.
        for (key, value) in [("name_bytes", self.name_bytes), ("header_bytes", self.header_bytes)] {
            if let Some(value) = value.filter(|value| value.bytes() > 1 << 30) {
                return Err(Error::usage(format!(
                    "image_limits.{key} is {value}; it has to be at most 1G"
                )));
            }
        }
        Ok(())
    }
}
