//! A repository on its way into a VM, and the work on its way out.
//!
//! All of git runs on the host, in repositories that banger made: [`prepare()`] builds a ready `.git`
//! and sends it with the files; [`Export`] scans the guest's tree, takes over what changed, and
//! makes a patch of it. Neither side runs anything of the other's, and the host's repository is
//! only read. What a guest says is hostile: see `banger_channel::files`.

mod apply;
mod export;
mod git;
mod guest;
mod host;
mod names;
mod path;
mod prepare;
mod record;
mod remote;
mod scratch;
mod status;
mod temporary;
mod watch;

pub use apply::{Apply, Onto, refusal};
pub use export::{Export, Want};
pub use host::head_of;
pub use host::index::check_index;
pub use host::tools::{
    ToolFile, all_allowed, allow, allowed_files, forget, refused, root_of, tool_files,
};
pub use prepare::wish::Wish;
pub use prepare::{GUEST_PATH, dry_run, is_gone, prepare, trusted_before};
pub use record::folders::{
    Place, bring_to_its_place, choose, folder, folder_at, folder_of, folders, records, user_of,
};
pub use record::read;
pub use record::under_way::clear_ready;
pub use remote::kept::{Keeper, Over, remove_kept};
pub use remote::offer::Offer;
pub use remote::push::{Outcome, Push, branch_of, check_refs};
pub use status::{
    Stake, budget, files_of, guest_work, or_more_time, place_of, stake, status, way_out,
};
pub use watch::{Batch, End, Guest, Leave, News, Scratch, Standing, watch};
