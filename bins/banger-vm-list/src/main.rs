//! Lists VMs.

fn main() {}
