//! Brings in a kernel from files.

fn main() {}
