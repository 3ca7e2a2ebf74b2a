//! Copies a registered image's disk into the state.

fn main() {}
