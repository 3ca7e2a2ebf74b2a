//! How an image becomes a published disk: written from layers, checked, shown while it happens,
//! kept as long as VMs use it.

mod check;
mod disk;
pub mod progress;

pub use banger_cli::interrupt;
pub use banger_layer::{Limits, Top};
pub use check::{Checked, check};
pub use disk::{copy, freed_bytes, limits, no_room, publish, republish, users, write, write_root};
