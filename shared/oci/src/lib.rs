//! Image references, manifests, the blob cache, registries.
