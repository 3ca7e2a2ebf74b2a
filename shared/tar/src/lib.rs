//! Tar archives that everybody reads the same.
//!
//! The [`Reader`] refuses what two programs could read in two ways, the [`Writer`] writes none of it.

mod header;
mod input;
mod limits;
mod pax;
mod reader;
mod writer;

pub use input::{Buffered, Input};
pub use limits::{Limits, shown};
pub use reader::{Entry, Kind, Reader};
pub use writer::{Holes, Writer};

/// Offsets and lengths of the stretches of a file that hold data.
pub type Pieces = Vec<(u64, u64)>;
