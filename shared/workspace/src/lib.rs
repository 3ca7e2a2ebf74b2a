//! A repository on its way into a VM, and the work on its way out.
//!
//! All of git runs on the host, in repositories that banger made: [`prepare()`] builds a ready `.git`
//! and sends it with the files; [`Export`] scans the guest's tree, takes over what changed, and
//! makes a patch of it. Neither side runs anything of the other's, and the host's repository is
//! only read. What a guest says is hostile: see `banger_channel::files`.

mod apply;
mod attributes;
mod bring;
mod checkout;
mod copy;
mod export;
mod folders;
mod git;
mod given;
mod guest;
mod host;
mod include;
mod index;
mod journal;
mod kept;
mod load;
mod mails;
mod mbox;
mod names;
mod offer;
mod path;
mod plan;
mod prepare;
mod pull;
mod push;
mod ready;
mod record;
mod refs;
mod remotes;
mod scratch;
mod send;
mod sides;
mod source;
mod status;
mod store;
mod temporary;
mod tools;
mod under_way;
mod unit;
mod walk;
mod watch;
mod wip;
mod wish;

pub use apply::{Apply, Onto, refusal};
pub use export::{Export, Want};
pub use folders::{
    Place, bring_to_its_place, choose, folder, folder_at, folder_of, folders, records, user_of,
};
pub use host::head_of;
pub use index::check_index;
pub use kept::{Keeper, Over, remove_kept};
pub use offer::Offer;
pub use prepare::{GUEST_PATH, dry_run, is_gone, prepare, trusted_before};
pub use push::{Outcome, Push, branch_of, check_refs};
pub use record::read;
pub use status::{
    Stake, budget, files_of, guest_work, or_more_time, place_of, stake, status, way_out,
};
pub use tools::{
    ToolFile, all_allowed, allow, allowed_files, forget, refused, root_of, tool_files,
};
pub use under_way::clear_ready;
pub use watch::{Batch, End, Guest, Leave, News, Scratch, Standing, watch};
pub use wish::Wish;
