//! Lists images.

fn main() {}
