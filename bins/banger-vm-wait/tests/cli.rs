//! The contract of `banger-vm-wait`.
