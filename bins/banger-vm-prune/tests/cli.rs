//! The contract of `banger-vm-prune`.
