//! The contract of `banger-image-pull`.
