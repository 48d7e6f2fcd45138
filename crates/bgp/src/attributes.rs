//! What a path says about itself: the path attributes of RFC 4271 section 5 and of the RFCs the speaker knows.
//!
//! These are values: equal attributes compare and hash equal, so that a table can keep one copy of them
//! for all prefixes that share it. The wire form is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::as_path::AsPath;
use crate::community::{Community, LargeCommunity};

/// ORIGIN (RFC 4271 section 5.1.1), best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Interior to the originating AS (0 on the wire).
    Igp,
    /// Learned by EGP (1).
    Egp,
    /// By some other means (2).
    Incomplete,
}

/// Where packets for the path go (RFC 4271 section 5.1.3; RFC 4760, RFC 2545 and RFC 8950 for IPv6).
///
/// The global address may be of the other family than the prefix, where both speakers can (RFC 8950).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The address. Unspecified (`0.0.0.0`, `::`) in a path of our own that asks for the session's local address.
    pub global: IpAddr,
    /// The link-local address beside a global IPv6 one (RFC 2545 section 3).
    pub link_local: Option<Ipv6Addr>,
}

impl From<IpAddr> for NextHop {
    fn from(global: IpAddr) -> Self {
        NextHop { global, link_local: None }
    }
}

/// An attribute this speaker does not know. Only optional transitive ones are kept (RFC 4271 section 9: passed on with
/// the Partial bit set).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownAttribute {
    /// Attribute flags as received, Partial bit included.
    pub flags: u8,
    /// Attribute type code.
    pub code: u8,
    /// The value, uninterpreted.
    pub value: Box<[u8]>,
}

/// All attributes of one path. A table has hundreds of thousands of these: see the test of their size.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH, four-octet numbers throughout: the wire has merged AS4_PATH (RFC 6793).
    pub as_path: AsPath,
    /// NEXT_HOP, or the one in MP_REACH_NLRI.
    pub next_hop: NextHop,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF. The wire drops it from an external peer's update.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR: AS number and router id.
    pub aggregator: Option<(u32, Ipv4Addr)>,
    /// COMMUNITIES (RFC 1997), sorted, each once (see [`Attributes::normalize`]).
    pub communities: Vec<Community>,
    /// LARGE_COMMUNITY (RFC 8092), sorted, each once.
    pub large_communities: Vec<LargeCommunity>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), nearest reflector first.
    pub cluster_list: Box<[Ipv4Addr]>,
    /// Attributes to be passed on unread, by code.
    pub unknown: Box<[UnknownAttribute]>,
}

impl Attributes {
    /// A path of our own: origin IGP, empty AS path, nothing optional.
    pub fn local(next_hop: impl Into<NextHop>) -> Self {
        Attributes {
            origin: Origin::Igp,
            as_path: AsPath::default(),
            next_hop: next_hop.into(),
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Vec::new(),
            large_communities: Vec::new(),
            originator_id: None,
            cluster_list: Box::default(),
            unknown: Box::default(),
        }
    }

    /// Brings what has no order into one order, so that equal attributes are equal, and lets go of spare capacity.
    pub fn normalize(&mut self) {
        self.communities.sort_unstable();
        self.communities.dedup();
        self.communities.shrink_to_fit();
        self.large_communities.sort_unstable();
        self.large_communities.dedup();
        self.large_communities.shrink_to_fit();
        self.unknown.sort_unstable_by_key(|attribute| attribute.code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shared attributes have two counters in front. mimalloc has places of 192 octets for what is smaller than that, and
    /// takes 224 for the rest.
    #[test]
    fn take_little_room() {
        assert!(size_of::<Attributes>() + 2 * size_of::<usize>() < 192, "{}", size_of::<Attributes>());
    }
}
