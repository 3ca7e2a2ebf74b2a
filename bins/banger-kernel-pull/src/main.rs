//! Brings in a kernel from the catalog.

fn main() {}
