//! The files of a VM that does not run, read from its disks as its guest saw them.
//!
//! ```text
//! files()  -- a socket with descriptors -->  banger-vm-read, in the jail: serve()
//!   locks, e2fsck after a sudden end           base + overlay (overlayfs) + work disk: View
//! ```
//!
//! Nothing is mounted. What parses the disks has no files but their descriptors, open for reading; it
//! answers as the guest's agent does (`docs/agent-protocol.md`, section 7), and is believed no more.

mod merge;
mod serve;
mod session;
mod view;

pub use merge::Pair;
pub use serve::serve;
pub use session::{Source, files};
pub use view::{Disks, View};
