//! Opens a shell in a VM over ssh.

fn main() {}
