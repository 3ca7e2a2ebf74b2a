//! The contract of `banger-gc`.
