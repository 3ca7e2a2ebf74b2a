//! The contract of `banger-vm-run`.
