//! Answers the host inside the guest.

fn main() {}
