//! The contract of `banger-vm-kill`.
