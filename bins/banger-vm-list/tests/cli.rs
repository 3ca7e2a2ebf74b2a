//! The contract of `banger-vm-list`.
