//! Creates a VM.

fn main() {}
