//! A repository on its way into a VM, and the work on its way out.
//!
//! All of git runs on the host, in repositories that banger made: [`prepare()`] builds a ready `.git`
//! and sends it with the files; [`Export`] scans the guest's tree, takes over what changed, and
//! makes a patch of it. Neither side runs anything of the other's, and the host's repository is
//! only read. What a guest says is hostile: see `banger_channel::files`.

mod attributes;
mod copy;
mod export;
mod git;
mod given;
mod guest;
mod host;
mod index;
mod journal;
mod load;
mod names;
mod path;
mod plan;
mod prepare;
mod ready;
mod record;
mod remotes;
mod scratch;
mod send;
mod source;
mod status;
mod store;
mod temporary;
mod tools;
mod unit;
mod walk;
mod watch;
mod wish;

pub use export::{Export, Want};
pub use host::head_of;
pub use index::check_index;
pub use prepare::{GUEST_PATH, dry_run, prepare, trusted_before, usual_path};
pub use record::read;
pub use status::{
    Stake, at_stop, budget, files_of, guest_work, or_more_time, place_of, record_stop, stake,
    status,
};
pub use tools::{
    ToolFile, all_allowed, allow, allowed_files, forget, refused, root_of, tool_files,
};
pub use watch::{Batch, End, Guest, Leave, News, Scratch, Standing, watch};
pub use wish::Wish;
