//! Gives a VM a network namespace of its own, without root.
//!
//! [`Network::make`] starts a small process, the holder, that makes a user namespace and a network
//! namespace, puts a tap into it, and hands the tap's descriptor back. [`Network::lead_out`]
//! starts the way out: a `pasta` (passt) that owns the other interface in there, and turns the guest's
//! connections into sockets of an ordinary user. Between the two interfaces the kernel routes, under an nftables
//! ruleset. No packet of the guest reaches the host's loopback unless [`Options::allow_host`].
//!
//! ```text
//!  guest eth0 -- tap0 [ namespace: route, masquerade ] pasta0 -- pasta -- sockets of the host
//! ```
//!
//! Every VM has a namespace of its own, so all of them use the same addresses and none sees another.

mod address;
mod holder;
mod keeper;
mod link;
mod nft;
mod passt;
mod pasta;
mod process;
mod rules;
mod tools;

pub use address::{Plan, TAP, WAY_OUT};
pub use holder::{Network, Options};
pub use passt::Carrier;
pub use tools::{RunAs, Tools, may_open_tun, user_namespaces};
