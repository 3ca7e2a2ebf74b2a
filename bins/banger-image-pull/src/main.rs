//! Pulls an image and makes it a bootable disk.

fn main() {}
