//! What a router says of itself, in words that all implementations share.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// A session as one end sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peering {
    /// Whether it is established.
    pub established: bool,
    /// What the implementation says about how it is and how it last ended, in its own words.
    pub said: String,
    /// How much it has been told in this session, announcements or messages as it counts; 0 where it does not say.
    pub heard: u64,
}

/// A path in a router's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Where to.
    pub prefix: IpNet,
    /// The neighbour it came from; none for the router's own.
    pub from: Option<IpAddr>,
    /// Whether it is the one in use (with ECMP: the first among those).
    pub best: bool,
    /// The global next hop.
    pub next_hop: IpAddr,
    /// Autonomous systems, nearest first.
    pub as_path: Vec<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// `ASN:VALUE`.
    pub communities: BTreeSet<String>,
    /// `ASN:VALUE:VALUE`.
    pub large_communities: BTreeSet<String>,
    /// Who brought it into the autonomous system (RFC 4456).
    pub originator: Option<Ipv4Addr>,
    /// Clusters it went through, nearest first (RFC 4456).
    pub clusters: Vec<Ipv4Addr>,
}

impl Path {
    /// A path without attributes, to be filled in.
    pub(super) fn bare(prefix: IpNet, next_hop: IpAddr) -> Self {
        Self {
            prefix,
            from: None,
            best: false,
            next_hop,
            as_path: Vec::new(),
            med: None,
            local_pref: None,
            communities: BTreeSet::new(),
            large_communities: BTreeSet::new(),
            originator: None,
            clusters: Vec::new(),
        }
    }
}

/// A route in the kernel, as `ip -j` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRoute {
    /// Where to.
    pub prefix: IpNet,
    /// Next hops; several where it spreads.
    pub gateways: BTreeSet<IpAddr>,
}
