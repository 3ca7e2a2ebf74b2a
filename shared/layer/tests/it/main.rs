//! Layers become disks; the disks are read back by others.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod escapes;
mod exhaustion;
mod memory;
mod metadata;
mod packing;
mod random;
mod stack;
mod support;
mod syntax;
mod traced;
