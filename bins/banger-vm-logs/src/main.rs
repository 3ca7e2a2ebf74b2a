//! Prints a VM's console.

fn main() {}
