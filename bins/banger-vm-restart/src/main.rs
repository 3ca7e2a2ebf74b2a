//! Stops and starts VMs.

fn main() {}
