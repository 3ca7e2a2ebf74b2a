//! The contract of `banger-vm-supervise`.
