//! The contract of `banger-image-show`.
