//! Starts VMs.

fn main() {}
