//! Tar archives that everybody reads the same.
//!
//! The [`Reader`] refuses what two programs could read in two ways.

mod header;
mod limits;
mod pax;
mod reader;

pub use limits::{Limits, shown};
pub use reader::{Entry, Input, Kind, Reader};

/// Offsets and lengths of the stretches of a file that hold data.
pub type Pieces = Vec<(u64, u64)>;

/// The most directories that a path may go through where it becomes one of the host. Whatever
/// walks or removes a tree can count on it.
pub const MAX_DEPTH: usize = 200;
