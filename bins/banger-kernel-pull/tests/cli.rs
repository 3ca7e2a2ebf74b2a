//! The contract of `banger-kernel-pull`.
