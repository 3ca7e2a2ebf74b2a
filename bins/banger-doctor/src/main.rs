//! Says what the host lacks.

fn main() {}
