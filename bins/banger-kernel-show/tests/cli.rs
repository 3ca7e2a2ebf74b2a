//! The contract of `banger-kernel-show`.
