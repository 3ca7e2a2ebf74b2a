//! The contract of `banger-ssh-proxy`.
