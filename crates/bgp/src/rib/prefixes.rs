//! Prefixes by number, in as little room as their family needs: a table of IPv4 does not pay for IPv6.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::DestinationId;
use crate::chunked::Chunked;
use crate::family::Family;

/// The prefixes of one family.
#[derive(Debug)]
pub(super) enum Prefixes {
    V4(Chunked<Ipv4Net>),
    V6(Chunked<Ipv6Net>),
}

impl Prefixes {
    /// None yet.
    pub(super) const fn new(family: Family) -> Self {
        match family {
            Family::Ipv4Unicast => Prefixes::V4(Chunked::new()),
            Family::Ipv6Unicast => Prefixes::V6(Chunked::new()),
        }
    }

    /// The prefix of a number.
    pub(super) fn get(&self, id: DestinationId) -> Option<IpNet> {
        match self {
            Prefixes::V4(all) => all.get(id as usize).copied().map(IpNet::V4),
            Prefixes::V6(all) => all.get(id as usize).copied().map(IpNet::V6),
        }
    }

    /// Whether the number is this prefix's.
    pub(super) fn is(&self, id: DestinationId, prefix: &IpNet) -> bool {
        match (self, prefix) {
            (Prefixes::V4(all), IpNet::V4(net)) => all.get(id as usize) == Some(net),
            (Prefixes::V6(all), IpNet::V6(net)) => all.get(id as usize) == Some(net),
            _ => false,
        }
    }

    /// Gives a prefix a number: the next one, or one that was another's. The prefix is of this family.
    pub(super) fn put(&mut self, id: DestinationId, prefix: IpNet) {
        fn set<N>(all: &mut Chunked<N>, id: DestinationId, net: N) {
            match all.get_mut(id as usize) {
                Some(place) => *place = net,
                None => all.push(net),
            }
        }
        match (self, prefix) {
            (Prefixes::V4(all), IpNet::V4(net)) => set(all, id, net),
            (Prefixes::V6(all), IpNet::V6(net)) => set(all, id, net),
            _ => debug_assert!(false, "{prefix} in the table of the other family"),
        }
    }
}
