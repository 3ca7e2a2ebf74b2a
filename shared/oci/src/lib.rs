//! Image references, manifests, the blob cache, registries.
//!
//! [`Puller::find`] turns a [`Source`] into a [`Found`] image: its configuration and its
//! [`Layer`]s, whose bytes are checked and kept in the cache while they are read.

mod archive;
mod auth;
mod cache;
mod digest;
pub mod documents;
mod fields;
mod http;
mod layer;
mod manifest;
mod pace;
mod platform;
mod reference;
mod registry;
mod retry;
mod source;

pub use cache::{Cache, Pruned};
pub use digest::Digest;
pub use http::{Say, Settings};
pub use layer::{Layer, Progress};
pub use manifest::Blob;
pub use platform::Platform;
pub use reference::Reference;
pub use registry::Client;
pub use source::{Found, Puller, Source};
