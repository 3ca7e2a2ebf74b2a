//! The contract of `banger-guest-init`.
