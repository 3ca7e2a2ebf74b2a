//! Makes a disk of a root file system in a tar archive.

fn main() {}
