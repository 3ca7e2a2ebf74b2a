//! The contract of `banger-ssh-config`.
