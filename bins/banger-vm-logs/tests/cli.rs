//! The contract of `banger-vm-logs`.
