//! Registers a disk that lies elsewhere.

fn main() {}
