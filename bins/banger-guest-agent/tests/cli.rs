//! The contract of `banger-guest-agent`.
