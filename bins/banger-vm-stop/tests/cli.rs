//! The contract of `banger-vm-stop`.
