//! The contract of `banger-image-delete`.
