//! The VM as a remote of git: what is fetched, pulled and pushed.

pub(crate) mod bring;
mod checkout;
pub(crate) mod kept;
pub(crate) mod offer;
mod pull;
pub(crate) mod push;
mod wip;
