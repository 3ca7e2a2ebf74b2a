//! Shows images.

fn main() {}
