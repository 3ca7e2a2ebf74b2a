//! Layers become disks; the disks are read back by others.

mod escapes;
mod exhaustion;
mod metadata;
mod packing;
mod random;
mod stack;
mod support;
mod syntax;
