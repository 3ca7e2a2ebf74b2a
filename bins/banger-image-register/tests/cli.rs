//! The contract of `banger-image-register`.
