//! The contract of `banger-kernel-list`.
