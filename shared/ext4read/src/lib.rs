//! Reads ext4 images that somebody hostile may have written.
//!
//! Nothing that an image says is believed: every place is checked against the file's end, no memory is taken
//! because a number claims so, nothing goes deeper than ext4 does, and each step of a loop comes nearer to
//! its end. What is damaged is an error of the kind `InvalidData`; what looks whole and is not gives wrong
//! content, and nothing worse: checksums are not looked at, since who can write a disk can write those.
//!
//! The journal is not played back: whoever reads a disk that was not unmounted repairs it first.

mod bytes;
mod directory;
mod disk;
mod extent;
mod inode;
mod xattr;

pub use disk::Disk;
pub use extent::Content;
pub use inode::{Inode, Sort, Time};

/// Says that an image is damaged.
fn damaged(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, format!("the disk is damaged: {what}"))
}

/// Says that an image has what this does not read.
fn unknown(what: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::Unsupported, what)
}
