//! The nftables ruleset of a namespace (nft(8)).

use crate::{Plan, TAP, WAY_OUT, pasta::DNS};

/// Returns the ruleset as one transaction: all of it holds or none.
///
/// Nothing but the guest sends through here, and under its own addresses only. Nothing comes back
/// but answers. The namespace itself answers pings and neighbours, and passes questions for names on
/// to `pasta`.
pub(crate) fn ruleset(plan: &Plan, allow_host: bool) -> String {
    let Plan { gateway, guest, dns, gateway6, guest6, host_gateway, .. } = plan;
    let host = match host_gateway {
        Some(address) if allow_host => format!(
            "iifname {TAP} ip daddr {gateway} meta l4proto {{ tcp, udp }} dnat ip to {address}\n"
        ),
        _ => String::new(),
    };
    format!(
        "table inet banger {{
  chain source {{
    type filter hook prerouting priority raw; policy accept;
    iifname {TAP} meta nfproto ipv4 ip saddr != {guest} drop
    iifname {TAP} meta nfproto ipv6 ip6 saddr != {{ {guest6}, fe80::/10, :: }} drop
  }}
  chain name {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname {TAP} ip daddr {dns} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {DNS}
    {host}
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname {TAP} oifname {WAY_OUT} ip6 saddr fe80::/10 drop
    iifname {TAP} oifname {WAY_OUT} accept
    iifname {WAY_OUT} oifname {TAP} ct state established,related accept
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    iifname {TAP} ip daddr {gateway} icmp type echo-request accept
    iifname {TAP} ip6 daddr {gateway6} icmpv6 type echo-request accept
    iifname {TAP} meta l4proto {{ tcp, udp }} reject
  }}
  chain leave {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname {WAY_OUT} masquerade
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allow_host_leads_to_the_host() {
        let mut plan = Plan::new();
        plan.host_gateway = Some("203.0.113.1".parse().unwrap());
        assert!(!ruleset(&plan, false).contains("203.0.113.1"));
        assert!(ruleset(&plan, true).contains("dnat ip to 203.0.113.1"));
        plan.host_gateway = None;
        assert_eq!(ruleset(&plan, true), ruleset(&plan, false));
    }
}
