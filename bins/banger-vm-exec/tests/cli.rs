//! The contract of `banger-vm-exec`.
