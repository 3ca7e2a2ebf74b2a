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

/// Refuses QEMU's own network, which opens the host's loopback to the guest, to whom did not allow that; says why
/// there is no namespace and, where that was asked, why nothing carries the guest's packets without one.
pub(crate) fn refuse_network(why: &str, uncarried: Option<&str>) -> Error {
    let both = match uncarried {
        Some(uncarried) if uncarried != why => {
            format!("{why}; nor can 'passt' do without a namespace: {uncarried}")
        }
        _ => why.to_owned(),
    };
    Error::unavailable("no network that keeps the guest from services on this host's loopback")
        .because(both)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_stands_in_both_ways() {
        let said = |why, uncarried| refuse_network(why, uncarried).chain();
        let both = said("'/dev/net/tun' cannot be opened", Some("QEMU 6.2 is older than 7.2"));
        assert!(both.contains("/dev/net/tun") && both.contains("QEMU 6.2"), "{both}");
        let one =
            said("user namespaces are switched off", Some("user namespaces are switched off"));
        assert_eq!(one, said("user namespaces are switched off", None));
    }
}
