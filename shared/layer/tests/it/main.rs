//! Layers become disks; the disks are read back by others.

mod stack;
mod support;
