//! Prints what a guest changed as a patch.

fn main() {}
