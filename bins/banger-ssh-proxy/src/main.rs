//! Connects ssh to the ssh server of a VM.

fn main() {}
