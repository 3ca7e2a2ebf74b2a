//! The contract of `banger-kernel-import`.
