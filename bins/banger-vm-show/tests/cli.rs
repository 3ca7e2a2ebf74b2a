//! The contract of `banger-vm-show`.
