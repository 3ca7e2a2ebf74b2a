//! The contract of `banger-vm-create`.
