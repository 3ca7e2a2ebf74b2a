//! The contract of `banger-vm-start`.
