//! Ends VMs at once.

fn main() {}
