//! Writes ext4 images in one pass, without root.
//!
//! There are two kinds. [`write_empty`] makes an empty, writable file system with a journal.
//! A [`Disk`] becomes a read-only one that is full from the start: [`Source`]s put the content of
//! files on it while it comes, a [`Tree`] says what is where, and [`Disk::finish`] writes the rest.
//! [`from_directory`] does that with a directory of the host.

mod bytes;
mod checksum;
mod directory;
mod disk;
mod empty;
mod extent;
mod hash;
mod host;
mod inode;
mod layout;
mod place;
mod source;
mod tree;
mod xattr;

pub use disk::Disk;
pub use empty::write_empty;
pub use host::{from_directory, uuid};
pub use inode::Time;
pub use layout::{BLOCK, MAX_LINKS};
pub use source::{Body, Source, Span, Store, Text, Xattrs};
pub use tree::{Id, Meta, Tree};
pub use xattr::is_known;

/// What the checksums of a full disk start from. It is fixed, so that they can be made before all
/// of the content, and with it the file system's own number, is known.
const SEED: u32 = 0x6261_6e67;

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
