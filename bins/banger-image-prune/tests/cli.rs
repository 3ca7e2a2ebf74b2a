//! The contract of `banger-image-prune`.
