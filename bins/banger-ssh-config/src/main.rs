//! Tells ssh how to reach VMs by name.

fn main() {}
