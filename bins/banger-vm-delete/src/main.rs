//! Deletes VMs with their disks.

fn main() {}
