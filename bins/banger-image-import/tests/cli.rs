//! The contract of `banger-image-import`.
