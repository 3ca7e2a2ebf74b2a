//! Single documents of registries, read as a pull reads them: for tests that have no registry and
//! throw broken ones.

use crate::{Digest, Platform, auth, manifest, registry};
use banger_doc::{ImageConfig, Result};

/// What a manifest says.
#[derive(Debug)]
pub enum Manifest {
    /// An image: the digests of its layers, lowest first.
    Image(Vec<Digest>),
    /// An index; the digest of the image for a platform, if it has one.
    Index(Option<Digest>),
}

/// Reads a manifest or an index that was sent with a media type.
pub fn manifest(bytes: &[u8], media_type: Option<&str>, platform: &Platform) -> Result<Manifest> {
    Ok(match manifest::parse(bytes, media_type)? {
        manifest::Manifest::Image { layers, .. } => {
            Manifest::Image(layers.iter().map(|layer| layer.digest).collect())
        }
        manifest::Manifest::Index(entries) => {
            let all: Vec<_> = entries.iter().collect();
            let found = manifest::pick(&all, platform).ok();
            let first = found.and_then(|found| found.first()?.blob().ok());
            Manifest::Index(first.map(|blob| blob.digest))
        }
    })
}

/// Reads an image's configuration, as one of this host where it does not say for whom it is.
pub fn configuration(bytes: &[u8], layers: usize) -> Result<ImageConfig> {
    manifest::parse_config(bytes, layers, &Platform::host()).map(|config| config.run)
}

/// Reads a token server's answer.
pub fn token(bytes: &[u8]) -> Result<String> {
    registry::read_token(bytes)
}

/// Reads a `WWW-Authenticate` header; returns where a token server is, if it names one.
pub fn challenge(header: &str) -> Option<String> {
    match auth::challenge(std::iter::once(header))? {
        auth::Challenge::Bearer { realm, .. } => Some(realm),
        auth::Challenge::Basic => None,
    }
}
