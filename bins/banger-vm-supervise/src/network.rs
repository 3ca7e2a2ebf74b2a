//! The network that a VMM is to run in, and what is said where there is none.

use banger_doc::Error;
use banger_net::{Options, Plan, Tools};

/// The network namespace that the VMM is to run in.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) tools: Tools,
    pub(crate) plan: Plan,
    pub(crate) options: Options,
}

/// Refuses QEMU's own network, which opens the host's loopback to the guest, to whom did not allow that.
pub(crate) fn refuse_network(why: &str) -> Error {
    Error::unavailable("no network that keeps the guest from services on this host's loopback")
        .because(why.to_owned())
        .hint(
            "'banger doctor' says what is missing; '--net none' does without a network, '--allow-host' \
             opens them ('banger vm set' takes both)",
        )
}

/// What the user is to know of a VM behind QEMU's own network.
pub(crate) fn weaker_network(plan: &Plan, why: &str) -> String {
    let gateway = plan.gateway;
    format!(
        "network: QEMU's own, since {why}; the guest reaches services on this host's loopback as \
         {gateway}"
    )
}
