//! Shows kernels.

fn main() {}
