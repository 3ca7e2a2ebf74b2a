//! Deletes kernels no VM or image uses.

fn main() {}
