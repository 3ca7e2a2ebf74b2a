//! Writes ext4 images in one pass, without root.

mod bytes;
mod checksum;
mod empty;
mod extent;
mod inode;
mod layout;

pub use empty::write_empty;
pub use inode::Time;
pub use layout::{BLOCK, MAX_LINKS};

/// What was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Summary {
    /// How long the disk is, holes included.
    pub size_bytes: u64,
    /// How much of it is in use.
    pub used_bytes: u64,
    /// How many files, directories and others it holds.
    pub inodes: u64,
}
