//! PID 1 of the initramfs: makes the root and hands over to the image.

fn main() {}
