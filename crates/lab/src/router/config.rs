//! What a router is asked to be, in words that all implementations share. Each renders it into its own language.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::node::Families;

/// One BGP speaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its autonomous system.
    pub asn: u32,
    /// Its BGP identifier (RFC 4271 §1.1).
    pub router_id: Ipv4Addr,
    /// Its cluster where it reflects (RFC 4456 §7); the router id if none.
    pub cluster_id: Option<Ipv4Addr>,
    /// Hold time offered in OPEN, in seconds; keepalives at a third of it.
    pub hold_seconds: u16,
    /// Restart time offered in seconds (RFC 4724 §3, at most 4095); none: the capability is not offered.
    pub graceful_restart: Option<u16>,
    /// How many equal paths go into the kernel as one route.
    pub maximum_paths: u8,
    /// Large tables are to come: nothing is logged or put into the kernel for single routes. ExaBGP and GoBGP do neither
    /// in any case.
    pub bulk: bool,
    /// Whom it talks to.
    pub neighbours: Vec<Neighbour>,
    /// What it announces from the start.
    pub networks: Vec<Network>,
}

impl Config {
    /// A speaker that talks to nobody. Its hold time is the usual one, or a machine that stands still for some seconds ends
    /// sessions; who waits for the silence of a neighbour sets a shorter one.
    pub fn new(asn: u32, router_id: Ipv4Addr) -> Self {
        Self {
            asn,
            router_id,
            cluster_id: None,
            hold_seconds: 90,
            graceful_restart: None,
            maximum_paths: 1,
            bulk: false,
            neighbours: Vec::new(),
            networks: Vec::new(),
        }
    }

    /// With this neighbour, too.
    pub fn neighbour(mut self, neighbour: Neighbour) -> Self {
        self.neighbours.push(neighbour);
        self
    }

    /// Announcing this, too.
    pub fn network(mut self, network: Network) -> Self {
        self.networks.push(network);
        self
    }
}

/// The other end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Where it is; the session's own address is the router's in the same family.
    pub address: IpAddr,
    /// Its autonomous system.
    pub asn: u32,
    /// What is exchanged over the session, whatever it runs over.
    pub families: Families,
    /// TCP MD5 key (RFC 2385). A test's, not a secret.
    pub password: Option<String>,
    /// Hops between the two.
    pub distance: Distance,
    /// Whether we reflect to it as to a client (RFC 4456).
    pub reflector_client: bool,
    /// Whether we put ourselves as next hop on what we pass on.
    pub next_hop_self: bool,
    /// Whether we wait for it to connect.
    pub passive: bool,
    /// Whether IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Whether it gets what the router announces itself and nothing learned from others.
    pub own_only: bool,
    /// Prefixes of one family after which the session is closed.
    pub max_prefixes: Option<u32>,
}

impl Neighbour {
    /// A directly connected neighbour of both families.
    pub fn new(address: IpAddr, asn: u32) -> Self {
        Self {
            address,
            asn,
            families: Families::Dual,
            password: None,
            distance: Distance::Direct,
            reflector_client: false,
            next_hop_self: false,
            passive: false,
            extended_next_hop: false,
            own_only: false,
            max_prefixes: None,
        }
    }
}

/// How far a neighbour is, and what is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Distance {
    /// On the link, as RFC 4271 wants it of external neighbours.
    #[default]
    Direct,
    /// Packets leave with this TTL.
    Multihop(u8),
    /// On the link, sent with TTL 255, and nothing less is believed (GTSM, RFC 5082).
    Secured,
}

/// A prefix to announce, with what goes along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The prefix.
    pub prefix: IpNet,
    /// Where it leads; the router's own address of the prefix's family if none.
    pub next_hop: Option<IpAddr>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// `ASN:VALUE` (RFC 1997).
    pub communities: BTreeSet<String>,
    /// `ASN:VALUE:VALUE` (RFC 8092).
    pub large_communities: BTreeSet<String>,
}

impl Network {
    /// This prefix with nothing along.
    pub fn new(prefix: IpNet) -> Self {
        let (communities, large_communities) = (BTreeSet::new(), BTreeSet::new());
        Self { prefix, next_hop: None, med: None, communities, large_communities }
    }

    /// With a community `ASN:VALUE`, too.
    pub fn community(mut self, community: &str) -> Self {
        self.communities.insert(community.to_owned());
        self
    }

    /// With a large community `ASN:VALUE:VALUE`, too.
    pub fn large_community(mut self, community: &str) -> Self {
        self.large_communities.insert(community.to_owned());
        self
    }

    /// With this MED.
    pub fn med(mut self, med: u32) -> Self {
        self.med = Some(med);
        self
    }
}
