//! Deletes images no VM uses.

fn main() {}
