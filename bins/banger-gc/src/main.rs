//! Removes what nothing owns.

fn main() {}
