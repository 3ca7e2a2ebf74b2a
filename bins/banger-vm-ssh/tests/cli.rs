//! The contract of `banger-vm-ssh`.
