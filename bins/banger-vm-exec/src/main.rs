//! Runs a command in a VM.

fn main() {}
