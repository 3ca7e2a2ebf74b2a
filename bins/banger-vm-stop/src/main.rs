//! Stops VMs in order.

fn main() {}
