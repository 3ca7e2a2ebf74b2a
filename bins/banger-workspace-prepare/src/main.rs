//! Puts a repository or a directory into a VM.

fn main() {}
