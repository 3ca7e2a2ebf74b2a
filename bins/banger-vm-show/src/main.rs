//! Shows VMs.

fn main() {}
