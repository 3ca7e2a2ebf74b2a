//! The contract of `banger-vm-restart`.
