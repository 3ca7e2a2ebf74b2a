//! Lists kernels.

fn main() {}
