//! Says what host and guest have that the other lacks.

fn main() {}
