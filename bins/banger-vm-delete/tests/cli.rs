//! The contract of `banger-vm-delete`.
