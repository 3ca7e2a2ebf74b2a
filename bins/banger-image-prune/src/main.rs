//! Frees the cache of downloaded layers.

fn main() {}
