//! The contract of `banger-image-list`.
