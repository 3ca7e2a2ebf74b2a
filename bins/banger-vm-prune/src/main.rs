//! Deletes every VM that does not run.

fn main() {}
