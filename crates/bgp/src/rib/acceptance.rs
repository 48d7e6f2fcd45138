//! Whether a received path may be used at all, whatever policies say: loops and martians.
//!
//! Decided from the path and from what identifies us. A refused path is kept, with the reason, so that it can be shown
//! and be used when the reason is gone.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Refusal;
use crate::attributes::{Attributes, NextHop};

/// What identifies us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) asn: u32,
    pub(crate) router_id: Option<Ipv4Addr>,
    pub(crate) cluster_id: Option<Ipv4Addr>,
    /// Addresses a next hop may not be.
    pub(crate) addresses: HashSet<IpAddr>,
}

impl Identity {
    /// Why paths with these attributes cannot be used (RFC 4271 sections 5.1.3 and 9.1.2, RFC 4456 section 8).
    /// `over_link_local` says that the session itself is between link-local addresses.
    pub(crate) fn refuses(
        &self,
        attributes: &Attributes,
        local: IpAddr,
        over_link_local: bool,
    ) -> Option<Refusal> {
        if attributes.as_path.contains(self.asn) {
            return Some(Refusal::OwnAs);
        }
        if attributes.originator_id.is_some() && attributes.originator_id == self.router_id {
            return Some(Refusal::OwnOriginatorId);
        }
        if self.cluster_id.is_some_and(|id| attributes.cluster_list.contains(&id)) {
            return Some(Refusal::OwnClusterId);
        }
        let next_hop = attributes.next_hop;
        let ours = next_hop.global == local || self.addresses.contains(&next_hop.global);
        (ours || is_martian(&next_hop, over_link_local)).then_some(Refusal::MartianNextHop)
    }
}

/// Whether no router can have the address.
fn is_martian(next_hop: &NextHop, over_link_local: bool) -> bool {
    match next_hop.global {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            first == 0 || first >= 224 || v4.is_loopback()
        }
        IpAddr::V6(v6) => {
            let link_local_only = v6.is_unicast_link_local() && !over_link_local;
            v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || link_local_only || is_mapped(v6)
        }
    }
}

fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

/// Whether a prefix is no destination for unicast between routers. The default route is one.
pub(crate) fn is_martian_prefix(prefix: &IpNet) -> bool {
    if prefix.prefix_len() == 0 {
        return false;
    }
    match prefix.addr() {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            // Prefixes of one bit begin with 0, too; they are halves of the default route, and destinations.
            (first == 0 && prefix.prefix_len() >= 8) || first == 127 || first >= 224
        }
        IpAddr::V6(v6) => {
            let special = v6.is_unspecified() || v6.is_loopback();
            (special && prefix.prefix_len() >= 128)
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || (is_mapped(v6) && prefix.prefix_len() >= 96)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::as_path::{AsPath, Segment, SegmentKind};

    fn path(next_hop: &str) -> Attributes {
        Attributes::local(next_hop.parse::<IpAddr>().unwrap())
    }

    fn identity() -> Identity {
        Identity {
            asn: 64_512,
            router_id: Some(Ipv4Addr::new(192, 0, 2, 1)),
            cluster_id: Some(Ipv4Addr::new(192, 0, 2, 100)),
            addresses: HashSet::from(["198.51.100.1".parse().unwrap()]),
        }
    }

    fn refusal(attributes: &Attributes) -> Option<Refusal> {
        identity().refuses(attributes, "192.0.2.1".parse().unwrap(), false)
    }

    #[test]
    fn loops() {
        let good = path("192.0.2.9");
        assert_eq!(refusal(&good), None);
        let set = Segment { kind: SegmentKind::Set, asns: vec![1, 64_512] };
        for as_path in [AsPath::sequence([1, 64_512, 2]), AsPath::new([set])] {
            assert_eq!(refusal(&Attributes { as_path, ..good.clone() }), Some(Refusal::OwnAs));
        }
        let originator =
            |id| Attributes { originator_id: Some(Ipv4Addr::new(192, 0, 2, id)), ..good.clone() };
        assert_eq!(refusal(&originator(1)), Some(Refusal::OwnOriginatorId));
        assert_eq!(refusal(&originator(2)), None);
        let reflected =
            |id| Attributes { cluster_list: [Ipv4Addr::new(192, 0, 2, id)].into(), ..good.clone() };
        assert_eq!(refusal(&reflected(100)), Some(Refusal::OwnClusterId));
        assert_eq!(refusal(&reflected(101)), None);
    }

    #[test]
    fn next_hops() {
        let martians = [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.51.100.1",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
            "::ffff:192.0.2.9",
        ];
        for martian in martians {
            assert_eq!(refusal(&path(martian)), Some(Refusal::MartianNextHop), "{martian}");
        }
        for good in ["192.0.2.9", "10.0.0.1", "2001:db8::1"] {
            assert_eq!(refusal(&path(good)), None, "{good}");
        }
        let over_link = identity().refuses(&path("fe80::1"), "fe80::2".parse().unwrap(), true);
        assert_eq!(over_link, None);
    }

    #[test]
    fn prefixes() {
        for martian in [
            "0.0.0.0/8",
            "127.0.0.0/8",
            "127.1.2.3/32",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "::1/128",
            "::/128",
            "ff00::/8",
            "fe80::/10",
            "fe80::/64",
            "::ffff:0:0/96",
        ] {
            assert!(is_martian_prefix(&martian.parse().unwrap()), "{martian}");
        }
        for good in [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "128.0.0.0/1",
            "10.0.0.0/8",
            "223.255.255.255/32",
            "::/0",
            "::/1",
            "2000::/3",
            "fd00::/8",
            "2001:db8::1/128",
        ] {
            assert!(!is_martian_prefix(&good.parse().unwrap()), "{good}");
        }
    }
}
