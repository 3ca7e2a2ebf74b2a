//! Waits for VMs.

fn main() {}
