//! The contract of `banger-kernel-delete`.
