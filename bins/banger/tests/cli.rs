//! The contract of `banger`.
