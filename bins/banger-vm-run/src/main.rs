//! Creates and starts a VM, runs a command or a shell in it.

fn main() {}
