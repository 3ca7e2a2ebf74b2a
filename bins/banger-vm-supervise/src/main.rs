//! Runs one VM and holds its lock.

fn main() {}
